"""Sampling for training and evaluation: `connect` gives what the run document asks for."""

from pathlib import Path

from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.rollout.base import Generator, Policy, Sampling
from ehrmind_k8s.settings import Settings
from ehrmind_k8s.spec import RunSpec
from ehrmind_k8s.tokenization import Tokenizer

__all__ = ["Generator", "Policy", "Sampling", "connect"]


def connect(spec: RunSpec, run_uri: str, uid: str, tokenizer: Tokenizer, model_folder: Path, settings: Settings) -> Generator:
    """The generator of this run: vLLM servers (EHRMIND_ROLLOUT_URLS), or transformers in this process over the start model in `model_folder`.

    Imports wait for the choice: torch must not load where servers sample, nor httpx inside a server.
    """
    if spec.rollout.engine == "vllm":
        from ehrmind_k8s.rollout.pool import Pool

        return Pool.connect(spec, run_uri, uid, tokenizer, settings)
    try:
        from ehrmind_k8s.rollout.inprocess import InProcess
    except ImportError as error:
        raise SpecError(f"rollout.engine transformers needs {error.name}: pip install 'ehrmind_k8s[train]'") from None
    return InProcess(tokenizer, model_folder=model_folder, dtype=spec.model.dtype)
