"""Sampling from N vLLM servers that join, restart and die at will.

A server is *admitted* when it belongs to this run, was synced to the current policy and passed the canary. Only admitted servers get work;
the first failure benches a server, and the health loop brings it back by the same three steps. A group of n samples is one request, sent
again elsewhere as a whole. Where no server is left the pool waits, visibly and no longer than `rollout.wait_s`. What the URLs name is asked
every second, so servers join and leave in the middle of a step.
"""

import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ehrmind_k8s import logs, storage
from ehrmind_k8s.errors import IntegrityError, RolloutUnavailable, SpecError
from ehrmind_k8s.records import Completion, Prompt
from ehrmind_k8s.rollout import token, weights
from ehrmind_k8s.rollout.base import Policy, Sampling, Stats
from ehrmind_k8s.rollout.client import Client, ServerError, Target
from ehrmind_k8s.settings import Settings
from ehrmind_k8s.spec import RunSpec
from ehrmind_k8s.tokenization import Tokenizer

TICK_S = 1.0
TELL_S = 10.0
STRAGGLER_S = 5.0
ROWS = 256  # samples in flight per server: two waves of a CPU server, less than one of a GPU
TRIES = 5  # a group that ends this many servers is the likelier culprit
MAX_BACKOFF_S = 30.0


@dataclass(eq=False)
class Server:
    """One server as the pool sees it. `rows` are samples in flight; `reason` says why it is not admitted."""

    client: Client
    admitted: bool = False
    rows: int = 0
    reason: str = "not asked yet"
    refusal: IntegrityError | None = None
    failures: int = 0
    retry_at: float = 0.0
    pause_s: float = 0.0  # how long it stood still for the current policy (seconds)
    asking: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return self.client.url


