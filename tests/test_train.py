"""`c2gm-train`'s loop over both stages with a tiny preset: resuming, ranks, scores, refusals."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from blocks import GROUND, write_blocks
from PIL import Image
from tiny import tiny_config

from c2gm.model import train_stages
from c2gm.model.checkpoint import load_model, save_autoencoder
from c2gm.model.class_probe import GROUPS, ClassProbe
from c2gm.model.config import PRESETS
from c2gm.model.data.dataset import BatchStream, SamplerOptions, TileSampler
from c2gm.model.data.mosaic import Extent, open_areas
from c2gm.model.evaluation.evaluate import enlarged_reference
from c2gm.model.evaluation.metrics import psnr_y
from c2gm.model.maps.style import PALETTE
from c2gm.model.own_references import draw_own_references
from c2gm.model.train import Batch, Trainer, TrainOptions
from c2gm.model.train_stages import AutoencoderModule, AutoencoderStage, SGDMModule, SGDMStage
from c2gm.runtime.errors import DataError, OptionError, WeightsError

HELD_OUT = Extent(GROUND.left + 32, GROUND.top, 32, 64)
"""The eastern half."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One area with levels 12 to 14: blocks of palette colours, darker in the imagery."""
    folder = tmp_path_factory.mktemp("train")
    colours = np.array(list(PALETTE.values()), dtype=np.uint8)
    blocks = colours[np.random.default_rng(0).integers(0, len(colours), (16, 16))]
    write_blocks(folder, blocks, (12, 13, 14), HELD_OUT)
    return folder


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", tiny_config())
    monkeypatch.setattr(train_stages, "STATISTICS_BATCHES", 2)
    monkeypatch.setattr(train_stages, "DEFAULT_STEPS", 2)


@pytest.fixture
def options(dataset: Path, tmp_path: Path) -> TrainOptions:
    torch.manual_seed(0)
    stage = AutoencoderStage(TrainOptions("autoencoder", dataset, tmp_path, preset="tiny"))
    module = stage.module
    assert isinstance(module, AutoencoderModule)
    save_autoencoder(module.autoencoder, tiny_config(), tmp_path / "ae.safetensors")
    return TrainOptions(
        "sgdm",
        dataset,
        tmp_path / "run",
        preset="tiny",
        autoencoder=tmp_path / "ae.safetensors",
        steps=4,
        batch=1,
        warmup_steps=1,
        decay_share=0.0,
        draws=2,
        mixed_precision="no",
        workers=0,
        log_every=1,
    )


def trainer(options: TrainOptions) -> Trainer:
    torch.manual_seed(options.seed)
    stage = SGDMStage if options.stage == "sgdm" else AutoencoderStage
    return Trainer(stage(options), options)


