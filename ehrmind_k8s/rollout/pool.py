"""Sampling from N vLLM servers that join, restart and die at will.

A server is *admitted* when it belongs to this run, was synced to the current policy and passed the canary. Only admitted servers get work;
the first failure benches a server, and the health loop brings it back by the same three steps. A group of n samples is one request, sent
again elsewhere as a whole. Where no server is left the pool waits, visibly and no longer than `rollout.wait_s`.
"""

import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ehrmind_k8s import logs
from ehrmind_k8s.errors import IntegrityError, RolloutUnavailable, SpecError
from ehrmind_k8s.records import Completion, Prompt
from ehrmind_k8s.rollout import weights
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
        self._target: Target | None = None
        self._stats = Stats()
        self._told = -TELL_S
        self._stop = threading.Event()
        self._askers = ThreadPoolExecutor(max_workers=64, thread_name_prefix="rollout-ask")
        self._loop = threading.Thread(target=self._look_after, name="rollout-health", daemon=True)
        self._loop.start()

    @classmethod
    def connect(cls, spec: RunSpec, uid: str, tokenizer: Tokenizer, settings: Settings) -> "Pool":
        """The pool of this run, as the place that runs it has set EHRMIND_ROLLOUT_URLS and EHRMIND_RUN_TOKEN. Raises SpecError without them."""
        urls = [u.strip() for u in (settings.rollout_urls or "").split(",") if u.strip()]
        if not urls or settings.run_token is None:
            raise SpecError("rollout.engine vllm needs EHRMIND_ROLLOUT_URLS and EHRMIND_RUN_TOKEN; the backend that starts a stage sets both")
        token = settings.run_token.get_secret_value()
        return cls(urls, token, uid, tokenizer, spec.model.dtype, spec.rollout.wait_s, spec.rollout.min_ready)

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
        with ThreadPoolExecutor(max_workers=min(len(prompts), ROWS), thread_name_prefix="rollout") as threads:
            futures = [threads.submit(self._group, target, prompt, sampling) for prompt in prompts]
            try:
                return [future.result() for future in futures]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def close(self) -> None:
        """Stop looking after servers; they themselves go on."""
        self._stop.set()
        self._loop.join()
        self._askers.shutdown(cancel_futures=True)
        for server in self._servers.values():
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

    def _group(self, target: Target, prompt: Prompt, sampling: Sampling) -> list[Completion]:
        for _ in range(TRIES):
            server = self._acquire(sampling.n)
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

    def _acquire(self, rows: int) -> Server:
        """The admitted server with the least in flight."""
        with self._changed:
            since: float | None = None
            while True:
                ready = [s for s in self._servers.values() if s.admitted]
                free = [s for s in ready if not s.rows or s.rows + rows <= ROWS]
                if free:
                    server = min(free, key=lambda s: s.rows)
                    server.rows += rows
                    return server
                since = self._pause(since, len(ready), 1)

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
            if self._target is not target:
                return
            server.admitted, server.reason, server.refusal, server.failures = True, "", None, 0
            self._changed.notify_all()
        logs.event("rollout.admitted", server=server.url, policy=target.policy.name)

    def _bench(self, server: Server, reason: str, refusal: IntegrityError | None = None) -> None:
        with self._changed:
            told = server.reason == reason
            server.admitted, server.reason, server.refusal = False, reason, refusal
            server.failures += 1
            backoff_s = min(MAX_BACKOFF_S, 2.0 ** min(server.failures - 1, 5)) if refusal else 0.0  # a refusal costs a download each time
            server.retry_at = time.monotonic() + backoff_s
            self._changed.notify_all()
        if not told:
            logs.event("rollout.benched", server=server.url, reason=reason)

    def _add(self, **more: float) -> None:
        with self._changed:
            self._stats = self._stats.add(**more)

    def _resolve(self) -> None:
        """Bring the table of servers to what the URLs name now."""
        urls = {url for given in self._urls for url in resolve(given)}
        with self._changed:
            for url in urls - self._servers.keys():
                self._servers[url] = Server(Client(url, self._token))
            gone = [self._servers.pop(url) for url in self._servers.keys() - urls]
            for server in gone:
                server.admitted, server.reason = False, "left"
        for server in gone:
            server.client.close()


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
