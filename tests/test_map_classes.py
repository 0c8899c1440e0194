"""Classes read back from maps by colour, and what is counted of them."""

import numpy as np
import pytest

from c2gm.model.evaluation.class_scores import class_counts
from c2gm.model.maps.classes import CLASSES, read_classes
from c2gm.model.maps.style import PALETTE


def test_every_palette_colour_reads_as_its_own_class_in_spite_of_noise() -> None:
    colours = np.array(list(PALETTE.values()), dtype=np.int16)[None, :, None]
    noise = np.random.default_rng(0).integers(-3, 4, (1, len(PALETTE), 200, 3))
    read = read_classes(np.clip(colours + noise, 0, 255).astype(np.uint8))[0]
    of = {name: k + 1 for k, names in enumerate(CLASSES.values()) for name in names}
    assert all((row == of.get(name, 0)).all() for name, row in zip(PALETTE, read, strict=True))


def test_counts_of_a_shifted_road_and_a_lost_wood() -> None:
    truth = np.full((1, 64, 64, 3), PALETTE["background"], dtype=np.uint8)
    output = truth.copy()
    truth[0, :, 10:12] = output[0, :, 13:15] = PALETTE["street"]
    truth[0, 40:50, 30:40] = PALETTE["wood"]
    output[0, :, 50:52] = PALETTE["primary"]
    valid = np.ones((1, 64, 64), dtype=bool)
    valid[0, 32:] = False
    counts = class_counts(output, truth, valid)
    assert counts["iou_road"].tolist() == [[0, 32 * 6]]
    assert counts["road_completeness"].tolist() == [[32 * 2, 32 * 2]]
    assert counts["road_correctness"].tolist() == [[32 * 2, 32 * 4]]
    assert counts["iou_wood"].tolist() == [[0, 0]], "the wood is not on valid ground"
    valid[:] = True
    assert class_counts(output, truth, valid)["iou_wood"].tolist() == [[0, 100]]
    with pytest.raises(ValueError):
        class_counts(output, truth[:, :32], valid)
