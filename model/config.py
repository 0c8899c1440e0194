"""`ModelConfig` and its presets: one code, two sizes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from c2gm.runtime.schedule import NoiseSchedule


@dataclass(frozen=True)
class TextConfig:
    """CLIP text tower (open_clip's TextTransformer); width is the cross-attention width.

    `layers` counts the blocks that are computed: SD 2.1 reads the penultimate of 24 layers, so 23.
    """

    width: int
    heads: int
    layers: int
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    context_length: int = 77
    vocab_size: int = 49408


@dataclass(frozen=True)
class AutoencoderConfig:
    """f = 8 autoencoder: `kl` is SD's AutoencoderKL, `light` the small one trained on maps."""

    kind: Literal["kl", "light"]
    latent_channels: int
    scaling_factor: float
    encoder_channels: tuple[int, ...]
    decoder_channels: tuple[int, ...]
    encoder_blocks: int
    decoder_blocks: int


@dataclass(frozen=True)
class ConditionConfig:
    """MFEncoder and SFAdapter (method, section 3) and E_lr of eq. 8.

    `channels`: of the three scales; `spade_hidden`: width of Conv_share per scale;
    `reference_latent_channels`: output of f_up(E_lr(.)), 0 switches eq. 8 off.
    The SFAdapter's channels are the U-Net's first three.
    """

    stem_channels: int
    channels: tuple[int, int, int]
    spade_hidden: tuple[int, int, int]
    output_channels: int
    reference_latent_channels: int
    reference_hidden_channels: int


@dataclass(frozen=True)
class UNetConfig:
    """diffusers' UNet2DConditionModel; `attention` says which of the levels have it."""

    channels: tuple[int, int, int, int]
    attention: tuple[bool, bool, bool, bool]
    layers_per_block: int
    head_width: int
    norm_groups: int


@dataclass(frozen=True)
class ModelConfig:
    """All numbers of a C2GM model."""

    name: str
    text: TextConfig
    autoencoder: AutoencoderConfig
    condition: ConditionConfig
    unet: UNetConfig
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule)
    freeze_text: bool = True
    train_unet: Literal["attention", "all"] = "attention"


FULL = ModelConfig(
    name="full",
    text=TextConfig(width=1024, heads=16, layers=23),
    autoencoder=AutoencoderConfig(
        kind="kl",
        latent_channels=4,
        scaling_factor=0.18215,
        encoder_channels=(128, 256, 512, 512),
        decoder_channels=(128, 256, 512, 512),
        encoder_blocks=2,
        decoder_blocks=2,
    ),
    condition=ConditionConfig(
        stem_channels=64,
        channels=(64, 128, 256),
        spade_hidden=(128, 128, 128),
        output_channels=384,
        reference_latent_channels=4,
        reference_hidden_channels=64,
    ),
    unet=UNetConfig(
        channels=(320, 640, 1280, 1280),
        attention=(True, True, True, False),
        layers_per_block=2,
        head_width=64,
        norm_groups=32,
    ),
    schedule=NoiseSchedule(prediction_type="epsilon"),
)
"""Stable Diffusion 2.1-base size."""

NANO = ModelConfig(
    name="nano",
    text=TextConfig(width=32, heads=4, layers=2),
    autoencoder=AutoencoderConfig(
        kind="light",
        latent_channels=16,
        scaling_factor=1.0,
        encoder_channels=(48, 96),
        decoder_channels=(96, 128),
        encoder_blocks=2,
        decoder_blocks=2,
    ),
    condition=ConditionConfig(
        stem_channels=8,
        channels=(16, 48, 96),
        spade_hidden=(16, 32, 64),
        output_channels=96,
        reference_latent_channels=8,
        reference_hidden_channels=32,
    ),
    unet=UNetConfig(
        channels=(64, 96, 160, 128),
        attention=(False, True, True, False),
        layers_per_block=1,
        head_width=32,
        norm_groups=16,
    ),
    schedule=NoiseSchedule(
        prediction_type="v_prediction", zero_terminal_snr=True, sampling_end=0.5
    ),
    freeze_text=False,
    train_unet="all",
)
"""What ships: at most 15 million parameters, trained here from nothing."""

PRESETS: dict[str, ModelConfig] = {config.name: config for config in (FULL, NANO)}

DEFAULT_STEPS = 2
"""DDIM steps a picture, chosen by measurement (`benchmarks/few_steps.py`, docs/training.md): one
finds a third fewer roads without a reference; more than two find few more and lose houses. And
`nano` samples the noisier half of its time steps only, the first two steps of four."""

GUIDE_FROM = 14
"""Coarsest level from which `nano` draws finer ones: real imagery was hardly there to learn coarser
levels from, and cascades that begin further up score worse (docs/training.md)."""

SHIPPED_WEIGHTS = Path(__file__).parent / "assets" / "nano.safetensors"
"""The weights of `nano` that come with the package."""
