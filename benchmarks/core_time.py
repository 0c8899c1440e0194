"""Where all the cores' time of a run went, from the command to its end."""

from collections.abc import Mapping, Sequence

START, CHECK, OTHER, IDLE = "start", "check", "by no part", "idle"
"""Beside the parts that a run knows (`c2gm.runtime.infer.PARTS`): interpreter, imports and reading
the command line; decoding every tile once more at the end; what is left; cores without work."""


def split_core_time(
    *,
    cores: int,
    wall_s: float,
    processor_s: float,
    parts: Mapping[str, float],
    start_s: float,
    check_s: float,
) -> dict[str, float]:
    """Seconds by what they were spent on; their sum is `cores` times `wall_s`.

    `processor_s`: of the whole process; `parts`: processor time by part; `start_s`, `check_s`:
    measured apart, so that the noise of both is in `OTHER`, which may even fall below 0.
    """
    known = dict(parts) | {START: start_s, CHECK: check_s}
    return known | {
        OTHER: processor_s - sum(known.values()),
        IDLE: cores * wall_s - processor_s,
    }


def mean_split(runs: Sequence[tuple[Mapping[str, float], int]]) -> dict[str, float]:
    """Milliseconds of core time a tile, over runs of (split, tiles)."""
    tiles = sum(count for _, count in runs)
    return {name: 1e3 * sum(split[name] for split, _ in runs) / tiles for name in runs[0][0]}
