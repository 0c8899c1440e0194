"""Noise schedule and DDIM coefficients, in float64 numpy (method, section 2).

Shared by training, export and runtime, so that all three follow one schedule.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

PredictionType = Literal["epsilon", "v_prediction"]

COEFFICIENTS = ("x0_from_latents", "x0_from_output", "next_from_x0", "next_from_latents")
"""Names of the per-row coefficients of one DDIM step, in the order of the last axis."""

MAX_TIMESTEPS = 100_000
"""A hundred times what anybody trains with; every one takes memory."""


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """The forward process q(z_t | z_0) = N(sqrt(abar_t) z_0, (1 - abar_t) I).

    `beta_start`, `beta_end`: ends of the "scaled linear" schedule (linear in sqrt(beta)).
    `zero_terminal_snr`: rescale so that abar_T = 0 (Lin et al. 2024, algorithm 1); needs
    `v_prediction`, because epsilon cannot be inverted at zero signal.
    `sampling_end`: share of the time steps, those of low noise, that sampling leaves out: its last
    step jumps to x0 from there. A choice of sampling, not of training.
    """

    train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    prediction_type: PredictionType = "epsilon"
    zero_terminal_snr: bool = False
    sampling_end: float = 0.0

    def __post_init__(self) -> None:
        if self.prediction_type not in get_args(PredictionType):
            raise ValueError(
                f"prediction_type is {self.prediction_type!r}, expected one of "
                f"{get_args(PredictionType)}"
            )
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(
                f"beta_start {self.beta_start} and beta_end {self.beta_end} are not in order "
                "between 0 and 1"
            )
        if not 1 <= self.train_timesteps <= MAX_TIMESTEPS:
            raise ValueError(
                f"train_timesteps is {self.train_timesteps}, expected 1 to {MAX_TIMESTEPS}"
            )
        if self.zero_terminal_snr and self.prediction_type == "epsilon":
            raise ValueError("zero_terminal_snr needs prediction_type 'v_prediction'")
        if not 0 <= self.sampling_end < 1:
            raise ValueError(f"sampling_end is {self.sampling_end}, expected 0 to below 1")

    def whole(self) -> "NoiseSchedule":
        """The same schedule, sampled to its end."""
        return replace(self, sampling_end=0.0)

    @property
    def max_steps(self) -> int:
        """The most steps that a run can have."""
        return self.train_timesteps - round(self.train_timesteps * self.sampling_end)

    def alphas_cumprod(self) -> NDArray[np.float64]:
        """abar_t for t = 0 .. T-1, shape (T,), decreasing in (0, 1] (0 last if zero SNR)."""
        betas = np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.train_timesteps) ** 2
        alphas_cumprod = np.cumprod(1.0 - betas)
        if self.zero_terminal_snr:
            root = np.sqrt(alphas_cumprod)
            root = (root - root[-1]) * root[0] / (root[0] - root[-1])
            alphas_cumprod = root**2
        return np.asarray(alphas_cumprod, dtype=np.float64)

    def timesteps(self, steps: int) -> NDArray[np.int64]:
        """Time steps of an n-step run, descending from T-1, shape (n,) ("trailing" spacing).

        Trailing spacing starts at pure noise, which is where sampling starts as well. With a
        `sampling_end` of 1/2 they are the first n of a run of 2 n steps.
        Raises ValueError unless 1 <= steps <= `max_steps`.
        """
        if not 1 <= steps <= self.max_steps:
            raise ValueError(f"steps is {steps}, expected 1 to {self.max_steps}")
        ratio = self.max_steps / steps
        spaced = np.round(np.arange(self.train_timesteps, 0, -ratio)[:steps]).astype(np.int64)
        return spaced - 1

    def ddim_coefficients(self, steps: int) -> NDArray[np.float64]:
        """Coefficients of every step of an n-step DDIM run with eta 0, shape (n, 4).

        With z the current latents and o the network's output, one step computes
        ``x0 = c0 z + c1 o`` and ``z' = c2 x0 + c3 z``: epsilon is eliminated, so that one formula
        serves both prediction types (Song et al. 2021, eq. 12 with sigma = 0). The last step ends
        at abar = 1, where z' = x0. Columns are named by `COEFFICIENTS`.
        """
        alphas_cumprod = self.alphas_cumprod()
        t = self.timesteps(steps)
        a = alphas_cumprod[t]
        a_next = np.append(alphas_cumprod[t[1:]], 1.0)
        signal, noise = np.sqrt(a), np.sqrt(1.0 - a)
        if self.prediction_type == "epsilon":
            x0_from_latents, x0_from_output = 1.0 / signal, -noise / signal
        else:
            x0_from_latents, x0_from_output = signal, -noise
        next_from_latents = np.sqrt(1.0 - a_next) / noise
        next_from_x0 = np.sqrt(a_next) - signal * next_from_latents
        return np.stack([x0_from_latents, x0_from_output, next_from_x0, next_from_latents], axis=-1)
