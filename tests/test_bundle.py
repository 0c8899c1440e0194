"""A bundle is data from elsewhere, so everything wrong with it is refused."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2gm.runtime.bundle import Bundle, ScaleEmbeddings, file_spec, write_embeddings
from c2gm.runtime.contract import (
    FORMAT_VERSION,
    GRAPHS,
    TENSORS,
    EarlyStop,
    FileSpec,
    GraphSpec,
    Manifest,
    Provenance,
    TensorSpec,
    prompt_name,
)
from c2gm.runtime.errors import BundleError
from c2gm.runtime.levels import LEVELS, SPANS, prompt_keys
from c2gm.runtime.manifest import EMBEDDINGS_NAME, MANIFEST_NAME, read_manifest, write_manifest
from c2gm.runtime.schedule import NoiseSchedule

MANIFEST = Manifest(
    format_version=FORMAT_VERSION,
    name="small",
    preset="nano",
    precision="fp32",
    latent_channels=4,
    latent_factor=8,
    scaling_factor=1.0,
    schedule=NoiseSchedule(),
    trained_levels=tuple(LEVELS),
    cascade_spans=SPANS,
    default_steps=10,
    early_stop={"14-4x": EarlyStop(0.01, 4)},
    graphs={},
    files=(),
    provenance=Provenance("w", "Apache-2.0", "a", ("d",), "0.1.0"),
)


def tensor(name: str) -> TensorSpec:
    """Only prompts and latents have shapes that a bundle's other parts must fit."""
    shapes = {"states": ("b", 5, 3), "pooled": ("b", 3)}
    return TensorSpec(name, "float32", shapes.get(name, ("b", 4, "h", "h")), (-1.0, 1.0))


def write_bundle(folder: Path) -> Path:
    """A bundle whose graphs are ONNX files of a few bytes: a producer's name, and no graph."""
    folder.mkdir()
    graphs = {}
    for name in GRAPHS:
        (folder / f"{name}.onnx").write_bytes(bytes([2 << 3 | 2, len(name)]) + name.encode())
        inputs, outputs = (tuple(map(tensor, names)) for names in TENSORS[name])
        graphs[name] = GraphSpec((file_spec(folder, f"{name}.onnx"),), inputs, outputs, 1.5)
    keys = list(prompt_keys())
    index = {prompt_name(*key): row for row, key in enumerate(keys)}
    states = np.zeros((len(keys), 5, 3), np.float32)
    write_embeddings(folder, ScaleEmbeddings(index, states, states[:, 0]))
    write_manifest(
        folder, replace(MANIFEST, graphs=graphs, files=(file_spec(folder, EMBEDDINGS_NAME),))
    )
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "small.c2gm")


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / MANIFEST_NAME
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def test_a_bundle_reads_back_as_written(folder: Path) -> None:
    bundle = Bundle.read(folder)
    assert bundle.manifest.early_stop_of(14, 2) == EarlyStop(0.01, 4)
    assert bundle.manifest.early_stop_of(14, None) == EarlyStop()
    assert bundle.graph_path("denoise") == folder / "denoise.onnx"
    assert bundle.embeddings.row(14, 2) == list(prompt_keys()).index((14, 2))
    with pytest.raises(BundleError, match="11-4x"):
        bundle.embeddings.row(11, 2)  # would need level 9, which has no prompt
    assert len(bundle.fingerprint) == 64


@pytest.mark.parametrize("name", ["denoise.onnx", EMBEDDINGS_NAME])
def test_a_changed_file_is_refused_before_use(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match="SHA-256"):
        Bundle.read(folder)
    path.write_bytes(content[:-1])
    with pytest.raises(BundleError, match="bytes"):
        Bundle.read(folder)
    path.unlink()
    with pytest.raises(BundleError, match="missing"):
        Bundle.read(folder)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/b", "", ".", "..", "a\\..\\b", "a\0b", "manifest.json/"]
)
def test_a_file_outside_the_folder_is_refused(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_bytes(b"denoise")
    edit(folder, lambda d: d["graphs"]["denoise"]["files"][0].update(name=name))
    with pytest.raises(BundleError):
        Bundle.read(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(surprise=1),
        lambda d: d["graphs"]["denoise"].update(surprise=1),
        lambda d: d["schedule"].update(surprise=1),
        lambda d: d.pop("name"),
        lambda d: d["provenance"].pop("licence"),
        lambda d: d["graphs"].pop("vae_encoder"),
        lambda d: d["graphs"].update(other=d["graphs"]["denoise"]),
        lambda d: d["graphs"]["denoise"].update(files=[]),
        lambda d: d.update(files=[]),
        lambda d: d.update(format_version=FORMAT_VERSION + 1),
        lambda d: d.update(precision="int4"),
        lambda d: d.update(latent_channels="4"),
        lambda d: d.update(latent_channels=True),
        lambda d: d.update(latent_channels=0),
        lambda d: d.update(latent_channels=8),
        lambda d: d.update(latent_factor=16),
        lambda d: d.update(window_multiple=512),
        lambda d: d["schedule"].update(beta_start=5.0),
        lambda d: d["graphs"].update(condition=d["graphs"]["vae_encoder"]),
        lambda d: d["graphs"]["denoise"]["inputs"][5].update(shape=["b", 5, 4]),
        lambda d: d["graphs"]["vae_decoder"]["inputs"][0].update(shape=[]),
        lambda d: d.update(default_steps=0),
        lambda d: d.update(default_steps=1001),
        lambda d: d.update(scaling_factor=None),
        lambda d: d.update(scaling_factor=float("nan")),
        lambda d: d.update(cascade_spans=[3]),
        lambda d: d.update(scaling_factor=10**400),
        lambda d: d.update(name=None),
        lambda d: d.update(trained_levels=[9]),
        lambda d: d["schedule"].update(zero_terminal_snr=True),
        lambda d: d["schedule"].update(train_timesteps=0),
        lambda d: d.update(early_stop={"14-4x": {"tolerance": "0.1"}}),
        lambda d: d.update(early_stop={"99-4x": {"tolerance": 0.1}}),
        lambda d: d["graphs"]["denoise"]["inputs"][0].update(value_range=[1]),
    ],
)
def test_a_foreign_manifest_is_refused(folder: Path, change: Callable[[Any], object]) -> None:
    edit(folder, change)
    with pytest.raises(BundleError) as error:
        Bundle.read(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", "[" * 100_000, "\xff\xfe", '{"format_version": 1}']
)
def test_what_is_no_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST_NAME).write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError):
        Bundle.read(folder)


