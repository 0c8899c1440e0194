"""A critic of the maps that training predicts: it tells a blend of two maps from a map.

Where imagery leaves several maps possible, the least square error is their mean: pale, blurred, in
colours that no map has. A critic that sees true and predicted latents beside F_cond learns to see
that, and the model learns not to be seen: Sauer et al. 2024, "Fast High-Resolution Image Synthesis
with Latent Adversarial Diffusion Distillation" (LADD), here with a small critic from nothing, as
in pix2pix (Isola et al. 2017). Nothing of it is kept after training.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

MOST_NOISE = 0.5
"""On what the critic sees, up to this deviation: it is to judge maps, not the last digits."""

_WIDTHS = (96, 96, 128)


class LatentCritic(nn.Module):
    """PatchGAN over F_cond and latents: one verdict for every 2 x 2 cells, each seeing 11 x 11."""

    def __init__(self, channels: int, latent_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, (a, b) in enumerate(pairwise((channels + latent_channels, *_WIDTHS))):
            layers += [nn.Conv2d(a, b, 3, 2 if index == 1 else 1, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(_WIDTHS[-1], 1, 3, padding=1))

    def forward(self, f_cond: Tensor, latents: Tensor) -> Tensor:
        """(b, c, h, h), (b, c', h, h) -> logits (b, 1, h/2, h/2), positive for "true"."""
        deviation = MOST_NOISE * torch.rand_like(latents[:, :1, :1, :1])
        noisy = latents + deviation * torch.randn_like(latents)
        verdict: Tensor = self.layers(torch.cat([f_cond, noisy], dim=1))
        return verdict


def untaught(module: nn.Module, *inputs: Tensor) -> Tensor:
    """What a module makes of its inputs, without learning from what becomes of it."""
    frozen = {name: parameter.detach() for name, parameter in module.named_parameters()}
    output: Tensor = torch.func.functional_call(module, frozen, inputs)
    return output


def players(
    critic: nn.Module, condition: Tensor, truth: Tensor, drawn: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses of a game's two players, each reaching only its own: who draws, who judges.

    `critic(condition, drawing)` returns logits, positive for "true"; non-saturating losses
    (Goodfellow et al. 2014). `drawn` may hold several drawings of a pair, batch after batch.
    """
    condition = condition.detach()
    repeated = condition.repeat(drawn.shape[0] // condition.shape[0], 1, 1, 1)
    fooled = functional.softplus(-untaught(critic, repeated, drawn)).mean()
    found = functional.softplus(critic(repeated, drawn.detach())).mean()
    missed = functional.softplus(-critic(condition, truth)).mean()
    return fooled, 0.5 * (found + missed)


def balanced(fooled: Tensor, drawn: Tensor, truth: Tensor, share: float) -> Tensor:
    """A term of value 0 whose gradient is that of `fooled` with `share` of the square error's norm.

    So Esser et al. 2021 (VQGAN, eq. 7) weigh theirs: a game's own scale says nothing.
    """
    repeated = truth.repeat(drawn.shape[0] // truth.shape[0], 1, 1, 1)
    (force,) = torch.autograd.grad(fooled, drawn)
    pull = 2.0 * (drawn.detach() - repeated).norm() / drawn.numel()
    scaled = force * (share * pull / force.norm().clamp(min=1e-12))
    term: Tensor = (scaled * (drawn - drawn.detach())).sum()
    return term
