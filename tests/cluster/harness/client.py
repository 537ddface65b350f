"""A cluster as a test sees it: kubectl, objects as plain dicts, waiting, a namespace of its own. The same for our cluster and for another one."""

import contextlib
import json
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.cluster.harness.s3 import S3Access
from tests.tools import build

Object = dict[str, Any]
Until = str | Callable[[Object], object]
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


class CommandFailed(Exception):
    """kubectl (or helm) ended with an error; `stderr` is what it said."""

    def __init__(self, command: str, stdout: str, stderr: str) -> None:
        super().__init__(f"{command} failed:\n{stdout[-2000:]}{stderr[-4000:]}")
        self.stdout, self.stderr = stdout, stderr


class Cluster:
    """Any cluster that `kubeconfig` leads to. `folder` is for files of this session."""

    def __init__(self, kubeconfig: Path, folder: Path, s3: S3Access | None) -> None:
        self.kubeconfig, self.folder, self.s3 = kubeconfig, folder, s3

    def kubectl(self, *arguments: str | Path, namespace: str = "", given: str = "", kubeconfig: Path | None = None, timeout_s: float = 120) -> str:
        """What kubectl prints; `given` is its standard input. Raises CommandFailed."""
        return self._run([*self._kubectl(kubeconfig, namespace), *map(str, arguments)], given, timeout_s)

    def helm(self, *arguments: str | Path, namespace: str = "", given: str = "", timeout_s: float = 300) -> str:
        """What helm prints. Its own files stay in the session's folder. Raises CommandFailed."""
        scope = ["--namespace", namespace] if namespace else []
        command = [str(build.path("helm")), "--kubeconfig", str(self.kubeconfig), *scope, *map(str, arguments)]
        return self._run(command, given, timeout_s, {f"HELM_{name}_HOME": str(self.folder / "helm" / name) for name in ("CACHE", "CONFIG", "DATA")})

    def get(self, kind: str, name: str = "", *, namespace: str = "", selector: str = "") -> Object:
        """One object, or a List when no name is given. Raises CommandFailed when it is not there."""
        return dict(json.loads(self.kubectl("get", kind, *filter(None, [name]), *_selector(selector), "--output=json", namespace=namespace)))

    def items(self, kind: str, *, namespace: str = "", selector: str = "") -> list[Object]:
        return list(self.get(kind, namespace=namespace, selector=selector)["items"])

    def exists(self, kind: str, name: str, *, namespace: str = "") -> bool:
        return bool(self.kubectl("get", kind, name, "--ignore-not-found", "--output=name", namespace=namespace))

    def apply(self, *objects: Object, namespace: str = "") -> None:
        """Server-side apply, as one field manager. Raises CommandFailed with the API server's refusal."""
        given = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "--server-side", "--field-manager=tests", "--filename=-", namespace=namespace, given=given)

    def delete(self, kind: str, name: str, *, namespace: str = "", now: bool = False) -> None:
        """Ask for the deletion. `now`: without a grace period, whether or not a kubelet confirms it."""
        how = ["--grace-period=0", "--force"] if now else []
        self.kubectl("delete", kind, name, "--ignore-not-found", "--wait=false", *how, namespace=namespace)

    def wait(self, kind: str, name: str, until: Until, *, namespace: str = "", timeout_s: float = 120) -> Object:
        """The object once `until` holds: a function of it, or the type of a condition that is to be True. It need not exist yet.

        Raises:
            AssertionError: after `timeout_s`, with the last state of the object and the namespace's events.
        """
        holds = _has_condition(until) if isinstance(until, str) else until
        deadline = time.monotonic() + timeout_s
        last: Object | None = None
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(CommandFailed):  # the API server may be away, or not know the kind yet
                for last in self.watch(kind, name, namespace=namespace, timeout_s=left):
                    if holds(last):
                        return last
            time.sleep(0.2)
        wanted = until if isinstance(until, str) else "as expected"
        state = json.dumps(last.get("status", {}), indent=1) if last else "not there"
        raise AssertionError(f"{kind}/{name} is not {wanted} after {timeout_s:.0f} s: {state}\n{self.story(namespace)}")

    def wait_gone(self, kind: str, name: str, *, namespace: str = "", timeout_s: float = 120) -> None:
        self.kubectl("wait", f"{kind}/{name}", "--for=delete", f"--timeout={timeout_s:.0f}s", namespace=namespace, timeout_s=timeout_s + 10)

    def watch(self, kind: str, name: str = "", *, namespace: str = "", timeout_s: float = 60) -> Iterator[Object]:
        """Each state of an object (or of all of a kind) that the API server shows, from now on until `timeout_s` have passed."""
        which = [f"--field-selector=metadata.name={name}"] if name else []
        command = [*self._kubectl(None, namespace), "get", kind, *which, "--watch", "--output=json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout and process.stderr
            timer = threading.Timer(timeout_s, process.kill)
            timer.start()
            try:
                lines: list[str] = []
                for line in process.stdout:
                    lines.append(line)
                    if line == "}\n":
                        yield json.loads("".join(lines))
                        lines = []
                if (said := process.stderr.read()) and not timer.finished.is_set():
                    raise CommandFailed(" ".join(command), "", said)
            finally:
                timer.cancel()
                process.kill()

    @contextlib.contextmanager
    def namespace(self, labels: Mapping[str, str] = RESTRICTED) -> Iterator[str]:
        """A new namespace that takes pods (its ServiceAccount is there), by default only restricted ones. It is deleted in the background."""
        name = f"t-{uuid.uuid4().hex[:8]}"
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}})
        try:
            self.wait("serviceaccount", "default", lambda _: True, namespace=name)
            yield name
        finally:
            self.delete("namespace", name)

    def kubeconfig_of(self, service_account: str, *, namespace: str) -> Path:
        """A kubeconfig with the rights of a ServiceAccount."""
        config = json.loads(self.kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
        config["users"][0]["user"] = {"token": self.kubectl("create", "token", service_account, namespace=namespace)}
        path = self.folder / f"{namespace}-{service_account}.kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def story(self, namespace: str) -> str:
        """What happened in a namespace: pods, events, last lines of all containers. For a failed test."""
        if not namespace:
            return ""
        parts = []
        for title, arguments in (
            ("pods", ("get", "pods", "--output=wide")),
            ("events", ("get", "events", "--sort-by=.lastTimestamp", "--no-headers")),
        ):
            with contextlib.suppress(CommandFailed):
                parts.append(f"-- {title}\n{self.kubectl(*arguments, namespace=namespace)[-6000:]}")
        with contextlib.suppress(CommandFailed):
            for pod in self.items("pods", namespace=namespace)[:12]:
                name = pod["metadata"]["name"]
                with contextlib.suppress(CommandFailed):
                    parts.append(f"-- log of {name}\n{self.kubectl('logs', name, '--all-containers', '--tail=30', namespace=namespace)[-4000:]}")
        return "\n".join(parts)

    def _kubectl(self, kubeconfig: Path | None, namespace: str) -> list[str]:
        scope = ["--namespace", namespace] if namespace else []
        cache = self.folder / "kubectl"  # the user's own may still know another cluster at the same address
        return [str(build.path("kubectl")), f"--kubeconfig={kubeconfig or self.kubeconfig}", f"--cache-dir={cache}", *scope]

    def _run(self, command: list[str], given: str, timeout_s: float, environment: Mapping[str, str] | None = None) -> str:
        env = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), **(environment or {})}
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=timeout_s, env=env)
        if done.returncode:
            raise CommandFailed(" ".join(command[:1] + command[2:]), done.stdout, done.stderr)
        return done.stdout


def _has_condition(kind: str) -> Callable[[Object], bool]:
    return lambda o: any(c["type"] == kind and c["status"] == "True" for c in o.get("status", {}).get("conditions", ()))


def _selector(text: str) -> list[str]:
    return [f"--selector={text}"] if text else []
