"""The weight-transfer engine inside vLLM's workers: load whole weights from a folder that the API process has fetched and verified.

There is no collective group and nothing to connect: a server that joins, restarts or dies concerns no other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload


@dataclass
class Nothing(WeightTransferInitInfo):
    """A pull needs no connection."""


@dataclass
class Folder(WeightTransferUpdateInfo):
    """`folder` holds *.safetensors of the whole model, in the names of its HF checkpoint."""

    folder: str


class PullEngine(WeightTransferEngine[Nothing, Folder]):
    """Start and finish do nothing: a failure between them must not leave the model on meta tensors, so loading is one step."""

    init_info_cls = Nothing
    update_info_cls = Folder

    def init_transfer_engine(self, init_info: Nothing) -> None:
        """Nothing to connect."""

    def start_weight_update(self) -> None:
        """Nothing to prepare."""

    def finish_weight_update(self) -> None:
        """Nothing is left to do."""

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """As in the base class, which synchronises an accelerator that a CPU does not have."""
        self.receive_weights(self.parse_update_info(update_info))
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: Folder) -> None:
        """Load the weights in place."""
        initialize_layerwise_reload(self.model)
        self.model.load_weights(_tensors(Path(update_info.folder)))
        finalize_layerwise_reload(self.model, self.model_config)
        for module in self.model.modules():
            if isinstance(module, ParallelLMHead):  # on CPU the packed copy of a tied head is not rebuilt by the reload
                module.quant_method.process_weights_after_loading(module)

    def shutdown(self) -> None:
        """Nothing to release."""


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (a safetensors file is not a mapping)
                yield name, file.get_tensor(name)
