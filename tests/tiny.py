"""A model small enough to export within a test; its graphs have every layer kind of `nano`'s."""

import torch

from c2gm.model.config import (
    AutoencoderConfig,
    ConditionConfig,
    ModelConfig,
    TextConfig,
    UNetConfig,
)
from c2gm.model.sgdm import SGDM
from c2gm.runtime.schedule import NoiseSchedule


def tiny_config() -> ModelConfig:
    """One block, one head everywhere; v-prediction with zero terminal SNR, as `nano`."""
    return ModelConfig(
        name="tiny",
        text=TextConfig(width=16, heads=2, layers=1, vocab_size=49408),
        autoencoder=AutoencoderConfig(
            kind="light",
            latent_channels=4,
            scaling_factor=1.0,
            encoder_channels=(16, 16),
            decoder_channels=(16, 16),
            encoder_blocks=1,
            decoder_blocks=1,
        ),
        condition=ConditionConfig(
            stem_channels=4,
            channels=(4, 8, 8),
            spade_hidden=(4, 4, 4),
            output_channels=8,
            reference_latent_channels=4,
            reference_hidden_channels=8,
        ),
        unet=UNetConfig(
            channels=(16, 16, 32, 32),
            attention=(False, True, True, False),
            layers_per_block=1,
            head_width=8,
            norm_groups=4,
        ),
        schedule=NoiseSchedule(prediction_type="v_prediction", zero_terminal_snr=True),
        freeze_text=False,
        train_unet="all",
    )


def tiny_model(seed: int = 0) -> SGDM:
    """A tiny model with random weights, in evaluation mode, reproducible."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SGDM(tiny_config()).eval()
