"""What the operators of a model cost: operations and bytes, counted without computing anything.

Counted are convolutions, matrix products, attention and normalisations; all else is taken to be
fused into them, as TensorRT's layer reports show.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from c2gm.model.config import ModelConfig
from c2gm.model.flops import build_on_meta
from c2gm.runtime.contract import LATENT_FACTOR

HALF_BYTES = 2


@dataclass(frozen=True, slots=True)
class Operator:
    """One kernel for b rows: `flop` * b operations, `fixed_bytes` + `row_bytes` * b of traffic.

    As a matrix product it has `rows` * b by `columns` results, `products` * b of them; `columns` 0
    where it is none.
    """

    name: str
    flop: float
    fixed_bytes: float
    row_bytes: float
    rows: int
    columns: int
    products: int

    def traffic(self, rows: int) -> float:
        """Bytes moved for so many rows."""
        return self.fixed_bytes + self.row_bytes * rows


@dataclass(frozen=True, slots=True)
class _Call:
    name: str
    flop: float
    bytes: float
    shape: tuple[int, ...]


class _Recorder(TorchDispatchMode):
    """Writes down every operator that is counted, with the bytes of its inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[_Call] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        packet = function._overloadpacket
        norm = "norm" in packet.__name__
        if packet in flop_registry or norm:
            given = [x for x in args if isinstance(x, torch.Tensor)]
            made = [x for x in _flat(result) if isinstance(x, torch.Tensor)][: 1 if norm else None]
            flop = 0.0
            if packet in flop_registry:
                flop = float(flop_registry[packet](*args, **(kwargs or {}), out_val=result))
            moved = HALF_BYTES * sum(x.numel() for x in (*given, *made))
            self.calls.append(_Call(packet.__name__, flop, moved, tuple(made[0].shape)))
        return result


def _flat(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def count_operators(config: ModelConfig, side: int) -> Mapping[str, tuple[Operator, ...]]:
    """Operators of the graphs `condition`, `denoise` and `vae_decoder` for windows of `side` px."""
    one, two = _record(config, side, 1), _record(config, side, 2)
    return {
        graph: tuple(_operator(a, b) for a, b in zip(calls, two[graph], strict=True))
        for graph, calls in one.items()
    }


def _operator(one: _Call, two: _Call) -> Operator:
    """What does not grow from one row to two is weights."""
    row_bytes = two.bytes - one.bytes
    shape = one.shape
    if not one.flop:
        rows = columns = products = 0
    elif "conv" in one.name:
        rows, columns, products = prod(shape[2:]), shape[1], 1
    else:
        rows, columns = shape[-2], shape[-1]
        products = prod(shape[:-2])
    return Operator(one.name, one.flop, one.bytes - row_bytes, row_bytes, rows, columns, products)


@torch.no_grad()
def _record(config: ModelConfig, side: int, rows: int) -> dict[str, list[_Call]]:
    model = build_on_meta(config)
    calls: dict[str, list[_Call]] = {}

    def record(graph: str, function: Callable[..., Any], *arguments: object) -> Any:
        with _Recorder() as recorder:
            result = function(*arguments)
        calls[graph] = recorder.calls
        return result

    cells = side // LATENT_FACTOR
    with torch.device("meta"):
        image, given = torch.empty(rows, 3, side, side), torch.ones(rows)
        latents = torch.empty(rows, config.autoencoder.latent_channels, cells, cells)
        timestep = torch.zeros(rows, dtype=torch.int64)
        states = torch.empty(rows, config.text.context_length, config.text.width)
        pooled = torch.empty(rows, config.text.width)
    condition = record("condition", model.condition, image, image, given)
    record("denoise", model.denoise, latents, timestep, states, pooled, condition)
    record("vae_decoder", model.autoencoder.decode, latents)
    return calls
