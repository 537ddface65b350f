"""The rollout servers of a local run: separate processes, restarted when they die, stopped when nobody wants them any more."""

import asyncio
import contextlib
import http.client
import shutil
import socket
import time
from collections.abc import Callable, Mapping

from ehrmind_k8s.backends.local.process import Leashed
from ehrmind_k8s.backends.local.state import State

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
STEADY_S = 120.0  # a server that lived this long is not in a crash loop: its next pause is short again
POLL_S = 1.0


class Servers:
    """N servers on ports of this machine. `say` gets a line when something happens to one, `changed` is called when the counts change."""

    def __init__(
        self, count: int, run_uri: str, env: Mapping[str, str], state: State, say: Callable[[str], None], changed: Callable[[], None]
    ) -> None:
        self.run_uri, self.env, self.state, self.say, self.changed = run_uri, env, state, say, changed
        self.ports = _free_ports(state.ports(), count)
        self.ready = [False] * count
        self.restarts = 0
        self.tasks: list[asyncio.Task[None]] = []
        state.keep_ports(self.ports)

    @property
    def urls(self) -> str:
        """What a stage gets as EHRMIND_ROLLOUT_URLS."""
        return ",".join(f"http://127.0.0.1:{port}" for port in self.ports)

    def start(self) -> None:
        """Start all, in the background. Nothing happens when they run already."""
        if not self.tasks:
            self.tasks = [asyncio.create_task(self._keep(i)) for i in range(len(self.ports))]

    async def stop(self) -> None:
        """Stop all, wait until their processes are gone, and delete the weights they had fetched."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        shutil.rmtree(self.state.folder / "rollout", ignore_errors=True)
        self.tasks, self.ready = [], [False] * len(self.ports)

    async def _keep(self, index: int) -> None:
        pause = FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            code = await self._serve(index)
            pause = FIRST_PAUSE_S if time.monotonic() - began > STEADY_S else pause
            self.restarts += 1
            self.say(f"rollout server {index} ended with code {code}; starting it again in {pause:.0f} s (log: {self.state.log(f'rollout-{index}')})")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _serve(self, index: int) -> int:
        """Run one server until it dies; returns its exit code."""
        if not _is_free(self.ports[index]):
            self.ports[index] = _free_ports([], 1)[0]  # the next attempt of the stage gets the new URL
            self.state.keep_ports(self.ports)
        argv = ["-m", "ehrmind_k8s.rollout.server", "--run", self.run_uri, "--port", str(self.ports[index]), "--index", str(index)]
        env = {**self.env, "EHRMIND_STATE_DIR": str(self.state.folder)}  # weights it fetches go away with the run's state
        server = await Leashed.start(argv, env, self.state.log(f"rollout-{index}"), self.state.folder, read=False)
        self.state.add_session(server.process.pid)
        watch = asyncio.create_task(self._watch(index))
        try:
            return await server.wait()
        except asyncio.CancelledError:
            await server.stop()
            raise
        finally:
            watch.cancel()
            self._set(index, ready=False)

    async def _watch(self, index: int) -> None:
        while True:
            self._set(index, ready=await asyncio.to_thread(_answers, self.ports[index]))
            await asyncio.sleep(POLL_S)

    def _set(self, index: int, *, ready: bool) -> None:
        if ready != self.ready[index]:
            self.ready[index] = ready
            self.changed()


def _answers(port: int) -> bool:
    """Whether the server says it is healthy. `http.client` rather than a library: nothing here should cost a submit half a second of imports."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def _free_ports(wanted: list[int], count: int) -> list[int]:
    """`count` free ports, of `wanted` where those are still free."""
    kept = [p for p in wanted[:count] if _is_free(p)]
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count - len(kept))]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return kept + [probe.getsockname()[1] for probe in probes]