@pytest.mark.parametrize(
    "arrays",
    [
        {"prompts": np.array(["14-4x"]), "states": np.zeros((1, 5, 3))},
        {"prompts": np.array(["x"]), "states": np.zeros((1, 5, 3)), "pooled": np.zeros((1, 3))},
        {"prompts": np.array(["14-4x"]), "states": np.zeros((2, 5, 3)), "pooled": np.zeros((1, 3))},
        {"prompts": np.array(["14-4x"]), "states": np.zeros((1, 5, 3)), "pooled": np.zeros((1, 4))},
        {
            "prompts": np.array(["14-4x", "14-4x"]),
            "states": np.zeros((2, 5, 3)),
            "pooled": np.zeros((2, 3)),
        },
        {
            "prompts": np.array(["14-4x"]),
            "states": np.full((1, 5, 3), np.nan),
            "pooled": np.zeros((1, 3)),
        },
        {
            "prompts": np.array(["14-4x"]),
            "states": np.full((1, 5, 3), "x"),
            "pooled": np.zeros((1, 3)),
        },
        {
            "prompts": np.array(["14-4x"], dtype=object),
            "states": np.zeros((1, 5, 3)),
            "pooled": np.zeros((1, 3)),
        },
    ],
)
def test_a_wrong_embeddings_table_is_refused(folder: Path, arrays: dict[str, Any]) -> None:
    np.savez(folder / EMBEDDINGS_NAME, **arrays)
    edit(folder, lambda d: d.update(files=[asdict(file_spec(folder, EMBEDDINGS_NAME))]))
    with pytest.raises(BundleError):
        Bundle.read(folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x93NUMPY\x01\x00", b"text"])
def test_what_is_no_embeddings_table_is_refused(folder: Path, content: bytes) -> None:
    (folder / EMBEDDINGS_NAME).write_bytes(content)
    edit(folder, lambda d: d.update(files=[asdict(file_spec(folder, EMBEDDINGS_NAME))]))
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.read(folder)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/\\"), min_size=1, max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LATENTS = {"latents", "previous_x0", "next_latents", "x0"}
SHAPES = st.lists(st.integers(1, 1000) | NAMES, max_size=4).map(tuple)


def tensor_specs(names: tuple[str, ...]) -> st.SearchStrategy[tuple[TensorSpec, ...]]:
    return st.tuples(
        *[
            st.builds(
                TensorSpec,
                name=st.just(name),
                dtype=st.sampled_from(["float32", "float16", "int64", "uint8"]),
                shape=st.just(tensor(name).shape) if name in LATENTS else SHAPES,
                value_range=st.none() | st.tuples(FLOATS, FLOATS),
            )
            for name in names
        ]
    )


FILES = st.builds(FileSpec, NAMES, st.integers(0, 2**40), st.text("0123456789abcdef", max_size=64))
GRAPH_SPECS = {
    name: st.builds(
        GraphSpec,
        files=st.lists(FILES, min_size=1, max_size=2).map(tuple),
        inputs=tensor_specs(inputs),
        outputs=tensor_specs(outputs),
        gflop_per_tile=FLOATS,
    )
    for name, (inputs, outputs) in TENSORS.items()
}
MANIFESTS = st.builds(
    replace,
    st.just(MANIFEST),
    name=NAMES,
    scaling_factor=st.floats(1e-6, 1e6),
    default_steps=st.integers(1, 1000),
    early_stop=st.dictionaries(
        st.sampled_from([prompt_name(*key) for key in prompt_keys()]),
        st.builds(EarlyStop, st.none() | st.floats(0, 1), st.integers(1, 50)),
    ),
    graphs=st.fixed_dictionaries(GRAPH_SPECS),
    files=st.lists(FILES, max_size=2).map(lambda f: (FileSpec(EMBEDDINGS_NAME, 1, "0"), *f)),
)


@settings(max_examples=50, deadline=None)
@given(manifest=MANIFESTS)
def test_a_manifest_survives_the_way_to_disk_and_back(
    tmp_path_factory: pytest.TempPathFactory, manifest: Manifest
) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    write_manifest(folder, manifest)
    read = read_manifest(folder)
    assert read == manifest
    text = (folder / MANIFEST_NAME).read_text()
    write_manifest(folder, read)
    assert (folder / MANIFEST_NAME).read_text() == text
