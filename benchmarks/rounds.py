"""Manners that take turns in rounds: ratios within a round, in which a machine's drift cancels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Spread:
    """Median of the rounds, lowest and highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one value for every round."""
        return cls(float(np.median(values)), float(min(values)), float(max(values)))


def order(count: int, number: int) -> list[int]:
    """Who runs when in a round: every second round runs backwards.

    So a machine that slows down steadily hurts all of them alike over two rounds.
    """
    forwards = list(range(count))
    return forwards if number % 2 == 0 else forwards[::-1]


def ratios_by_round(
    cost: Mapping[str, Sequence[float]], base: str
) -> dict[str, tuple[Spread, Spread]]:
    """By manner: its cost, and how many times that of `base` in the same round it is.

    `cost`: one value a round for every manner, rounds in the same order.
    """
    return {
        name: (
            Spread.of(values),
            Spread.of([mine / its for mine, its in zip(values, cost[base], strict=True)]),
        )
        for name, values in cost.items()
    }
