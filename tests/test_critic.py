"""The critic's game: who learns from what, with what force, and what it is good for."""

import pytest
import torch
from torch import Tensor, nn

from c2gm.model.critic import LatentCritic, balanced, players


def test_its_pull_has_the_chosen_share_of_the_square_error_s() -> None:
    torch.manual_seed(0)
    truth, drawn = torch.randn(2, 4, 8, 8), torch.randn(4, 4, 8, 8, requires_grad=True)
    critic = LatentCritic(3, 4)
    torch.manual_seed(1)
    fooled, _ = players(critic, torch.randn(2, 3, 8, 8), truth, drawn)
    (direction,) = torch.autograd.grad(fooled, drawn, retain_graph=True)
    (square,) = torch.autograd.grad((drawn - truth.repeat(2, 1, 1, 1)).square().mean(), drawn)
    term = balanced(fooled, drawn, truth, share=0.3)
    term.backward()
    assert term.item() == 0.0
    assert all(parameter.grad is None for parameter in critic.parameters())
    assert drawn.grad is not None
    assert drawn.grad.norm().item() == pytest.approx(0.3 * square.norm().item(), rel=1e-4)
    torch.testing.assert_close(drawn.grad / drawn.grad.norm(), direction / direction.norm())


class Toss(nn.Module):
    """Draws one value all over: what the noise has little say in if only the square counts."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, noise: Tensor) -> Tensor:
        return self.layers(noise)[..., None, None].expand(-1, 1, 4, 4)


@pytest.mark.parametrize("share", [0.0, 2.0])
def test_it_decides_between_two_maps_instead_of_blending_them(share: float) -> None:
    torch.manual_seed(0)
    toss, critic = Toss(), LatentCritic(1, 1)
    optimizer = torch.optim.Adam([*toss.parameters(), *critic.parameters()], lr=2e-3)
    for _ in range(200):
        # Nothing in the condition says which of the two it is.
        truth = torch.sign(torch.randn(32, 1, 1, 1)).expand(-1, 1, 4, 4)
        drawn = toss(torch.randn(32, 1))
        fooled, verdict = players(critic, torch.zeros(32, 1, 4, 4), truth, drawn)
        loss = (drawn - truth).square().mean() + verdict
        optimizer.zero_grad()
        (loss + balanced(fooled, drawn, truth, share)).backward()
        optimizer.step()
    with torch.no_grad():
        size = toss(torch.randn(256, 1))[:, 0, 0, 0].abs().mean().item()
    assert size > 0.6 if share else size < 0.3
