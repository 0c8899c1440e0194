"""Counting: floating-point operations per 256 px tile, and parameters, per part."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from c2gm.model.config import ModelConfig
from c2gm.model.sgdm import SGDM
from c2gm.runtime.contract import LATENT_FACTOR, GraphName
from c2gm.runtime.levels import TILE_SIZE

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Numbers of parameters; `parts` and `trainable_parts` are keyed by part of `SGDM`."""

    total: int
    trainable: int
    parts: dict[str, int]
    trainable_parts: dict[str, int]


def build_on_meta(config: ModelConfig) -> SGDM:
    """The model without storage: shapes only, so `full` costs no memory."""
    with torch.device("meta"):
        return SGDM(config).eval()


def count_parameters(config: ModelConfig) -> ParameterCount:
    """Count parameters (no buffers) per part."""
    parts, trainable = {}, {}
    for name, part in build_on_meta(config).named_children():
        parts[name] = sum(p.numel() for p in part.parameters())
        trainable[name] = sum(p.numel() for p in part.parameters() if p.requires_grad)
    return ParameterCount(sum(parts.values()), sum(trainable.values()), parts, trainable)


@torch.no_grad()
def count_flops(config: ModelConfig, side: int = TILE_SIZE) -> dict[str, float]:
    """GFLOP (2 x multiply-adds) of every graph for one window of `side` pixels, by graph name.

    Counts matrix products, convolutions and attention; element-wise work is left out.
    """
    model = build_on_meta(config)
    gflop: dict[str, float] = {}

    def count(graph: GraphName, function: Callable[..., Result], *arguments: object) -> Result:
        with FlopCounterMode(display=False) as counter:
            result = function(*arguments)
        gflop[graph] = counter.get_total_flops() / 1e9
        return result

    with torch.device("meta"):
        image, has_reference = torch.empty(1, 3, side, side), torch.ones(1)
        latents = torch.empty(1, config.autoencoder.latent_channels, *[side // LATENT_FACTOR] * 2)
        timestep = torch.zeros(1, dtype=torch.int64)
        token_ids = torch.zeros(1, config.text.context_length, dtype=torch.int64)
    states, pooled = count("text_encoder", model.text_encoder, token_ids)
    condition = count("condition", model.condition, image, image, has_reference)
    count("denoise", model.denoise, latents, timestep, states, pooled, condition)
    count("vae_decoder", model.autoencoder.decode, latents)
    count("vae_encoder", model.autoencoder.encode, image)
    return gflop
