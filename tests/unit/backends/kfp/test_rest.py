"""What each refusal of KFP, of a gateway before it, and of the way there is for the person who typed a command."""

import base64
import json
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from ehrmind_k8s.backends.kfp import rest, transport
from ehrmind_k8s.backends.kfp.credentials import Credentials
from ehrmind_k8s.backends.kfp.rest import Api, Conflict, Missing
from ehrmind_k8s.backends.kfp.transport import Direct, Unavailable
from ehrmind_k8s.errors import SpecError
from tests.conftest import needs_program
from tests.unit.backends.kfp.kfp_server import LOGIN, Kfp, cut, says, serving, slow

TOKEN = "very-secret-token"


def token(ends_in_s: float) -> str:
    """A JSON web token that says when it ends."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + ends_in_s}).encode()).decode().rstrip("=")
    return f"e30.{claims}.c2ln"


@pytest.fixture
def api(kfp: Kfp) -> Api:
    return Api(Direct(kfp.address, Credentials()))


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


def test_a_token_is_read_anew_for_each_request(kfp: Kfp, token_file: Path) -> None:
    kfp.token = TOKEN
    api = Api(Direct(kfp.address, Credentials(token_file)))
    assert api.experiment("ehrmind") is None
    kfp.token = "another"
    token_file.write_text("another")
    assert api.experiment("ehrmind") is None


def test_without_credentials_401_names_both_settings(kfp: Kfp, api: Api) -> None:
    kfp.token = TOKEN
    with pytest.raises(SpecError, match=r"does not accept who we are \(401\).*set EHRMIND_KFP_TOKEN_FILE.*or EHRMIND_KFP_COOKIE_FILE"):
        api.experiment("ehrmind")


def test_an_expired_token_is_named_as_that(kfp: Kfp, token_file: Path) -> None:
    kfp.token = TOKEN
    token_file.write_text(text := token(-3600))
    with pytest.raises(SpecError, match=rf"the token in EHRMIND_KFP_TOKEN_FILE={token_file} expired at .* UTC, 60 min ago") as caught:
        Api(Direct(kfp.address, Credentials(token_file))).experiment("ehrmind")
    assert text not in str(caught.value)


@pytest.mark.parametrize("text", ["opaque", "a.b.c", "valid"])
def test_a_token_that_has_not_expired_is_one_that_the_gateway_does_not_take(kfp: Kfp, token_file: Path, text: str) -> None:
    text = token(3600) if text == "valid" else text
    kfp.token = TOKEN
    token_file.write_text(text)
    with pytest.raises(SpecError, match="is not one that it takes") as caught:
        Api(Direct(kfp.address, Credentials(token_file))).experiment("ehrmind")
    assert text not in str(caught.value)


def test_a_cookie_is_sent_and_a_session_that_ended_is_named(kfp: Kfp, tmp_path: Path) -> None:
    path = tmp_path / "cookie"
    path.write_text("Cookie: oauth2_proxy=secret-session\n")
    api = Api(Direct(kfp.address, Credentials(None, path)))
    api.experiment("ehrmind")
    assert kfp.calls[-1].headers["cookie"] == "oauth2_proxy=secret-session"
    kfp.fail(says(302, "", location="/dex/auth?client_id=kubeflow"))
    with pytest.raises(SpecError, match=rf"the session of the cookie in EHRMIND_KFP_COOKIE_FILE={path} has ended") as caught:
        api.experiment("ehrmind")
    assert "secret-session" not in str(caught.value)


@pytest.mark.parametrize("fault", [says(200, LOGIN), says(302, "", location="https://dex.example/auth"), says(303, LOGIN, location="/login")])
def test_a_login_page_is_not_mistaken_for_an_answer(kfp: Kfp, api: Api, fault) -> None:
    kfp.fail(fault)
    with pytest.raises(SpecError, match=r"answers with a login page: set EHRMIND_KFP_TOKEN_FILE.*behind Kubeflow's dashboard that ends in /pipeline"):
        api.experiment("ehrmind")
    assert len(kfp.calls) == 1  # no redirect is followed: the token has no business there


def test_a_redirect_to_https_says_the_address_to_set(kfp: Kfp, api: Api) -> None:
    kfp.fail(says(301, "", location=kfp.address.replace("http", "https") + "/apis/v2beta1/experiments"))
    with pytest.raises(SpecError, match=r"https:// only: EHRMIND_KFP_HOST=https://127\.0\.0\.1"):
        api.experiment("ehrmind")


def test_403_names_the_namespace(kfp: Kfp, api: Api) -> None:
    kfp.multi_user = True
    with pytest.raises(
        SpecError, match=r"does not allow this \(403\) \(Failed to authorize.*namespace forbidden is not yours to use, or does not exist"
    ):
        Api(api.transport, "forbidden").experiment("ehrmind")
    kfp.fail(says(403, "RBAC: access denied"))
    with pytest.raises(SpecError, match=r"--namespace names yours.*or set EHRMIND_KFP_TOKEN_FILE"):
        api.experiment("ehrmind")


def test_a_kfp_with_users_asks_for_a_namespace(kfp: Kfp, api: Api) -> None:
    kfp.multi_user = True
    with pytest.raises(SpecError, match=r"has users of its own \(.*\): --namespace names yours"):
        api.experiment("ehrmind")


def test_404_of_an_object_is_not_404_of_the_api(kfp: Kfp, api: Api) -> None:
    with pytest.raises(Missing, match="Run nobody not found"):
        api.run("nobody")
    for fault in (says(404, {"code": 5, "message": "Not Found", "details": []}), says(404, "<html>404</html>"), says(404, "404 page not found")):
        kfp.fail(fault)
        with pytest.raises(SpecError, match=rf"this is no KFP API \(v2beta1\) at {kfp.address} \(404\)") as caught:
            api.run("nobody")
        assert not isinstance(caught.value, Missing)


def test_an_answer_of_something_else_is_no_kfp_api(kfp: Kfp, api: Api) -> None:
    kfp.fail(says(200, "pong"), where="GET /apis/v2beta1/runs")
    kfp.faults[0].act = lambda handler: plain(handler, b"pong")
    with pytest.raises(SpecError, match="this is no KFP API"):
        api.run("x")


def plain(handler, text: bytes) -> bool:
    handler.send_response(200)
    handler.send_header("content-type", "text/plain")
    handler.send_header("content-length", str(len(text)))
    handler.end_headers()
    handler.wfile.write(text)
    return False


def test_400_shows_the_servers_message_without_the_values_that_were_sent(kfp: Kfp, api: Api) -> None:
    values = {"b_data_uri": "s3://ward-7/patient-0815", "h_overrides": {"data": {"train": ["Smith.csv"], "test_fraction": 0.25}}}
    said = "parameter b_data_uri is s3://ward-7/patient-0815 and Smith.csv 0.25 of h_overrides"
    kfp.fail(says(400, {"code": 3, "message": said}))
    with pytest.raises(SpecError) as caught:
        api.create_run({"display_name": "demo", "runtime_config": {"parameters": values}})
    assert str(caught.value) == f"{kfp.address} refuses the request (400): parameter b_data_uri is … and … … of h_overrides"


def test_409_is_a_conflict(kfp: Kfp, api: Api) -> None:
    api.create_experiment("ehrmind")
    with pytest.raises(Conflict, match="Already exist"):
        api.create_experiment("ehrmind")


@pytest.mark.parametrize("fault", [says(500, {"code": 13, "message": "boom"}), says(503, "<html>no healthy upstream</html>"), says(429), cut])
def test_what_passes_is_tried_again_where_doing_it_twice_is_harmless(kfp: Kfp, api: Api, fault) -> None:
    kfp.fail(fault, times=3)
    assert api.experiment("ehrmind") is None
    assert len(kfp.calls) == 4


@pytest.mark.parametrize("fault", [says(500, {"code": 13, "message": "boom"}), cut])
def test_what_does_not_pass_ends_with_try_again(kfp: Kfp, api: Api, fault) -> None:
    kfp.fail(fault, times=9)
    with pytest.raises(Unavailable):
        api.experiment("ehrmind")
    assert len(kfp.calls) == 4


@pytest.mark.parametrize("fault", [says(502), cut])
def test_a_run_is_never_started_twice_by_us(kfp: Kfp, api: Api, fault) -> None:
    kfp.fail(fault)
    with pytest.raises(Unavailable, match="whether it was done is not known, and the same command finds out"):
        api.create_run({"display_name": "demo"})
    assert len(kfp.calls) == 1


def test_a_server_that_is_silent_is_not_waited_for_for_ever(kfp: Kfp, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    kfp.fail(slow(1), times=4)
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"no answer from KFP at http://127.*\(ReadTimeoutError\)"):
        api.call("GET", "/experiments", timeout_s=0.05)
    assert time.monotonic() - began < 3


def test_nobody_at_the_address_is_try_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Unavailable, match=r"\(NewConnectionError\); EHRMIND_KFP_HOST says where it is"):
        Direct(f"http://127.0.0.1:{port}", Credentials()).send("GET", "/", {}, None, "", 1.0)


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        ("kubeflow.example", "expected an address such as"),
        ("ml-pipeline:8888", "expected an address such as"),
        ("https://me:hunter2@kubeflow.example", "a password has no place in an address"),
        ("https://kubeflow.example/_/pipeline/?ns=a#/runs", "that is a page"),
    ],
)
def test_what_is_no_address_is_refused(host: str, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence) as caught:
        transport.address(host)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("host", ["http://h:8888", "http://h:8888/", "http://h:8888/apis/v2beta1"])
def test_an_address_is_taken_with_or_without_its_end(host: str) -> None:
    assert transport.address(host) == "http://h:8888"


def test_a_proxy_of_the_environment_is_honoured_and_no_proxy_too(kfp: Kfp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", kfp.address)
    assert Api(Direct("http://kfp.example", Credentials())).experiment("ehrmind") is None
    assert kfp.calls[-1].headers["host"] == "kfp.example"  # the stand-in was asked for another's page, as a proxy is
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert Api(Direct(kfp.address, Credentials())).experiment("ehrmind") is None


def test_a_certificate_is_verified_and_its_authority_may_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    openssl = needs_program("openssl", "apt-get install openssl")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    name = ["-subj", "/CN=kfp", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *name, "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with serving(Kfp(), tls) as kfp:
        with pytest.raises(SpecError, match=rf"no trusted TLS connection to {kfp.address} \(self-signed certificate\); SSL_CERT_FILE names"):
            Api(Direct(kfp.address, Credentials())).experiment("ehrmind")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert Api(Direct(kfp.address, Credentials())).experiment("ehrmind") is None


def test_the_authority_of_the_environment_is_trusted_or_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(SpecError, match=r"SSL_CERT_FILE=.*none.pem: No such file"):
        Direct("https://kfp.example", Credentials())
    (tmp_path / "text.pem").write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "text.pem"))
    with pytest.raises(SpecError, match=r"SSL_CERT_FILE=.*text.pem"):
        Direct("https://kfp.example", Credentials())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("", "is empty"), ("a\nb", "holds more than one line"), ("tokén", "holds something else than a line of ASCII"), (None, "No such file")],
)
def test_a_file_that_holds_no_token_is_named_and_not_shown(kfp: Kfp, tmp_path: Path, text: str | None, sentence: str) -> None:
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=rf"EHRMIND_KFP_TOKEN_FILE={path}: {sentence}"):
        Api(Direct(kfp.address, Credentials(path))).experiment("ehrmind")


def test_a_cookie_file_that_holds_no_cookie_is_named(kfp: Kfp, tmp_path: Path) -> None:
    path = tmp_path / "cookie"
    path.write_text("MTcz-only-a-value")
    with pytest.raises(SpecError, match="expected one line NAME=VALUE") as caught:
        Api(Direct(kfp.address, Credentials(None, path))).experiment("ehrmind")
    assert "MTcz" not in str(caught.value)


def test_lists_are_read_page_by_page(kfp: Kfp, api: Api) -> None:
    kfp.page_limit = 2
    for name in "abcde":
        api.create_experiment(name)
    assert [e["display_name"] for e in api.experiments()] == list("abcde")


def test_what_the_api_does_not_have_is_refused_by_the_stand_in(kfp: Kfp, api: Api) -> None:
    for body in ({"display_nam": "x"}, {"display_name": 1}):
        with pytest.raises(SpecError, match=r"refuses the request \(400\)"):
            api.call("POST", "/experiments", body=body)
    with pytest.raises(SpecError, match="no such query parameter"):
        api.call("GET", "/runs", query={"experiment": "x"})


def test_an_error_is_one_line_of_bounded_length() -> None:
    assert len(rest._without({}, "a\n" * 5000)) <= rest.LONGEST
