"""DDIM sampling in torch, eta 0, with the coefficients that the runtime uses."""

import torch
from torch import Tensor

from c2gm.model.sgdm import SGDM, Condition


@torch.no_grad()
def sample_latents(
    model: SGDM, condition: Condition, states: Tensor, pooled: Tensor, noise: Tensor, steps: int
) -> Tensor:
    """Latents (b, c, h, h) from starting noise of the same shape, in `steps` DDIM steps.

    `states` (b, n, d) and `pooled` (b, d) embed the scale prompts. The update runs in float32.
    """
    schedule = model.config.schedule
    coefficients = schedule.ddim_coefficients(steps).tolist()
    latents = noise
    for t, (c0, c1, c2, c3) in zip(schedule.timesteps(steps).tolist(), coefficients, strict=True):
        timestep = torch.full((len(latents),), t, dtype=torch.int64, device=latents.device)
        output = model.denoise(latents, timestep, states, pooled, condition).float()
        x0 = c0 * latents + c1 * output
        latents = c2 * x0 + c3 * latents
    return latents


@torch.no_grad()
def to_pictures(image: Tensor) -> Tensor:
    """Image (b, 3, H, H), nominally in [-1, 1] -> uint8 (b, H, H, 3), rounded and clamped."""
    values = ((image.float() + 1.0) * 127.5).round().clamp(0, 255)
    return values.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
