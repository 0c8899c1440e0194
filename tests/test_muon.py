"""Muon: what an orthogonal step is, which weights take it, and that it learns."""

import copy

import pytest
import torch
from torch import nn

from c2gm.model.muon import MuonAdamW, orthogonal


@pytest.mark.parametrize("shape", [(3, 8, 72), (2, 40, 12), (1, 16, 16)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    steps = orthogonal(matrices)
    values = torch.linalg.svdvals(steps)
    assert 0.6 < values.min() and values.max() < 1.3
    along = torch.diagonal(u.mT @ steps @ vh.mT, dim1=1, dim2=2)
    torch.testing.assert_close(along.sort(dim=1).values, values.sort(dim=1).values)


def _network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 4, 1)
    )


def test_kernels_step_orthogonally_and_the_rest_as_adamw_does() -> None:
    network = _network()
    other = copy.deepcopy(network)
    pictures = torch.randn(4, 3, 8, 8)
    ours = MuonAdamW(network, lr=0.01, weight_decay=0.1)
    adamw = torch.optim.AdamW(other.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    before = network[0].weight.detach().clone()
    for model, optimizer in ((network, ours), (other, adamw)):
        model(pictures).square().mean().backward()
        optimizer.step()
    for name, parameter in network.named_parameters():
        same = torch.allclose(parameter, dict(other.named_parameters())[name], atol=1e-6)
        assert same == (parameter.ndim == 1), name
    step = (network[0].weight - 0.999 * before).detach().flatten(1)
    values = torch.linalg.svdvals(step) / (0.01 * 0.2 * 27**0.5)
    assert 0.6 < values.min() and values.max() < 1.3


def test_learns_and_goes_on_from_a_saved_state() -> None:
    pictures = torch.randn(16, 3, 8, 8)
    wanted = pictures.mean(dim=1, keepdim=True).repeat(1, 4, 1, 1)

    def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> float:
        for _ in range(steps):
            loss = (network(pictures) - wanted).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    network = _network()
    optimizer = MuonAdamW(network, lr=0.02)
    first = train(network, optimizer, 1)
    train(network, optimizer, 60)
    resumed = copy.deepcopy(network)
    again = MuonAdamW(resumed, lr=0.5)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    last = train(network, optimizer, 20)
    assert train(resumed, again, 20) == pytest.approx(last)
    assert last < 0.1 * first
