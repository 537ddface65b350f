"""Entry point `vllm.general_plugins`, called in every process of a rollout server."""

ENGINE = "ehrmind_pull"


def register() -> None:
    """Make `--weight-transfer-config '{"backend": "ehrmind_pull"}'` known. vLLM calls this more than once in a process and refuses a name twice."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    if ENGINE not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(ENGINE, "ehrmind_k8s.rollout.server.engine", "PullEngine")
