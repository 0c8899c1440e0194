"""GPUs as their makers describe them, for `c2gm-bench gpu-model`."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as its maker describes it: dense FP16 with FP32 accumulation, bandwidth, processors."""

    title: str
    flop_per_s: float
    bytes_per_s: float
    processors: int


def _gpu(title: str, processors: int, clock: float, bandwidth: float) -> Gpu:
    """512 FP16 operations a clock and processor with FP32 accumulation: GeForce RTX 30 and 40."""
    return Gpu(title, 512 * processors * clock, bandwidth, processors)


GPUS: Mapping[str, Gpu] = {
    "rtx-3090": _gpu("GeForce RTX 3090", 82, 1.695e9, 936e9),
    "rtx-4060-laptop": _gpu("GeForce RTX 4060 Laptop (2.37 GHz)", 24, 2.37e9, 256e9),
    "rtx-4090-laptop": _gpu("GeForce RTX 4090 Laptop (2.04 GHz)", 76, 2.04e9, 576e9),
    "orin": Gpu("Jetson AGX Orin 64 GB", 42.5e12, 204.8e9, 16),
}
"""Processors, clocks and bandwidths as published by the maker; peak rates follow from them."""
