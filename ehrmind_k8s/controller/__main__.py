"""`python -m ehrmind_k8s.controller`: the operator. In a cluster the chart starts it; outside, any kubeconfig will do."""

import os
import signal
import sys
import threading
from pathlib import Path

import click

from ehrmind_k8s import __version__, kubeapi, logs
from ehrmind_k8s.errors import EhrmindError

ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120, "show_default": True})
@click.version_option(__version__, prog_name="ehrmind-operator")
@click.option("--namespaces", envvar="EHRMIND_WATCH_NAMESPACES", default="", help="Namespaces to take care of, comma separated; empty: all.")
@click.option("--operator-namespace", envvar="EHRMIND_OPERATOR_NAMESPACE", help="Namespace of Lease and profiles. Default: the pod's or context's.")
@click.option("--profiles", envvar="EHRMIND_PROFILES", default="ehrmind-profiles", help="ConfigMap with the profiles, in the operator's namespace.")
@click.option("--port", envvar="EHRMIND_OPERATOR_PORT", type=click.IntRange(0, 65535), default=8080, help="Probes and metrics; 0: any free port.")
@click.option("--workers", envvar="EHRMIND_OPERATOR_WORKERS", type=click.IntRange(1, 64), default=4, help="Runs worked on at the same time.")
@click.option(
    "--writes-per-second", envvar="EHRMIND_WRITES_PER_SECOND", type=click.FloatRange(0.1), default=20.0, help="For status, and for the rest."
)
@click.option("--burst", envvar="EHRMIND_WRITES_BURST", type=click.IntRange(1), default=40, help="Writes at once.")
@click.option("--kubeconfig", type=click.Path(dir_okay=False), help="As kubectl has it.")
@click.option("--context", help="As kubectl has it.")
def main(
    namespaces: str,
    operator_namespace: str | None,
    profiles: str,
    port: int,
    workers: int,
    writes_per_second: float,
    burst: int,
    kubeconfig: str | None,
    context: str | None,
) -> None:
    """Carry every EHRMindRun of a cluster to its end.

    Watches runs and what belongs to them, starts their stages as Jobs, PyTorchJobs or TrainJobs, keeps their rollout servers, and writes
    what is going on into their status. Several operators may run: one leads by a Lease, the others are ready to go on within 20 s.
    It reads no Secret and holds no key of the object store.

    \b
    It needs the CRD (manifests/crd), the profiles and rights on both; the chart brings all of them:
        helm install ehrmind helm/ehrmind
    Outside of a cluster, against the one that kubectl points to:
        python -m ehrmind_k8s.controller --operator-namespace ehrmind --port 0
    Look at it:
        GET :8080/readyz   200 when everything is watched; else the kinds that are missing
        GET :8080/livez    200 while watches and workers move
        GET :8080/metrics  Prometheus
    """
    try:
        _run(kubeconfig, context, operator_namespace, namespaces, profiles, port, workers, writes_per_second, burst)
    except EhrmindError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def _run(
    kubeconfig: str | None,
    context: str | None,
    operator_namespace: str | None,
    namespaces: str,
    profiles: str,
    port: int,
    workers: int,
    writes_per_s: float,
    burst: int,
) -> None:
    from ehrmind_k8s.controller.operator import Operator, Options, serve
    from ehrmind_k8s.controller.reconcile import reconcile
    from ehrmind_k8s.controller.runtime.client import Client

    client = kubeapi.connect(kubeconfig, context, make=Client, agent=f"ehrmind-operator/{__version__}")
    own = operator_namespace or (ACCOUNT_NAMESPACE.read_text(encoding="utf-8").strip() if ACCOUNT_NAMESPACE.exists() else client.namespace)
    watched = tuple(n for n in (part.strip() for part in namespaces.split(",")) if n)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    operator = Operator(client, Options(own, watched, profiles, port, workers, writes_per_s, burst), reconcile)
    logs.event(
        "operator", version=__version__, identity=operator.identity, namespace=own, watches=",".join(watched) or "*", port=operator.probes.port
    )
    serve(operator, stop)
    # Threads that still wait for the API server are of no use to anybody, and must not hold up the end.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
