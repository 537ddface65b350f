"""How bytes get to the KFP API and back: to an address, or to its service through the API server of a kubeconfig. Knows nothing of KFP's objects."""

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from ehrmind_k8s import kubeapi
from ehrmind_k8s.backends.kfp.credentials import Credentials
from ehrmind_k8s.errors import SpecError, TryAgain
from ehrmind_k8s.kubeapi.errors import from_status

HOST = "EHRMIND_KFP_HOST"
SERVICE, PORT = "ml-pipeline", 8888  # KFP's API server in its own namespace
CONNECT_S = 5.0
CA_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
FORWARD = "kubectl -n {namespace} port-forward svc/ml-pipeline-ui 8080:80"


class Unavailable(TryAgain):
    """KFP cannot be reached, or says that it cannot answer now."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever its status."""

    status: int
    body: bytes
    content_type: str = ""
    location: str = ""


class Transport(Protocol):
    """A way to one KFP API."""

    @property
    def host(self) -> str:
        """What names it in a message."""

    @property
    def ui(self) -> str:
        """Address of its pages."""

    @property
    def ui_hint(self) -> str:
        """What to do to reach them, "" where the address is enough."""

    def send(self, method: str, path: str, query: Mapping[str, str], body: bytes | None, content_type: str, timeout_s: float) -> Answer:
        """One call. Raises Unavailable without an answer, and SpecError where there is no way to KFP at all."""

    def advice(self) -> str:
        """What to do when KFP, or a gateway before it, does not accept who we are."""


class Direct:
    """An address: a gateway, or the API server itself."""

    def __init__(self, host: str, credentials: Credentials) -> None:
        self.host = self.ui = address(host)
        self.ui_hint = ""
        self._credentials = credentials
        self._pool = _pool(self.host)

    def send(self, method: str, path: str, query: Mapping[str, str], body: bytes | None, content_type: str, timeout_s: float) -> Answer:
        """One call. A redirect is not followed: it leads to a login page, and our token has no business there."""
        headers = {"accept": "application/json", "user-agent": "ehrmind", **self._credentials.headers()}
        if body is not None:
            headers["content-type"] = content_type
        try:
            response = self._pool.request(
                method,
                self.host + path + ("?" + urlencode(query) if query else ""),
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_S, read=timeout_s),
                retries=False,
                redirect=False,
            )
        except urllib3.exceptions.SSLError as error:
            raise SpecError(f"no trusted TLS connection to {self.host} ({_reason(error)}); {CA_FILES[0]} names the authority to trust") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"no answer from KFP at {self.host} ({type(error).__name__}); {HOST} says where it is") from None
        found = response.headers
        return Answer(response.status, response.data, found.get("content-type") or "", found.get("location") or "")

    def advice(self) -> str:
        """Whose credentials are looked at is the gateway's."""
        return self._credentials.advice()


class Proxied:
    """The service of a KFP without users of its own, through the API server, which lets pass who may `services/proxy` there."""

    def __init__(self, client: kubeapi.Client, namespace: str) -> None:
        self.host = f"service {SERVICE} in namespace {namespace} of {client.host}"
        self.ui, self.ui_hint = "http://localhost:8080", FORWARD.format(namespace=namespace)
        self._client, self._namespace = client, namespace
        self._root = f"/api/v1/namespaces/{namespace}/services/{SERVICE}:{PORT}/proxy"

    def send(self, method: str, path: str, query: Mapping[str, str], body: bytes | None, content_type: str, timeout_s: float) -> Answer:
        """One call. What the API server says itself is told from what KFP says by its form."""
        try:
            response = self._client.send("proxy", method, self._root + path, query, body, content_type, timeout_s)
            answer = Answer(response.status, response.data, response.headers.get("content-type") or "", response.headers.get("location") or "")
        except kubeapi.Unavailable as error:
            raise Unavailable(str(error)) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"no answer from KFP, {self.host} ({type(error).__name__})") from None
        if answer.status >= 400 and (status := _status(answer.body)) is not None:
            raise self._refused(from_status(status, answer.status))
        return answer

    def advice(self) -> str:
        """The API server keeps our credentials to itself, so KFP sees nobody."""
        return f"this KFP has users of its own, and through the API server it sees none: set {HOST} to its gateway"

    def _refused(self, error: kubeapi.ApiError) -> Exception:
        """An answer of the API server itself, in words about KFP."""
        if error.status == 401:
            return SpecError(f"the API server {self._client.host} does not accept these credentials: log in again, or give another --context")
        if isinstance(error, kubeapi.Refused):
            return SpecError(f"{error.message}; who administers the cluster grants get and create on services/proxy, or set {HOST} to KFP's gateway")
        if isinstance(error, kubeapi.NotFound):
            return SpecError(f"there is no {self.host}; EHRMIND_KFP_SERVICE_NAMESPACE names KFP's namespace, or {HOST} its address")
        return Unavailable(f"{self.host}: {error.message}")


def address(host: str) -> str:
    """The address of KFP as it was set, without a slash at its end. Raises SpecError for anything that is none."""
    parts = urlsplit(host)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SpecError(f"{HOST}: expected an address such as https://kubeflow.example/pipeline, found none that begins with http:// or https://")
    if parts.username or parts.password:
        raise SpecError(f"{HOST}: a password has no place in an address; {Credentials().advice()}")
    if parts.query or parts.fragment:
        raise SpecError(f"{HOST}={host}: that is a page; expected the address before the pages, such as https://kubeflow.example/pipeline")
    return host.rstrip("/").removesuffix("/apis/v2beta1")


def _pool(host: str) -> urllib3.PoolManager:
    """Connections to `host`, through the proxy that the environment names for it, if any."""
    parts = urlsplit(host)
    tls = _tls() if parts.scheme == "https" else None
    proxies = getproxies()
    proxy = None if proxy_bypass(parts.netloc) else proxies.get(parts.scheme) or proxies.get("all")
    if not proxy:
        return urllib3.PoolManager(ssl_context=tls)
    user = urlsplit(proxy)
    headers = urllib3.make_headers(proxy_basic_auth=f"{unquote(user.username)}:{unquote(user.password or '')}") if user.username else None
    try:
        return urllib3.ProxyManager(proxy, proxy_headers=headers, ssl_context=tls)
    except (urllib3.exceptions.HTTPError, ValueError):
        raise SpecError(
            f"the proxy for {parts.scheme} in this environment is no http:// or https:// address; NO_PROXY={parts.hostname} does without"
        ) from None


def _tls() -> ssl.SSLContext:
    """What is trusted: the authority that the environment names, else those of the system. Always verified."""
    for name in CA_FILES:
        if file := os.environ.get(name):
            try:
                return ssl.create_default_context(cafile=file)
            except OSError as error:  # a file that is not there, or no PEM
                raise SpecError(f"{name}={file}: {error.strerror or 'holds no certificate'}") from None
    return ssl.create_default_context()


def _reason(error: Exception) -> str:
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "verify_message", "") or type(inner).__name__)


def _status(body: bytes) -> dict[str, object] | None:
    """A Status object of the Kubernetes API; None for anything that came from further behind."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("kind") == "Status" else None
