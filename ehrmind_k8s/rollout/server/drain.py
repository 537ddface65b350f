"""A server that was told to end refuses new work at once.

vLLM lets the requests in flight finish, which is right, but goes on accepting others: those answer `abort`, and after the engine has gone
they hang until the client gives up, and the server waits for them to end. Seen with vLLM 0.32.
"""

from collections.abc import Callable
from typing import Any


class Drain:
    """ASGI middleware (vLLM: --middleware): 503 on every route once `begin_with` has seen the shutdown begin."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, or answer 503."""
        if scope["type"] != "http" or not getattr(scope["app"].state, "draining", False):
            await self.app(scope, receive, send)
            return
        body = b'{"error": "Draining"}'
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def begin_with(shutdown: Callable[..., None], state: Any) -> Callable[..., None]:
    """`shutdown` of the engine client, which is what vLLM calls first on SIGTERM, marking the app's `state` before it starts."""

    def marked(*args: Any, **kwargs: Any) -> None:
        state.draining = True
        shutdown(*args, **kwargs)

    return marked
