"""Muon for the weights of convolutions and linear layers, AdamW for everything else.

Muon (Jordan et al. 2024) takes the momentum of a weight matrix, makes it orthogonal by a
Newton-Schulz iteration and steps along that, so that rare directions move as far as common ones.
PyTorch's own `torch.optim.Muon` takes two-dimensional weights only; almost all of ours are kernels,
which are matrices of outputs by everything that an output sees.
"""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_RMS = 0.2
"""Of a step at learning rate 1: that of AdamW, so that one learning rate serves both (Moonlight,
Liu et al. 2025)."""


class MuonAdamW(torch.optim.Optimizer):
    """Both optimisers over the trainable parameters of a module."""

    def __init__(
        self,
        module: nn.Module,
        lr: float,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        matrices = [
            part.weight
            for part in module.modules()
            if isinstance(part, nn.Conv2d | nn.Linear) and part.weight.requires_grad
        ]
        known = {id(parameter) for parameter in matrices}
        others = [p for p in module.parameters() if p.requires_grad and id(p) not in known]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "matrices": True},
            {"params": others, "matrices": False},
        ]
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas}
        super().__init__([group for group in groups if group["params"]], defaults)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step along the gradients that there are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
            update = self._muon if group["matrices"] else self._adam
            update(parameters, group)
        return loss

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            assert parameter.grad is not None
            state["momentum"].lerp_(parameter.grad, 1.0 - momentum)
            ahead = parameter.grad.lerp(state["momentum"], momentum).flatten(1)
            alike.setdefault((ahead.shape[0], ahead.shape[1]), []).append((parameter, ahead))
        for shape, members in alike.items():
            steps = orthogonal(torch.stack([ahead for _, ahead in members]))
            size = -group["lr"] * _RMS * max(shape) ** 0.5
            for (parameter, _), step in zip(members, steps, strict=True):
                parameter.add_(step.view(parameter.shape), alpha=size)

    def _adam(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        first, second = group["betas"]
        for parameter in parameters:
            state, gradient = self.state[parameter], parameter.grad
            assert gradient is not None
            if not state:
                state["step"] = 0
                state["mean"] = torch.zeros_like(parameter)
                state["square"] = torch.zeros_like(parameter)
            state["step"] += 1
            state["mean"].lerp_(gradient, 1.0 - first)
            state["square"].lerp_(gradient.square(), 1.0 - second)
            root = (state["square"] / (1.0 - second ** state["step"])).sqrt_().add_(1e-8)
            parameter.addcdiv_(
                state["mean"], root, value=-group["lr"] / (1.0 - first ** state["step"])
            )


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (n, r, c) with their singular values brought near one (about 0.7 to 1.2)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).float()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    made: Tensor = (x.mT if tall else x).to(matrices.dtype)
    return made