def test_a_stopped_run_ends_as_an_undisturbed_one(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_model(trainer(options).run(), tiny_config()).state_dict()
    stopped = replace(options, run=options.run.with_name("stopped"))

    def interrupted(self: SGDMStage, start: int, rank: int, ranks: int) -> Iterator[Batch]:
        for count, batch in enumerate(self.pairs.batches(start, rank, ranks)):
            if count == 2:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(SGDMStage, "batches", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer(stopped).run()
    again = trainer(stopped)
    assert again.step == 2
    resumed = load_model(again.run(), tiny_config()).state_dict()
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    untrained = SGDMStage(options).module.model.state_dict()
    name = "unet.net.conv_in.weight"
    assert not torch.equal(whole[name], untrained[name])


def test_validation_scores_what_evaluation_scores(options: TrainOptions) -> None:
    trainer(options).run()
    logged = [json.loads(line) for line in (options.run / "log.jsonl").read_text().splitlines()]
    samples = SGDMStage(options).pairs.validation(32)
    given = [sample for sample in samples if sample.reference is not None]
    expected = psnr_y(
        np.stack([enlarged_reference(sample) for sample in given]),
        np.stack([sample.target for sample in given]),
        np.stack([sample.imagery[..., 3] > 0 for sample in given]),
    ).mean()
    assert logged[-1]["psnr_y_enlarged_reference"] == pytest.approx(expected)
    assert [line["step"] for line in logged[:-1]] == [1, 2, 3, 4]


def test_processes_share_the_batches_of_a_step(dataset: Path) -> None:
    sampler = TileSampler(dataset, options=SamplerOptions(sides=(128,), side_weights=(1.0,)))
    alone = iter(BatchStream(sampler, 1, start=4))
    ranks = [iter(BatchStream(sampler, 1, start=2, rank=rank, ranks=2)) for rank in (0, 1)]
    for _ in range(2):
        for rank in ranks:
            assert torch.equal(next(alone)["image"], next(rank)["image"])


def test_latents_are_standardised_from_whatever_start(options: TrainOptions) -> None:
    first = replace(options, stage="autoencoder", steps=1, batch=2)
    weights = trainer(first).run()
    again = replace(first, run=options.run.with_name("again"), initial=weights, learning_rate=0.0)
    run = trainer(again)
    run.run()
    autoencoder = run.average.module.autoencoder
    images = [next(run.stage.batches(1 + k, 0, 1))["image"] for k in range(2)]
    with torch.no_grad():
        latents = [autoencoder.encode(image).permute(1, 0, 2, 3).flatten(1) for image in images]
    std = torch.cat(latents, dim=1).std(dim=1)
    torch.testing.assert_close(std, torch.ones_like(std), rtol=0.05, atol=0.0)


def test_stage_two_reads_what_the_model_drew(options: TrainOptions, dataset: Path) -> None:
    own = replace(options, references="generated")
    with pytest.raises(DataError, match="c2gm-dataset own-references"):
        SGDMStage(own)
    model = SGDMStage(options).module.model
    lines = list(draw_own_references(dataset, model.eval(), steps=1, seed=0))
    (area,) = open_areas(dataset)
    drawn = area.generated(12)
    assert lines == ["blocks: levels 12-12, at most 1 tiles"] and drawn is not None
    held_out = drawn[:, 128:]
    assert (held_out == PALETTE["background"]).all(), "held-out ground must stay undrawn"
    assert list(draw_own_references(dataset, model, 1, 0)) == ["blocks: already drawn"]
    sampler = TileSampler(
        dataset,
        options=SamplerOptions(
            generated_share=1.0, augment=False, no_reference_share=0.0, level_weights={12: 0, 13: 0}
        ),
    )
    sample = next(s for s in map(sampler.sample, range(20)) if s.span == 2)
    plain = TileSampler(dataset, options=replace(sampler.options, generated_share=0.0))
    others = [plain.sample(index).reference for index in range(20)]
    assert sample.reference is not None
    assert not any(o is not None and np.array_equal(o, sample.reference) for o in others)
    for file in area.path.glob("generated_*"):
        file.unlink()


def test_encoder_only_leaves_the_rest_alone(options: TrainOptions) -> None:
    options = replace(options, encoder_only=True, steps=2)
    training = trainer(options)
    stage = training.stage
    assert isinstance(stage, SGDMStage)
    before = {
        name: x.clone() for name, x in cast(SGDMModule, stage.module).model.state_dict().items()
    }
    weights = training.run()
    after = load_model(weights, tiny_config()).state_dict()
    continued = SGDMStage(replace(options, initial=weights, encoder_only=False)).module
    learnt = cast(SGDMModule, training.average.module).probe.state_dict()
    for name, x in cast(SGDMModule, continued).probe.state_dict().items():
        assert torch.equal(x, learnt[name]), name
    changed = {name.split(".")[0] for name, x in after.items() if not torch.equal(x, before[name])}
    assert changed == {"mf_encoder"}
    records = [json.loads(line) for line in (options.run / "log.jsonl").read_text().splitlines()]
    scores = next(record for record in records if "painted_entropy" in record)
    assert scores["painted_entropy"] > 0 and 0 <= scores["painted_iou_wood"] <= 1
    with Image.open(options.run / "sheet_000002.png") as sheet:
        assert sheet.width == 3 * 128


def test_a_critic_learns_beside_the_model_and_is_not_kept(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(options, critic_share=0.5, steps=2)
    training = trainer(options)
    critic = cast(SGDMModule, training.stage.module).critic
    assert critic is not None
    before = [x.detach().clone() for x in critic.parameters()]
    load_model(training.run(), tiny_config())
    assert not any(torch.equal(x, y) for x, y in zip(before, critic.parameters(), strict=True))
    config = tiny_config()
    schedule = replace(config.schedule, prediction_type="epsilon", zero_terminal_snr=False)
    monkeypatch.setitem(PRESETS, "tiny", replace(config, schedule=schedule))
    with pytest.raises(OptionError, match="--critic-share is for models that predict v"):
        SGDMStage(options)


def test_probe_reads_classes_and_weighs_thin_things() -> None:
    torch.manual_seed(0)
    probe = ClassProbe(channels=8, latent_channels=4)
    colours = np.array([PALETTE[n] for n in ("wood", "street", "background", "water")], np.uint8)
    quarters = colours.reshape(2, 2, 3).repeat(16, axis=0).repeat(16, axis=1)
    image = torch.from_numpy(quarters).permute(2, 0, 1)[None] / 127.5 - 1.0
    imagery = torch.ones_like(image)
    imagery[..., 16:, 16:] = 0.0
    classes = probe.read(image, imagery)
    names = list(GROUPS)
    expected = torch.tensor([[names.index("wood"), names.index("road")], [0, -100]])
    assert torch.equal(classes, expected.repeat_interleave(8, 0).repeat_interleave(8, 1)[None])
    weights = probe.cell_weights(classes)
    assert weights.shape == (1, 1, 4, 4) and weights.mean().item() == pytest.approx(1.0)
    assert (weights[0, 0, :2, 2:] / weights[0, 0, 0, 0]).unique().tolist() == pytest.approx([4.0])
    # Two 1 x 1 convolutions learn what stands in the features, at every second pixel.
    features = torch.zeros(1, 8, 4, 4)
    features[:, :4] = (
        torch.eye(4).reshape(1, 4, 2, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    )
    optimizer = torch.optim.Adam(probe.parameters(), lr=0.05)
    for _ in range(200):
        loss = probe.loss(features, features[:, :4], classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    # The reader that learnt beside them judges latents, and learns nothing by that.
    before = [x.detach().clone() for x in probe.reader.parameters()]
    drawn = torch.cat([features[:, :4], torch.zeros(1, 4, 4, 4)]).requires_grad_()
    probe.zero_grad()
    probe.drawn_loss(drawn, classes).backward()
    assert all(x.grad is None for x in probe.parameters())
    assert all(torch.equal(x, y) for x, y in zip(before, probe.reader.parameters(), strict=True))
    assert drawn.grad is not None and drawn.grad[1].abs().max() > 10 * drawn.grad[0].abs().max()
    unseen = torch.full_like(classes, -100)
    assert torch.isfinite(probe.loss(features, features[:, :4], unseen))
    assert probe.drawn_loss(drawn, unseen).item() == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "huber"}, "--loss is 'huber', choose from l2, l1"),
        ({"mixed_precision": "fp8"}, "choose from no, bf16, fp16"),
        ({"references": "own"}, "choose from true, degraded, generated, mixed"),
        ({"kinds": ("real", "drawn")}, "--kinds drawn: choose from real, painted, dubai"),
        ({"spans": (3,)}, "choose from 2, 1"),
        ({"draws": 0}, "--draws is 0"),
        ({"noise_bias": 0.0}, "--noise-bias"),
        ({"critic_share": -0.5}, "--critic-share is -0.5"),
        ({"level_weights": {14: -1.0}}, "must not be negative"),
    ],
)
def test_options_that_make_no_sense(
    options: TrainOptions, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        replace(options, **change)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint_is_named(options: TrainOptions, content: bytes) -> None:
    options.run.mkdir(parents=True)
    (options.run / "checkpoint.pt").write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged .*delete it"):
        trainer(options)