class Pool:
    """A `base.Generator` over servers. One thread looks after them; every field below `_changed` is written under it."""

    def __init__(
        self, urls: Sequence[str], token: str, uid: str, tokenizer: Tokenizer, dtype: str = "float32", wait_s: float = 600, min_ready: int = 1
    ) -> None:
        self._urls, self._token, self._uid, self._tokenizer = tuple(urls), token, uid, tokenizer
        self._tolerance, self._wait_s, self._min_ready = weights.TOLERANCE[dtype], wait_s, min_ready
        self._changed = threading.Condition()
        self._servers: dict[str, Server] = {}
        self._leaving: list[Server] = []  # named no more, with requests in flight
        self._named: dict[str, list[str]] = {}  # what each URL named when it last named anything
        self._target: Target | None = None
        self._stats = Stats()
        self._told = -TELL_S
        self._stop = threading.Event()
        self._askers = ThreadPoolExecutor(max_workers=64, thread_name_prefix="rollout-ask")
        self._loop = threading.Thread(target=self._look_after, name="rollout-health", daemon=True)
        self._loop.start()

    @classmethod
    def connect(cls, spec: RunSpec, run_uri: str, uid: str, tokenizer: Tokenizer, settings: Settings) -> "Pool":
        """The pool of this run, as the place that runs it has set EHRMIND_ROLLOUT_URLS. Raises SpecError without it."""
        urls = [u.strip() for u in (settings.rollout_urls or "").split(",") if u.strip()]
        if not urls:
            raise SpecError("rollout.engine vllm needs EHRMIND_ROLLOUT_URLS; the backend that starts a stage sets it")
        secret = token.of(storage.open(run_uri), settings)
        return cls(urls, secret, uid, tokenizer, spec.model.dtype, spec.rollout.wait_s, spec.rollout.min_ready)

    @property
    def stats(self) -> Stats:
        """Figures up to now."""
        with self._changed:
            return self._stats

    def use(self, policy: Policy) -> None:
        """Sync all servers at once and return when `min_ready` are admitted; the others join when they can.

        Raises IntegrityError (bad artifact, or every server fails its canary) or RolloutUnavailable.
        """
        started, before = time.monotonic(), self._target
        if before is None or before.policy != policy:
            self._retarget(policy)
        self._await_ready()
        if self._target is not before:
            pause_s = max((s.pause_s for s in list(self._servers.values())), default=0.0)
            self._add(syncs=1, sync_s=time.monotonic() - started, pause_s=pause_s)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """B groups of up to G completions, in the order of `prompts`, all made by the current policy."""
        target = self._target
        if target is None:
            raise RolloutUnavailable("no policy is loaded; call use() first")
        if not prompts:
            return []
        threads = ThreadPoolExecutor(max_workers=min(len(prompts), ROWS), thread_name_prefix="rollout")
        abandoned = threading.Event()
        try:
            futures = [threads.submit(self._group, target, prompt, sampling, abandoned) for prompt in prompts]
            return [future.result() for future in futures]
        finally:  # after an error or a signal nobody waits for replies: a pod's grace is shorter than a long completion
            abandoned.set()
            threads.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Stop looking after servers; they themselves go on."""
        self._stop.set()
        self._loop.join()
        self._askers.shutdown(wait=False, cancel_futures=True)
        for server in (*self._servers.values(), *self._leaving):
            server.client.close()

    def _retarget(self, policy: Policy) -> None:
        """Ask every server to sync. One that hangs holds nobody up: after STRAGGLER_S the ready ones go on without it."""
        target = Target(policy, weights.load(policy), self._uid)
        if target.meta.tokenizer != self._tokenizer.fingerprint:
            raise IntegrityError(f"{policy.uri}: policy {policy.name} was made with another tokenizer than this run's start model has")
        with self._changed:
            self._target = target
            for server in self._servers.values():
                server.admitted, server.refusal, server.retry_at, server.failures = False, None, 0.0, 0
                server.reason, server.pause_s = "not synced yet", 0.0
        self._resolve()
        asks = [self._askers.submit(self._ask, server, wait=True) for server in list(self._servers.values())]
        wait(asks, timeout=STRAGGLER_S)

    def _group(self, target: Target, prompt: Prompt, sampling: Sampling, abandoned: threading.Event) -> list[Completion]:
        for _ in range(TRIES):
            server = self._acquire(sampling.n, abandoned)
            try:
                group = server.client.generate(target, prompt, sampling, self._tokenizer)
            except ServerError as error:
                self._bench(server, str(error))
                self._add(retries=1)
            else:
                tokens = sum(len(c.token_ids) for c in group)
                self._add(prompt_tokens=len(prompt.token_ids), completion_tokens=tokens, dropped=sampling.n - len(group))
                return group
            finally:
                self._release(server, sampling.n)
        raise RolloutUnavailable(f"prompt {prompt.id} failed on {TRIES} servers in turn; the logs of the servers say why")

    def _acquire(self, rows: int, abandoned: threading.Event) -> Server:
        """The admitted server with the least in flight."""
        with self._changed:
            since: float | None = None
            while not abandoned.is_set():
                ready = [s for s in self._servers.values() if s.admitted]
                free = [s for s in ready if not s.rows or s.rows + rows <= ROWS]
                if free:
                    server = min(free, key=lambda s: s.rows)
                    server.rows += rows
                    return server
                since = self._pause(since, len(ready), 1)
        raise RolloutUnavailable("nobody waits for this group any more")

    def _release(self, server: Server, rows: int) -> None:
        with self._changed:
            server.rows -= rows
            self._changed.notify_all()

    def _await_ready(self) -> None:
        with self._changed:
            since: float | None = None
            while (ready := sum(s.admitted for s in self._servers.values())) < self._min_ready:
                refusals = [s.refusal for s in self._servers.values() if s.refusal]
                if refusals and len(refusals) == len(self._servers):
                    raise refusals[0]
                since = self._pause(since, ready, self._min_ready)

    def _pause(self, since: float | None, ready: int, needed: int) -> float | None:
        """Wait for a change with the lock held. Returns since when too few servers were ready; raises RolloutUnavailable after `wait_s` of it."""
        if ready >= needed:
            self._changed.wait(TICK_S)
            return None
        now = time.monotonic()
        since = now if since is None else since
        reasons = "; ".join(f"{s.url}: {s.reason}" for s in self._servers.values() if not s.admitted) or "no server is known"
        if now - since >= self._wait_s:
            raise RolloutUnavailable(f"{ready} of {needed} rollout servers were ready after {self._wait_s:g} s (rollout.wait_s); {reasons}")
        if now - self._told >= TELL_S:
            self._told = now
            logs.event("rollout.waiting", ready=ready, needed=needed, servers=len(self._servers), reasons=reasons, wait_s=self._wait_s)
        self._changed.wait(TICK_S)
        return since

    def _look_after(self) -> None:
        while not self._stop.wait(TICK_S):
            self._resolve()
            for server in list(self._servers.values()):
                if not server.asking.locked():
                    self._askers.submit(self._ask, server)

    def _ask(self, server: Server, *, wait: bool = False) -> None:
        """Admit a server, or see whether an admitted one still is what it was. With `wait`, after whoever is asking it already."""
        if time.monotonic() < server.retry_at or not server.asking.acquire(blocking=wait):
            return
        try:
            target = self._target  # read under the lock: with an older one, a server just admitted would look wrong
            if target is None:
                return
            state = server.client.state()
            if state.get("uid") != self._uid:
                raise ServerError(f"serves run {state.get('uid')}")
            if server.admitted:
                if state.get("policy") != target.served:
                    raise ServerError(f"holds {state.get('policy')}")
                return
            server.pause_s = server.client.sync(target)
            weights.check(target.policy, target.meta.canary, server.client.canary(target), self._tolerance, server.url)
            self._admit(server, target)
        except ServerError as error:
            self._bench(server, str(error))
        except IntegrityError as error:
            self._bench(server, str(error), error)
        except Exception as error:  # ours or a library's: told as a reason, or the server would stay "not asked yet" for ever
            self._bench(server, f"unexpected {type(error).__name__}")
        finally:
            server.asking.release()

    def _admit(self, server: Server, target: Target) -> None:
        with self._changed:
            if self._target is not target or self._servers.get(server.url) is not server:
                return
            server.admitted, server.reason, server.refusal, server.failures = True, "", None, 0
            counts = self._counts()
            self._changed.notify_all()
        logs.event("rollout.admitted", server=server.url, policy=target.policy.name, **counts)

    def _bench(self, server: Server, reason: str, refusal: IntegrityError | None = None) -> None:
        with self._changed:
            told = server.reason == reason
            server.admitted, server.reason, server.refusal = False, reason, refusal
            server.failures += 1
            backoff_s = min(MAX_BACKOFF_S, 2.0 ** min(server.failures - 1, 5)) if refusal else 0.0  # a refusal costs a download each time
            server.retry_at = time.monotonic() + backoff_s
            counts = self._counts()
            self._changed.notify_all()
        if not told:
            logs.event("rollout.benched", server=server.url, reason=reason, **counts)

    def _counts(self) -> dict[str, int]:
        return {"ready": sum(s.admitted for s in self._servers.values()), "servers": len(self._servers)}

    def _add(self, **more: float) -> None:
        with self._changed:
            self._stats = self._stats.add(**more)

    def _resolve(self) -> None:
        """Bring the table of servers to what the URLs name now. One that is named no more gets no work, and may finish what it has.

        A name that names nothing changes nothing: more often than all servers at once, it is the name server that is away.
        """
        self._named |= {given: found for given in self._urls if (found := resolve(given))}
        urls = {url for found in self._named.values() for url in found}
        with self._changed:
            joined = sorted(urls - self._servers.keys())
            left = sorted(self._servers.keys() - urls)
            self._servers |= {url: Server(Client(url, self._token)) for url in joined}
            for server in [self._servers.pop(url) for url in left]:
                server.admitted, server.reason = False, "left"
                self._leaving.append(server)
            done = [server for server in self._leaving if not server.rows]
            self._leaving = [server for server in self._leaving if server.rows]
            counts = self._counts()
        for server in done:
            server.client.close()
        for name, found in (("rollout.joined", joined), ("rollout.left", left)):
            for url in found:
                logs.event(name, server=url, **counts)


def resolve(url: str) -> list[str]:
    """The servers a URL names now: itself, or for dns://host:port one per address (a headless Service, not-ready pods included)."""
    parts = urlsplit(url)
    if parts.scheme != "dns":
        return [url.rstrip("/")]
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
    except OSError:  # no pod yet, or the name server is away for a moment
        return []
    hosts = sorted({str(info[4][0]) for info in found})
    return [f"http://[{h}]:{parts.port}" if ":" in h else f"http://{h}:{parts.port}" for h in hosts]
