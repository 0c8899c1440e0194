"""The model of a GPU: it counts what the model counts, and obeys what no GPU can break."""

import dataclasses

import pytest
from tiny import tiny_config

from c2gm.benchmarks.gpu_costs import count_operators
from c2gm.benchmarks.gpu_model import (
    GraphTimes,
    run_sheet,
)
from c2gm.benchmarks.gpus import GPUS
from c2gm.benchmarks.scenes import SHEET_LEVELS, SHEET_TILES, sheet_plan
from c2gm.model.config import NANO
from c2gm.model.flops import count_flops
from c2gm.runtime.batching import BUCKETS
from c2gm.runtime.sampler import CALM_STEPS

SIDE = 256


@pytest.fixture(scope="module")
def times() -> GraphTimes:
    return GraphTimes(tiny_config(), GPUS["rtx-3090"], SIDE)


def test_operators_sum_up_to_the_model_s_operations() -> None:
    counted = count_flops(NANO)
    for graph, operators in count_operators(NANO, SIDE).items():
        assert sum(x.flop for x in operators) / 1e9 == pytest.approx(counted[graph])
        assert all(x.fixed_bytes >= 0 and x.row_bytes > 0 for x in operators)
    # The weights of convolutions and matrix products, in half precision.
    fixed = sum(x.fixed_bytes for x in count_operators(NANO, SIDE)["denoise"])
    assert fixed == pytest.approx(2 * 8.6e6, rel=0.3)


def test_nothing_beats_the_roofline_and_batches_help(times: GraphTimes) -> None:
    for steps in (1, 10):
        seconds = [times.tile_seconds(steps, rows) for rows in BUCKETS]
        assert seconds == sorted(seconds, reverse=True)
        assert seconds[-1] > times.tile_floor(steps, BUCKETS[-1]) > 0
    slower = GraphTimes(tiny_config(), GPUS["rtx-4060-laptop"], SIDE)
    assert slower.seconds("vae_decoder", 1) >= times.seconds("vae_decoder", 1)


def test_a_sheet_runs_through_the_real_cascade(times: GraphTimes) -> None:
    planned = sheet_plan()
    tiles = sum(planned.tile_count(level) for level in SHEET_LEVELS)
    assert abs(tiles - SHEET_TILES) <= 10
    whole = run_sheet(times, 12, 16, planned)
    assert sum(whole.tiles.values()) == tiles and whole.steps_a_tile == 12
    assert 0.5 < whole.filled <= 1.0
    assert sum(whole.seconds.values()) > whole.floor_seconds
    # Early stopping is the sampler's own: what stands still after 4 steps is seen two calm steps
    # later, and heard of two further steps later.
    early = run_sheet(times, 12, 16, planned, still_after=4)
    assert early.steps_a_tile == 4 + CALM_STEPS + 2
    assert early.seconds["denoise"] < whole.seconds["denoise"]
    assert early.seconds["condition"] == pytest.approx(whole.seconds["condition"])


def test_a_gpu_without_gaps_reaches_its_share_of_the_peak(times: GraphTimes) -> None:
    """With all the bandwidth of the world only arithmetic is left."""
    wide = dataclasses.replace(GPUS["rtx-3090"], bytes_per_s=1e18, processors=1)
    free = GraphTimes(NANO, wide, SIDE)
    assert free.seconds("denoise", 16) > free.floor("denoise", 16) / 0.75
