"""TRL's trainers, imported as in the trainer's image, where vllm is not installed.

Where it is (one environment for everything, on a laptop), TRL would import it for a way of generating that is not used here: 3 s, 0.2 GB,
and a warning that this version of vllm is newer than TRL knows.

On a CPU, too, the head scores only the tokens that are learned. TRL does so on GPUs; elsewhere, to keep a compiler's shapes steady, it also
scores every token of the prompt, which is most of the work on a long note. Masked positions add nothing to loss or gradient either way.
"""

from trl import import_utils

import_utils.is_vllm_available = lambda min_version=None: False

from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer  # noqa: E402
from trl.trainer import utils as fused_head  # noqa: E402

fused_head._use_triton = lambda device: True

__all__ = ["GRPOConfig", "GRPOTrainer", "SFTConfig", "SFTTrainer"]
