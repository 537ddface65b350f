"""Who we are for a gateway before KFP: a bearer token, or the session cookie of a browser. Both stay in their files and in headers."""

import base64
import json
import time
from dataclasses import dataclass
from pathlib import Path

from ehrmind_k8s.errors import SpecError

TOKEN, COOKIE = "EHRMIND_KFP_TOKEN_FILE", "EHRMIND_KFP_COOKIE_FILE"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The files of the settings. They are read for each request, so that a token that was rotated is taken."""

    token_file: Path | None = None
    cookie_file: Path | None = None

    def headers(self) -> dict[str, str]:
        """What goes with a request. Raises SpecError naming a file that cannot be read or holds something else."""
        headers = {}
        if self.token_file:
            headers["authorization"] = f"Bearer {_line(self.token_file, TOKEN)}"
        if self.cookie_file:
            cookie = _line(self.cookie_file, COOKIE).removeprefix("Cookie: ").removeprefix("cookie: ")
            if "=" not in cookie:
                raise SpecError(f"{COOKIE}={self.cookie_file}: expected one line NAME=VALUE, as a browser shows the session cookie of the gateway")
            headers["cookie"] = cookie
        return headers

    def advice(self) -> str:
        """What to do about credentials that were not accepted."""
        if self.token_file:
            return self._expired() or f"the token in {TOKEN}={self.token_file} is not one that it takes: who runs the gateway says which it does"
        if self.cookie_file:
            return f"the session of the cookie in {COOKIE}={self.cookie_file} has ended: log in again and put the new cookie there"
        return f"set {TOKEN} to a file with a bearer token that it takes, or {COOKIE} to one with the session cookie of your browser"

    def _expired(self) -> str:
        """A sentence about a token that says itself that its time is over, else ""."""
        assert self.token_file is not None
        ends = _ends(_line(self.token_file, TOKEN))
        if ends is None or ends > time.time():
            return ""
        ago, when = (time.time() - ends) / 60, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(ends))
        return f"the token in {TOKEN}={self.token_file} expired at {when}, {ago:.0f} min ago: put a new one there"


def _line(file: Path, setting: str) -> str:
    """The one line of a file. What is in there is in no message: a header with a line break would be, in the error of the HTTP library."""
    try:
        text = file.expanduser().read_text(encoding="ascii").strip()
    except UnicodeDecodeError:
        raise SpecError(f"{setting}={file}: holds something else than a line of ASCII text") from None
    except OSError as error:
        raise SpecError(f"{setting}={file}: {error.strerror}") from None
    if not text or not text.isprintable():
        raise SpecError(f"{setting}={file}: {'holds more than one line' if text else 'is empty'}")
    return text


def _ends(token: str) -> float | None:
    """When a JSON web token ends (Unix seconds); None where it says nothing, or is of another kind."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(claims["exp"])
    except (ValueError, KeyError, TypeError):
        return None
