"""A teacher: another model, behind an OpenAI-compatible URL, that answers train prompts so that SFT can learn from its reasoning.

It is asked exactly what the student is asked, without the answer, `samples` times a row; the first answer that the scorer accepts is kept. A
server that takes the thinking out of the text (a field beside the content) gets it put back.

Prompts hold patient records. They go to the address that the document names and nowhere else: no redirect is followed, no proxy of the
environment is used, and a public address is refused unless the document says `external: true`, and is then asked by https only.

What was answered is kept in chunks that survive a kill, like those of evaluation.
"""

import hashlib
import ipaddress
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from ehrmind_k8s import logs
from ehrmind_k8s.artifacts import Claim
from ehrmind_k8s.errors import SpecError, TeacherUnavailable
from ehrmind_k8s.records import Example
from ehrmind_k8s.rollout.base import Sampling
from ehrmind_k8s.spec import RunSpec, TeacherSpec
from ehrmind_k8s.tasks.base import Task
from ehrmind_k8s.tokenization import Tokenizer
from ehrmind_k8s.training import traces
from ehrmind_k8s.training.traces import Gathered

CHUNK = 32  # rows per object in the store, and at once with the teacher
TRIES = 6  # of one request, over about a minute
LONGEST_WAIT_S = 60.0
CONNECT_S, READ_S = 10.0, 900.0  # a reasoning model may think for minutes
Resolve = Callable[[str, int], list[str]]


def addresses(host: str, port: int) -> list[str]:
    """The addresses of a host. Raises TeacherUnavailable where its name is not known now."""
    try:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
    except OSError:
        raise TeacherUnavailable(f"sft.teacher.url: host {host!r} is not known here") from None


def check_place(teacher: TeacherSpec, resolve: Resolve = addresses) -> None:
    """Raises SpecError where records would leave the cluster or the host without the document's consent, or in the clear."""
    url = urlsplit(teacher.url or "")
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    public = [a for a in resolve(host, port) if ipaddress.ip_address(a.partition("%")[0]).is_global]
    if public and not teacher.external:
        raise SpecError(
            f"sft.teacher.url: {host} has the public address {public[0]}, and prompts hold patient records; use a teacher on this cluster or"
            " network, or say sft.teacher.external=true if the records may go there"
        )
    if public and url.scheme != "https":
        raise SpecError(f"sft.teacher.url: {host} has the public address {public[0]}, and records must not travel there in the clear; use https")


@dataclass(frozen=True, slots=True)
class Teacher:
    """One teacher. `wait` sleeps (seconds)."""

    spec: TeacherSpec
    http: httpx.Client
    wait: Callable[[float], None] = time.sleep

    @classmethod
    def connect(cls, spec: TeacherSpec, key: str | None) -> "Teacher":
        """A teacher whose address is checked."""
        check_place(spec)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(CONNECT_S, read=READ_S, pool=READ_S)
        return cls(spec, httpx.Client(headers=headers, timeout=timeout, trust_env=False, follow_redirects=False))

    def ask(self, example: Example, sampling: Sampling) -> list[str] | None:
        """Whole completions, up to `sampling.n`; None where the teacher refuses this prompt (too long for it).

        Raises TeacherUnavailable when trying again has not helped, SpecError for an answer that trying again does not mend.
        """
        body = {
            "model": self.spec.model,
            "messages": [dict(m) for m in example.messages],
            "n": sampling.n,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed_for(example.id) % 2**31,
        }
        why = ""
        for tried in range(TRIES):
            if tried:
                self.wait(_pause(tried, why))
            try:
                reply = self.http.post(f"{(self.spec.url or '').rstrip('/')}/chat/completions", json=body)
            except httpx.TransportError as error:
                why = type(error).__name__
                continue
            if reply.status_code == httpx.codes.OK:
                if texts := _texts(reply):
                    return texts
                why = "a reply without choices"
            elif reply.status_code in (400, 413, 422):
                return None
            elif reply.status_code == httpx.codes.TOO_MANY_REQUESTS or reply.status_code >= 500:
                why = f"status {reply.status_code}"
            else:
                raise SpecError(f"sft.teacher.url {self.spec.url}: {_refusal(reply.status_code, self.spec)}")
        raise TeacherUnavailable(f"sft.teacher.url {self.spec.url}: {why}, {TRIES} times")


