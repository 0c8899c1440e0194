"""Other colours by class: where the map says water, and nowhere else."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from c2gm.model.data.recolour import recolour
from c2gm.model.maps.style import PALETTE

SIDE, REACH = 64, 8  # pixels; no soft edge reaches further


def _scene(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Textured imagery whose right half is of one class; its lowest rows are not imaged."""
    imagery = np.random.default_rng(1).integers(40, 200, (SIDE, SIDE, 4)).astype(np.uint8)
    imagery[..., 3] = 255
    imagery[-8:] = 0
    target = np.full((SIDE, SIDE, 3), PALETTE["background"], dtype=np.uint8)
    target[:, SIDE // 2 :] = PALETTE[name]
    return imagery, target


@given(st.sampled_from(("water", "building", "wood", "farmland")), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_only_the_class_changes_and_only_where_there_is_imagery(name: str, seed: int) -> None:
    imagery, target = _scene(name)
    before = imagery.copy()
    result = recolour(imagery, target, np.random.default_rng(seed))
    assert result.dtype == np.uint8
    assert np.array_equal(imagery, before)
    assert np.array_equal(result[..., 3], imagery[..., 3])
    assert np.array_equal(result[:, : SIDE // 2 - REACH], imagery[:, : SIDE // 2 - REACH])
    assert not result[-8:].any()
    assert np.array_equal(result, recolour(imagery, target, np.random.default_rng(seed)))


def test_water_gets_other_colours_and_streams_keep_theirs() -> None:
    imagery, target = _scene("water")
    lake = [
        recolour(imagery, target, np.random.default_rng(seed))[: SIDE // 2, SIDE // 2 :, :3]
        for seed in range(30)
    ]
    means = np.array([picture.mean(axis=(0, 1)) for picture in lake])
    assert 8 <= len(np.unique(means.round(1), axis=0)) < 30  # about half of them are changed
    assert np.ptp(means, axis=0).min() > 60
    target[:, SIDE // 2 + 3 :] = PALETTE["background"]
    for seed in range(30):
        assert np.array_equal(recolour(imagery, target, np.random.default_rng(seed)), imagery)
