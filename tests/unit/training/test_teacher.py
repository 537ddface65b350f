"""Asking a teacher over HTTP: what is kept, where records may go, what a bad answer leads to."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ehrmind_k8s import spec
from ehrmind_k8s.artifacts import Claim
from ehrmind_k8s.errors import SpecError, TeacherUnavailable
from ehrmind_k8s.records import Example, Verdict
from ehrmind_k8s.rollout.base import Sampling
from ehrmind_k8s.spec import RunSpec, TeacherSpec
from ehrmind_k8s.tokenization import Tokenizer
from ehrmind_k8s.training import teacher
from ehrmind_k8s.training.teacher import Teacher
from tests.unit.training.conftest import example

RIGHT, WRONG, NOISE = "<think>x</think><answer>right</answer>", "<think>x</think><answer>no</answer>", "hm"


class Scorer:
    """Just enough of a task: a text is right when it says so."""

    def score(self, example: Example, text: str) -> Verdict:
        return Verdict("right" in text, None, "scored" if "<answer>" in text else "malformed")


@dataclass
class Server:
    """An OpenAI-compatible server on this machine. `replies` gives (status, choices or body) for each request in turn, the last for ever."""

    replies: list[tuple[int, Any]]
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""


def message(content: str, **more: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": content, **more}}


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server([(200, [message(RIGHT)])])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.asked.append({**body, "path": self.path})
            found.keys.append(self.headers["Authorization"])
            status, choices = found.replies.pop(0) if len(found.replies) > 1 else found.replies[0]
            reply = json.dumps({"choices": choices} if isinstance(choices, list) else choices).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"{found.url}/elsewhere")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield found
    http.shutdown()
    http.server_close()


def document(server: Server, samples: int = 1) -> RunSpec:
    return spec.load(
        {"task": "medcalc", "preset": "tiny", "sft": {"traces": "teacher", "teacher": {"url": server.url, "model": "big", "samples": samples}}}
    )


def asked(server: Server, key: str | None = None) -> Teacher:
    found = Teacher.connect(document(server).sft.teacher, key)
    return Teacher(found.spec, found.http, wait=lambda seconds: None)


def gather(server: Server, rows: list[Example], tokenizer: Tokenizer, claim: Claim, samples: int = 1) -> teacher.Gathered:
    return teacher.gather(document(server, samples), Scorer(), tokenizer, rows, asked(server), claim)  # type: ignore[arg-type]


def test_the_first_answer_that_the_scorer_accepts_is_kept(server: Server, tokenizer: Tokenizer, claim: Claim) -> None:
    server.replies = [(200, [message(NOISE), message(WRONG), message(RIGHT), message(RIGHT + " again")])]
    found = gather(server, [example(1), example(2)], tokenizer, claim, samples=4)
    assert found.texts == {"e1": RIGHT, "e2": RIGHT}
    assert found.judged == {"rows": 2, "kept": 2, "correct": 4, "malformed": 2, "wrong": 2}


def test_the_teacher_sees_the_prompt_and_not_the_answer(server: Server, tokenizer: Tokenizer, claim: Claim) -> None:
    gather(server, [example(7)], tokenizer, claim)
    (request,) = server.asked
    assert request["path"] == "/v1/chat/completions" and request["model"] == "big" and request["n"] == 1
    assert request["messages"] == [dict(m) for m in example(7).messages]
    assert '"7"' not in json.dumps(request["messages"])


def test_thinking_that_a_server_holds_apart_is_put_back(server: Server) -> None:
    server.replies = [(200, [message("<answer>right</answer>", reasoning_content="because\n"), message(RIGHT, reasoning_content="twice")])]
    assert asked(server).ask(example(1), Sampling(2, 16)) == ["<think>because</think>\n<answer>right</answer>", RIGHT]


def test_an_answer_longer_than_a_completion_may_be_is_not_kept(server: Server, tokenizer: Tokenizer, claim: Claim) -> None:
    server.replies = [(200, [message(RIGHT.replace("x", "blood pressure " * 400))])]
    found = gather(server, [example(1)], tokenizer, claim)
    assert (found.texts, found.judged["too_long"]) == ({}, 1)


def test_a_busy_teacher_is_asked_again(server: Server) -> None:
    server.replies = [(503, {}), (429, {}), (200, {"odd": 1}), (200, [message(RIGHT)])]
    assert asked(server).ask(example(1), Sampling(1, 16)) == [RIGHT]
    assert len(server.asked) == 4


def test_a_teacher_that_stays_away_ends_the_attempt_to_be_tried_again(server: Server) -> None:
    server.replies = [(503, {})]
    with pytest.raises(TeacherUnavailable, match=r"status 503, 6 times") as error:
        asked(server).ask(example(1), Sampling(1, 16))
    assert error.value.exit_code == 75


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "set EHRMIND_TEACHER_KEY"), (404, "no model 'big'"), (302, "expected an OpenAI-compatible server")],
)
def test_what_trying_again_does_not_mend_is_the_users(status: int, said: str, server: Server) -> None:
    server.replies = [(status, {})]
    with pytest.raises(SpecError, match=said):
        asked(server).ask(example(1), Sampling(1, 16))
    assert len(server.asked) == 1, "no redirect is followed with a record in the request"


def test_a_prompt_that_is_too_long_for_the_teacher_is_counted_and_the_others_go_on(server: Server, tokenizer: Tokenizer, claim: Claim) -> None:
    server.replies = [(400, {}), (200, [message(RIGHT)])]
    found = gather(server, [example(1), example(2)], tokenizer, claim)
    assert (len(found.texts), found.judged["refused"]) == (1, 1)


def test_a_teacher_that_refuses_every_prompt_stops_the_stage(server: Server, tokenizer: Tokenizer, claim: Claim) -> None:
    server.replies = [(400, {})]
    with pytest.raises(SpecError, match="model big refuses all of the first 2 prompts"):
        gather(server, [example(1), example(2)], tokenizer, claim)


def test_what_was_answered_before_a_kill_is_not_asked_again(server: Server, tokenizer: Tokenizer, claim: Claim) -> None:
    rows = [example(i) for i in range(teacher.CHUNK + 3)]
    server.replies = [(200, [message(RIGHT)])] * teacher.CHUNK + [(401, {})]
    with pytest.raises(SpecError):
        gather(server, rows, tokenizer, claim)
    server.replies, server.asked = [(200, [message(RIGHT)])], []
    assert len(gather(server, rows, tokenizer, claim).texts) == len(rows)
    again = {request["messages"][0]["content"] for request in server.asked}
    assert again <= {e.messages[0]["content"] for e in rows[teacher.CHUNK :]}, "nothing of the first chunk"


def test_the_key_is_sent_and_nothing_of_it_or_of_a_record_is_logged(
    server: Server, tokenizer: Tokenizer, claim: Claim, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher.gather(document(server), Scorer(), tokenizer, [example(1)], asked(server, "sk-secret"), claim)  # type: ignore[arg-type]
    assert server.keys == ["Bearer sk-secret"]
    out = "".join(capsys.readouterr())
    assert "traces" in out and "sk-secret" not in out and "creatinine" not in out


@pytest.mark.parametrize(
    ("url", "external", "address", "said"),
    [
        ("http://teacher.models.svc:8000/v1", False, "10.96.4.2", ""),
        ("http://localhost:8000/v1", False, "127.0.0.1", ""),
        ("http://[fd00::1]:8000/v1", False, "fd00::1", ""),
        ("https://api.example.com/v1", False, "93.184.216.34", "say sft.teacher.external=true if the records may go there"),
        ("https://api.example.com/v1", True, "93.184.216.34", ""),
        ("http://api.example.com/v1", True, "93.184.216.34", "in the clear; use https"),
        ("https://api.example.com/v1", False, "2606:4700::1111", "public address"),
    ],
)
def test_records_leave_for_a_public_address_only_by_consent_and_encrypted(url: str, external: bool, address: str, said: str) -> None:
    found = TeacherSpec(url=url, model="m", external=external)
    if not said:
        teacher.check_place(found, lambda host, port: [address])
        return
    with pytest.raises(SpecError, match=said):
        teacher.check_place(found, lambda host, port: ["10.0.0.1", address])


def test_a_host_that_is_not_known_now_may_be_later() -> None:
    with pytest.raises(TeacherUnavailable, match="not known here"):
        teacher.check_place(TeacherSpec(url="http://no-such-host.invalid/v1", model="m"))
