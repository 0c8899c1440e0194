"""Scores agree with their definitions, written out slowly here."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from alexnet import lpips_tables

from c2gm.model.evaluation.feature_metrics import (
    DinoFeatures,
    InceptionFeatures,
    dino_network,
    inception_network,
)
from c2gm.model.evaluation.lpips import AlexNetFeatures
from c2gm.model.evaluation.metrics import (
    PSNR_CAP_DB,
    Gaussian,
    Pictures,
    frechet_distance,
    luma,
    psnr_y,
    ssim_y,
)
from c2gm.runtime.errors import WeightsError


def random_pictures(count: int, side: int, seed: int = 0) -> Pictures:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_psnr_of_known_differences() -> None:
    truth = np.full((2, 16, 16, 3), 100, dtype=np.uint8)
    output = truth + np.array([0, 10], dtype=np.uint8)[:, None, None, None]
    assert psnr_y(output, truth) == pytest.approx([PSNR_CAP_DB, 20 * np.log10(255 / 10)])


def test_scores_ignore_invalid_pixels() -> None:
    truth = random_pictures(1, 40)
    output, valid = truth.copy(), np.ones((1, 40, 40), dtype=bool)
    output[:, :, 30:], valid[:, :, 30:] = 0, False
    assert psnr_y(output, truth, valid) == pytest.approx([PSNR_CAP_DB])
    valid[:, :, 25:] = False  # SSIM looks 5 px beyond a pixel
    assert ssim_y(output, truth, valid) == pytest.approx([1.0])
    assert ssim_y(output, truth)[0] < 0.9
    with pytest.raises(ValueError, match="picture 0 has no valid pixel"):
        psnr_y(output, truth, np.zeros_like(valid))


def test_ssim_is_the_published_formula() -> None:
    one = random_pictures(1, 24)
    other = (0.6 * one + 40).astype(np.uint8)
    a, b = luma(one[0]), luma(other[0])
    axis = np.arange(-5, 6)
    weights = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for y in range(24 - 10):
        for x in range(24 - 10):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
            var_p, var_q = (weights * (p - mean_p) ** 2).sum(), (weights * (q - mean_q) ** 2).sum()
            both = (weights * (p - mean_p) * (q - mean_q)).sum()
            c1, c2 = 2.55**2, 7.65**2
            values.append(
                (2 * mean_p * mean_q + c1)
                * (2 * both + c2)
                / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2))
            )
    assert ssim_y(one, other) == pytest.approx([np.mean(values)])
    assert ssim_y(other, one) == pytest.approx(ssim_y(one, other))
    assert ssim_y(one, one) == pytest.approx([1.0])


def test_frechet_distance_of_known_gaussians() -> None:
    mean = np.array([3.0, -4.0])
    one = Gaussian.of_moments(np.zeros(2), np.diag([4.0, 9.0]))
    other = Gaussian.of_moments(mean, np.diag([1.0, 25.0]))
    assert frechet_distance(one, other) == pytest.approx(25 + (2 - 1) ** 2 + (3 - 5) ** 2)
    # Covariances that do not commute: for 2 x 2, tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)).
    c1, c2 = np.array([[2.0, 0.8], [0.8, 1.0]]), np.array([[1.0, -0.5], [-0.5, 3.0]])
    root = np.sqrt(np.trace(c1 @ c2) + 2 * np.sqrt(np.linalg.det(c1 @ c2)))
    expected = np.trace(c1) + np.trace(c2) - 2 * root
    one, other = (Gaussian.of_moments(np.zeros(2), c) for c in (c1, c2))
    assert frechet_distance(one, other) == pytest.approx(expected)
    assert frechet_distance(other, one) == pytest.approx(expected)
    assert frechet_distance(one, one) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("count", [5, 40])
def test_frechet_distance_of_samples_is_that_of_their_moments(count: int) -> None:
    """Fewer samples than features, where no full covariance exists, and more."""
    rng = np.random.default_rng(1)
    samples = [rng.normal(shift, 1 + shift, (count, 12)) for shift in (0.0, 0.5)]
    direct = frechet_distance(*(Gaussian.of_samples(s) for s in samples))
    moments = (Gaussian.of_moments(s.mean(axis=0), np.cov(s.T)) for s in samples)
    assert direct == pytest.approx(frechet_distance(*moments))
    with pytest.raises(ValueError, match="at least 2"):
        Gaussian.of_samples(samples[0][:1])


def test_fid_inception_reads_the_published_layout_and_nothing_else(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = inception_network()
    state = dict(network.state_dict())
    assert state["fc.weight"].shape == (1008, 2048)
    weights = tmp_path / "inception.pth"
    # The published file is older than batch normalisation's counters.
    torch.save({n: t for n, t in state.items() if "num_batches" not in n}, weights)
    pictures = random_pictures(2, 64)
    features = InceptionFeatures(weights).features(pictures)
    assert features.shape == (2, 2048) and features.dtype == np.float64
    with torch.inference_mode():
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1.0
        network.fc = torch.nn.Identity()
        plain = network(torch.nn.functional.interpolate(x, size=(299, 299), mode="bilinear"))
    scale = float(plain.abs().mean())
    # Another pooling at borders and in the last block: close to torchvision's, never the same.
    assert 1e-4 * scale < np.abs(features - plain.numpy()).max()
    assert np.corrcoef(features.ravel(), plain.numpy().ravel())[0, 1] > 0.9
    del state["Mixed_7c.branch_pool.conv.weight"]
    torch.save(state | {"AuxLogits.fc.bias": torch.zeros(1000)}, weights)
    with pytest.raises(WeightsError, match="1 tensors missing.*1 left over") as caught:
        InceptionFeatures(weights)
    assert "\n" not in str(caught.value)


def test_mfp_reads_a_dino_backbone(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = tmp_path / "dino.pth"
        torch.save(dino_network(384, 16).state_dict(), weights)
    dino = DinoFeatures(weights)
    assert dino.name == "ViT-S/16"
    pictures = random_pictures(2, 64)
    token, keys = dino.describe(pictures)
    assert token.shape == (2, 384) and keys.shape == (2, 197, 384)
    same = dino.perception(pictures, pictures)
    assert same.global_ == pytest.approx([1, 1]) and same.structure == pytest.approx([0, 0])
    assert same.combined == pytest.approx([10, 10])
    other = dino.perception(pictures, pictures[::-1].copy())
    assert (other.global_ < 1).all() and (other.structure > 0).all()
    # Eq. 21 by hand, for one pair.
    similarity = [torch.nn.functional.cosine_similarity(k[:, None], k[None], dim=-1) for k in keys]
    expected = float((similarity[0] - similarity[1]).square().sum().sqrt())
    assert other.structure == pytest.approx([expected, expected], rel=1e-4)


@pytest.mark.parametrize("loader", [InceptionFeatures, DinoFeatures])
def test_wrong_weights_are_one_line_that_names_what_to_fetch(
    tmp_path: Path, loader: type[InceptionFeatures] | type[DinoFeatures]
) -> None:
    foreign, broken = tmp_path / "foreign.pth", tmp_path / "broken.pth"
    torch.save({"weight": torch.zeros(3)}, foreign)
    broken.write_bytes(b"no weights")
    for path in (tmp_path / "missing.pth", foreign, broken):
        with pytest.raises(
            WeightsError, match=r"(fetch|give) (pt_inception|dino_).*\.pth"
        ) as caught:
            loader(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_lpips_reads_the_packaged_layout(tmp_path: Path) -> None:
    file = tmp_path / "alexnet.ckpt"
    tables = lpips_tables(0)
    file.write_bytes(pickle.dumps(tables, protocol=3))
    network = AlexNetFeatures(file)
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    near = np.clip(picture.astype(int) + 4, 0, 255).astype(np.uint8)
    far = np.ascontiguousarray(picture[:, ::-1])
    distances = network.distance(np.concatenate([picture, near, far]), np.repeat(picture, 3, 0))
    assert distances[0] == 0 and 0 < distances[1] < distances[2]
    # The first layer by hand: one filter at one place, kernels being (row, column, in, out).
    unit = (picture[0] / 127.5 - 1.0 - np.array([-0.030, -0.088, -0.188])) / np.array(
        [0.458, 0.448, 0.450]
    )
    layer = tables["AlexNet_0"]["Conv_0"]
    seen = unit[6:17, 10:21]  # row 2, column 3: 4 * (2, 3) - 2
    expected = float((seen * layer["kernel"][..., 5]).sum() + layer["bias"][5])
    assert network._describe(picture)[0][0, 5, 2, 3] == pytest.approx(max(0, expected), abs=1e-4)
    assert network.features(picture).shape == (1, 256)


@pytest.mark.parametrize("content", [b"", pickle.dumps(Path("x")), pickle.dumps({"AlexNet_0": 1})])
def test_a_file_that_is_not_lpips_is_refused_and_never_run(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "alexnet.ckpt"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="give weights/alexnet.ckpt of the Python package"):
        AlexNetFeatures(file)
