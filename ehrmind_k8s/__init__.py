"""Adapt a language model to clinical reasoning over health records: SFT warm-up, then RLVR, on your own cluster."""

__version__ = "0.1.0"
