"""Timing a call: warmed up, many times over, on all cores at once as the runtime does it."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

FEWEST = 5
"""Runs of every thread, however long they take."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of single runs (quantiles), and runs a second of all threads together."""

    runs: int
    p50: float
    p90: float
    p99: float
    per_second: float


def measure(calls: Sequence[Callable[[], object]], seconds: float, warm_up: int = 2) -> Timing:
    """Run the calls side by side, each again and again on a thread of its own.

    What is slow at first (caches, memory, lazy compilation) happens in `warm_up` runs each, which
    do not count.
    """
    ready = threading.Barrier(len(calls))
    found: list[list[tuple[float, float]]] = [[] for _ in calls]

    def work(call: Callable[[], object], spans: list[tuple[float, float]]) -> None:
        for _ in range(warm_up):
            call()
        ready.wait()
        begin = time.perf_counter()
        while len(spans) < FEWEST or time.perf_counter() - begin < seconds:
            start = time.perf_counter()
            call()
            spans.append((start, time.perf_counter()))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(calls, found, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Only while all threads were at work: a thread that is left alone runs faster.
    end = min(spans[-1][1] for spans in found)
    begin = max(spans[0][0] for spans in found)
    durations = np.array([b - a for spans in found for a, b in spans if a >= begin and b <= end])
    p50, p90, p99 = np.quantile(durations, (0.5, 0.9, 0.99)).tolist()
    return Timing(len(durations), p50, p90, p99, len(calls) / float(durations.mean()))
