"""TRL's trainers, imported as in the trainer's image, where vllm is not installed.

Where it is (one environment for everything, on a laptop), TRL would import it for a way of generating that is not used here: 3 s, 0.2 GB,
and a warning that this version of vllm is newer than TRL knows.
"""

from trl import import_utils

import_utils.is_vllm_available = lambda min_version=None: False

from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer  # noqa: E402

__all__ = ["GRPOConfig", "GRPOTrainer", "SFTConfig", "SFTTrainer"]
