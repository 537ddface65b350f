"""The published rules that rendered objects are held to, in our own words: Pod Security `restricted`, labels, names.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ (baseline and restricted, Kubernetes 1.34)
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

Object = Mapping[str, Any]

VOLUMES = ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret")
SYSCTLS = ("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_syncookies")
SECCOMP = ("RuntimeDefault", "Localhost")
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def templates(node: Any) -> Iterator[Object]:
    """Every pod template inside an object, wherever it is."""
    if isinstance(node, Mapping):
        if isinstance(node.get("spec"), Mapping) and "containers" in node["spec"]:
            yield node
        for value in node.values():
            yield from templates(value)
    elif isinstance(node, list):
        for value in node:
            yield from templates(value)


def violations(template: Object) -> list[str]:
    """Rules of `restricted` that a pod breaks."""
    pod = template["spec"]
    own = pod.get("securityContext") or {}
    found = [f"{key} is true" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    found += [f"volume {v['name']}" for v in pod.get("volumes", ()) if len(v) != 2 or not set(v) - {"name"} <= set(VOLUMES)]
    found += [f"sysctl {s['name']}" for s in own.get("sysctls", ()) if s["name"] not in SYSCTLS]
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in pod.get(kind, ()):
            found += [f"{container['name']}: {text}" for text in _container(container, own)]
    return found


def _container(container: Object, pod: Object) -> Iterator[str]:
    context = container.get("securityContext") or {}
    effective = {**pod, **context}
    capabilities = context.get("capabilities") or {}
    if context.get("privileged") or (context.get("windowsOptions") or {}).get("hostProcess"):
        yield "privileged"
    if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "capabilities"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if effective.get("runAsNonRoot") is not True or effective.get("runAsUser") == 0:
        yield "may run as root"
    if (effective.get("seccompProfile") or {}).get("type") not in SECCOMP:
        yield "seccomp"
    if effective.get("seLinuxOptions") or context.get("procMount", "Default") != "Default":
        yield "SELinux or procMount"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield "hostPort"
    handlers = [container.get(p) or {} for p in PROBES] + list((container.get("lifecycle") or {}).values())
    if any((h.get(how) or {}).get("host") for h in handlers for how in ("httpGet", "tcpSocket")):
        yield "host of a probe"


def bad_labels(labels: Mapping[str, str]) -> list[str]:
    """Labels whose key or value no API server takes."""
    return [key for key, value in labels.items() if not _is_key(key) or (value and not LABEL_NAME.fullmatch(value))]


def _is_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    return bool(LABEL_NAME.fullmatch(name)) and (not slash or (len(prefix) <= 253 and bool(PREFIX.fullmatch(prefix))))
