"""A model small enough to export within a test; its graphs have every layer kind of `nano`'s."""

from dataclasses import replace

import torch

from c2gm.benchmarks.scaling import thin_config
from c2gm.model.config import ModelConfig
from c2gm.model.sgdm import SGDM


def tiny_config() -> ModelConfig:
    """One block, one head everywhere; v-prediction with zero terminal SNR, as `nano`."""
    return replace(thin_config(), name="tiny")


def tiny_model(seed: int = 0) -> SGDM:
    """A tiny model with random weights, in evaluation mode, reproducible."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SGDM(tiny_config()).eval()
