"""How sure is a difference of two scores on the same tiles? Paired intervals by blocks of ground.

Tiles of one place are alike, so what is drawn with replacement are blocks of ground, with all their
tiles at all levels, the same for both sides, and within each kind of imagery (a stratified cluster
bootstrap). With few blocks its plain percentiles are too narrow: they leave out the factor n/(n-1)
of the variance and the tails of Student's t. Here the percentiles are those of Hesterberg 2015,
"What Teachers Should Know About the Bootstrap", The American Statistician 69(4) (the expanded
percentile interval), with the degrees of freedom of a stratified sample of clusters: blocks less
kinds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from c2gm.model.evaluation.tile_scores import Parts

DRAWS = 20_000
FEWEST_DEGREES = 3
"""Below, that is with fewer than four blocks of a kind, no interval would hold what it promises:
that of three blocks, their range at the widest, holds three times out of four."""

_CONFIDENCE = 0.95
_DIGITS = 9  # what lies below is arithmetic: equal sides differ by nothing


@dataclass(frozen=True, slots=True)
class Difference:
    """`value`: one score less the other. `low` to `high`: its 95 % interval, None where there are
    too few `blocks` that both have something to score in."""

    value: float
    low: float | None
    high: float | None
    blocks: int

    @property
    def sure(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low is not None and self.high is not None and self.low * self.high > 0


def paired_difference(
    one: Parts, other: Parts, blocks: Sequence[str], kinds: Sequence[str], seed: int = 0
) -> Difference | None:
    """The score `one` less the score `other` of the same tiles; None where a side has no score.

    `one`, `other` (n, 2): numerators and denominators, whose sums over the tiles give each score.
    `blocks`, `kinds` (n): which ground a tile lies on, and of which kind of imagery. A kind of a
    single block shows no spread of its own; then all blocks are drawn as of one kind. Blocks and
    draws where a side has nothing to score are left out.
    """
    places = sorted(set(zip(kinds, blocks, strict=True)))
    row = {place: i for i, place in enumerate(places)}
    sums = np.zeros((len(places), 4))
    which = [row[place] for place in zip(kinds, blocks, strict=True)]
    np.add.at(sums, which, np.concatenate([one, other], axis=1))
    whole = sums.sum(axis=0)
    if not (whole[1] and whole[3]):
        return None
    value = round(float(_difference(whole)), _DIGITS)
    scored = sums[:, 1::2] > 0
    count = int(scored.all(axis=1).sum())
    used = np.flatnonzero(scored.any(axis=1))
    sizes = _sizes([places[i][0] for i in used])
    degrees = count - len(sizes)
    if degrees < FEWEST_DEGREES:
        return Difference(value, None, None, count)
    drawn = _times(sizes, seed) @ sums[used]
    spread = _difference(drawn[(drawn[:, 1::2] > 0).all(axis=1)])
    tail = ndtr(-sqrt(count / degrees) * stdtrit(degrees, 0.5 + _CONFIDENCE / 2))
    low, high = np.quantile(spread, [tail, 1.0 - tail])
    return Difference(value, round(float(low), _DIGITS), round(float(high), _DIGITS), count)


def _sizes(kinds: Sequence[str]) -> tuple[int, ...]:
    """How many blocks are drawn together: those of each kind (`kinds` sorted), or all."""
    sizes = tuple(len(list(same)) for _, same in groupby(kinds))
    return sizes if min(sizes) > 1 else (len(kinds),)


@cache
def _times(sizes: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    """How often each block is drawn, (DRAWS, blocks)."""
    rng = np.random.default_rng(seed)
    times = [rng.multinomial(size, np.full(size, 1 / size), DRAWS) for size in sizes]
    return np.concatenate(times, axis=1).astype(np.float64)


def _difference(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3])
