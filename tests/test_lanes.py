"""Windows side by side on a CPU: each once, each as if alone, and none after a failure."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from c2gm.runtime.backends.host_loop import HostLoop
from c2gm.runtime.backends.onnxruntime import OnnxRuntimeBackend
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.errors import BundleError
from c2gm.runtime.lanes import Lanes
from c2gm.runtime.sampler import Sample, Sampler

SIDE, STEPS = 64, 2


def sample(bundle: Bundle, key: int, level: int = 14) -> Sample[int]:
    rng = np.random.default_rng(key)
    channels = bundle.manifest.latent_channels
    noise = rng.standard_normal((channels, SIDE // 8, SIDE // 8), np.float32)
    imagery = rng.uniform(-1, 1, (3, SIDE, SIDE)).astype(np.float32)
    return Sample(key, imagery, None, noise, level, None)


def lanes(bundle: Bundle, count: int, steps: int = STEPS) -> Lanes[int]:
    load = OnnxRuntimeBackend.cpu(bundle).load
    return Lanes(
        [
            Sampler(bundle, HostLoop(bundle.manifest, load, 1, SIDE), side=SIDE, steps=steps)
            for _ in range(count)
        ]
    )


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(count=st.integers(1, 4), windows=st.integers(0, 9))
def test_every_window_comes_out_once_and_as_if_it_were_alone(
    tiny_bundle: Path, count: int, windows: int
) -> None:
    bundle = Bundle.read(tiny_bundle)
    together, alone = lanes(bundle, count), lanes(bundle, 1)
    waiting, found = list(range(windows)), {}
    while waiting or together.busy:
        while waiting and together.free:
            together.admit(sample(bundle, waiting.pop()))
        assert 0 < together.busy <= count and together.busy + together.free == count
        for out in together.step():
            assert out.key not in found and out.steps == STEPS
            found[out.key] = out.picture
    assert sorted(found) == list(range(windows))
    assert together.steps_run == STEPS * windows
    for key, picture in found.items():
        alone.admit(sample(bundle, key))
        (out,) = alone.step()
        assert np.array_equal(out.picture, picture)
    together.close()
    alone.close()


def test_latents_are_decoded_in_a_lane_as_the_window_would_have_been(tiny_bundle: Path) -> None:
    """What happens to latents in between (they are blended) is not the lane's."""
    bundle = Bundle.read(tiny_bundle)
    two = lanes(bundle, 2)
    two.admit(sample(bundle, 1))
    two.admit(replace(sample(bundle, 1), key=2, decode=False))
    out = {}
    while two.busy:
        out |= {finished.key: finished for finished in two.step()}
    assert out[2].picture is None and out[2].latents is not None and out[1].latents is None
    two.decode(3, out[2].latents)
    assert (two.free, two.busy) == (1, 1)
    while two.busy:
        out |= {finished.key: finished for finished in two.step()}
    assert np.array_equal(out[3].picture, out[1].picture) and out[3].steps == 0
    two.close()


def test_lanes_that_are_closed_leave_their_windows_where_they_are(tiny_bundle: Path) -> None:
    """Ctrl-C must not wait for a window of a thousand steps."""
    bundle = Bundle.read(tiny_bundle)
    two = lanes(bundle, 2, steps=bundle.manifest.schedule.max_steps)
    two.admit(sample(bundle, 1))
    two.admit(sample(bundle, 2))
    two.close()
    assert two.step() == [] and not two.free and not two.busy
    assert two.steps_run < bundle.manifest.schedule.max_steps


def test_a_failure_shows_and_its_lane_is_not_used_again(tiny_bundle: Path) -> None:
    bundle = Bundle.read(tiny_bundle)
    side_by_side = lanes(bundle, 2)
    side_by_side.admit(sample(bundle, 1, level=3))
    with pytest.raises(BundleError, match="has no scale prompt '3-none'"):
        side_by_side.step()
    assert (side_by_side.free, side_by_side.busy) == (1, 0)
    side_by_side.close()
    assert not side_by_side.free and side_by_side.step() == []