def gather(spec: RunSpec, task: Task, tokenizer: Tokenizer, rows: Sequence[Example], teacher: Teacher, claim: Claim) -> Gathered:
    """Ask about every row, keep what the scorer accepts; what an earlier attempt was answered is not asked again.

    Raises SpecError where the teacher refuses every prompt of the first chunk: it is not one row that is too long.
    """
    sampling = Sampling(spec.sft.teacher.samples, spec.completion_tokens, spec.rlvr.temperature, spec.rlvr.top_p, spec.seed)
    stem, texts, said = f"teacher/part-{_digest(spec, rows)}", dict[str, str](), Counter[str]()
    for start in range(0, len(rows), CHUNK):
        key = f"{stem}-{start:06d}.jsonl"
        try:
            part = _read(claim.store.get_bytes(key))
        except KeyError:
            part = _answered(spec, task, tokenizer, rows[start : start + CHUNK], teacher, sampling)
            claim.check()
            claim.store.put_bytes(key, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in part).encode())
        for line in part:
            said += Counter(line["said"])
            if line["text"] is not None:
                texts[line["id"]] = line["text"]
        if not start and said["refused"] == len(part):
            raise SpecError(f"sft.teacher.url {spec.sft.teacher.url}: model {spec.sft.teacher.model} refuses all of the first {len(part)} prompts")
        logs.progress(min(start + CHUNK, len(rows)), len(rows), "traces", kept=len(texts))
    return Gathered.of(len(rows), texts, said)


def _answered(spec: RunSpec, task: Task, tokenizer: Tokenizer, rows: Sequence[Example], teacher: Teacher, sampling: Sampling) -> list[dict[str, Any]]:
    """One line per row: its id, what was said of each text, and the text that is kept."""
    pool = ThreadPoolExecutor(max_workers=CHUNK, thread_name_prefix="teacher")
    try:
        replies = list(pool.map(lambda e: teacher.ask(e, sampling), rows))
    finally:  # after an error or a signal nobody waits for the others
        pool.shutdown(wait=False, cancel_futures=True)
    lines = []
    for example, found in zip(rows, replies, strict=True):
        judged = [(text, traces.judge(task, tokenizer, example, text, spec.completion_tokens)) for text in found or ()]
        said = Counter(outcome for _, outcome in judged) if found is not None else Counter({"refused": 1})
        kept = next((text for text, outcome in judged if outcome == "correct"), None)
        lines.append({"id": example.id, "said": dict(said), "text": kept})
    return lines


def _digest(spec: RunSpec, rows: Sequence[Example]) -> str:
    """Over everything that decides the answers: another teacher, prompt or sampling is asked anew."""
    asked = [[e.id, [dict(m) for m in e.messages], e.target] for e in rows]
    teacher = spec.sft.teacher
    how = [teacher.url, teacher.model, teacher.samples, spec.completion_tokens, spec.rlvr.temperature, spec.rlvr.top_p, spec.seed]
    return hashlib.sha256(json.dumps([how, asked], sort_keys=True, default=str).encode()).hexdigest()[:16]


def _texts(reply: httpx.Response) -> list[str]:
    """The completions of a reply; empty for one that is not of this form."""
    try:
        return [_whole(choice["message"]) for choice in reply.json()["choices"]]
    except (ValueError, KeyError, TypeError):
        return []


def _whole(message: Mapping[str, Any]) -> str:
    """The completion as one text. Servers with a reasoning parser hold the thinking apart."""
    content, thought = message.get("content") or "", message.get("reasoning_content") or message.get("reasoning")
    if not isinstance(thought, str) or "<think>" in content:
        return str(content)
    return f"<think>{thought.strip()}</think>\n{content.strip()}"


def _pause(tried: int, why: str) -> float:
    """Seconds before another try: doubled each time."""
    return min(LONGEST_WAIT_S, 2.0 ** (tried - 1) * (2.0 if why.startswith("status") else 1.0))


def _refusal(status: int, teacher: TeacherSpec) -> str:
    if status in (401, 403):
        return f"status {status}: it wants another key; set EHRMIND_TEACHER_KEY (on a cluster: teacher_secret of the profile)"
    if status == httpx.codes.NOT_FOUND:
        return f"status 404: no model {teacher.model!r}, or no /chat/completions below this URL, which ends in /v1 as a rule"
    return f"status {status}; expected an OpenAI-compatible server"


def _read(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.decode().split("\n") if line]
