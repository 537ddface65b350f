"""SFT warm-up and RLVR over TRL, made to survive: order, ledger, checkpoints and policy versions are ours, the gradient is TRL's.

Reading order: `sft`, `rlvr` (the loss), `rollouts` (who samples and what it earns), `policies` (weights out), `checkpoint`, `ledger`.
"""
