"""The contract between export and runtime: a bundle folder `NAME.c2gm/` and its manifest.

A bundle holds `manifest.json`, one ONNX file a graph (with external data beside it where the graph
is over 2 GB), `scale_embeddings.npz` and `parity.json`. Bundles are data: files are named in the
manifest with their size and SHA-256, may not leave the folder, and are checked before use.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from c2gm.runtime.errors import BundleError
from c2gm.runtime.levels import LEVELS, SPANS, TILE_SIZE, prompt_keys
from c2gm.runtime.npz import read_arrays
from c2gm.runtime.onnx_files import external_files
from c2gm.runtime.schedule import NoiseSchedule
from c2gm.runtime.strict_json import build

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
EMBEDDINGS_NAME = "scale_embeddings.npz"
MANIFEST_LIMIT_BYTES = 4 << 20
EMBEDDINGS_LIMIT_BYTES = 256 << 20
"""Unpacked; those of the full model take 9 MB."""

MAX_LATENT_CHANNELS = 1024
LATENT_FACTOR = 8
"""Pixels of a latent cell's side; the contract knows no other."""

GraphName = Literal["text_encoder", "condition", "denoise", "vae_decoder", "vae_encoder"]
GRAPHS: tuple[GraphName, ...] = get_args(GraphName)

WINDOW_GRAPHS: tuple[GraphName, ...] = ("condition", "denoise", "vae_decoder")
"""Those that a window passes through, in order."""

_FEATURES = ("feature_0", "feature_1", "feature_2", "reference_latent")
TENSORS: Mapping[GraphName, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "text_encoder": (("token_ids",), ("states", "pooled")),
    "condition": (("imagery", "reference", "has_reference"), _FEATURES),
    "denoise": (
        (
            *("latents", "previous_x0", "timestep", "coefficients", "active", "states", "pooled"),
            *_FEATURES,
        ),
        ("next_latents", "x0", "change"),
    ),
    "vae_decoder": (("latents",), ("image",)),
    "vae_encoder": (("image",), ("latents",)),
}
"""Inputs and outputs of every graph (docs/graphs.md)."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a graph; a string in `shape` is a symbolic dimension."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    value_range: tuple[float, float] | None = None

    def at(self, rows: int, side: int) -> tuple[int, ...]:
        """The shape for so many windows of `side` pixels: `b` rows, `H` side, `h` latent cells.

        Raises ValueError for a symbol that is none of b, H, h, h/2 and h/4.
        """
        cells = side // LATENT_FACTOR
        sizes = {"b": rows, "H": side, "h": cells, "h/2": cells // 2, "h/4": cells // 4}
        unknown = [size for size in self.shape if isinstance(size, str) and size not in sizes]
        if unknown:
            raise ValueError(f"{self.name} has the dimensions {unknown}, known are {list(sizes)}")
        return tuple(sizes[size] if isinstance(size, str) else size for size in self.shape)

    def bytes(self, rows: int, side: int) -> int:
        """Memory of the tensor for so many windows of `side` pixels."""
        return math.prod(self.at(rows, side)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class FileSpec:
    """A file of the bundle, by name inside the folder."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """An ONNX graph: its model file first, external data after it; FLOPs for one 256 px tile."""

    files: tuple[FileSpec, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    gflop_per_tile: float

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """Inputs, then outputs."""
        return self.inputs + self.outputs


Precision = Literal["fp32", "fp16", "int8"]
"""What most of a bundle's arithmetic is done in."""


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """Relative change of x0 below `tolerance` for two steps ends a window (None: never)."""

    tolerance: float | None = None
    minimum_steps: int = 4


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the weights come from; shown to users and written into every map's metadata."""

    weights: str
    licence: str
    attribution: str
    training_data: tuple[str, ...]
    c2gm_version: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that a run needs to know about a bundle.

    `window_sides`: of the windows that engines are built for, in pixels; the graphs themselves take
    any multiple of `window_multiple`. `guide_from`: coarsest level that the model reads well enough
    for finer ones to be drawn from it.
    """

    format_version: int
    name: str
    preset: str
    precision: Precision
    latent_channels: int
    latent_factor: int
    scaling_factor: float
    schedule: NoiseSchedule
    trained_levels: tuple[int, ...]
    cascade_spans: tuple[int, ...]
    default_steps: int
    early_stop: Mapping[str, EarlyStop]
    graphs: Mapping[str, GraphSpec]
    files: tuple[FileSpec, ...]
    provenance: Provenance
    window_multiple: int = 64
    window_sides: tuple[int, ...] = (TILE_SIZE,)
    guide_from: int = min(LEVELS)

    def early_stop_of(self, level: int, span: int | None) -> EarlyStop:
        """The early-stopping rule of one scale prompt; never stopping where none is given."""
        return self.early_stop.get(prompt_name(level, span), EarlyStop())


def prompt_name(level: int, span: int | None) -> str:
    """Key of a scale prompt in manifest and embeddings table: `14-4x`, `14-2x`, `14-none`."""
    return f"{level}-none" if span is None else f"{level}-{1 << span}x"


@dataclass(frozen=True, slots=True)
class ScaleEmbeddings:
    """Embeddings of all scale prompts: states (n, tokens, width), pooled (n, width), float32."""

    index: Mapping[str, int]
    states: NDArray[np.float32]
    pooled: NDArray[np.float32]

    def row(self, level: int, span: int | None) -> int:
        """Row of a prompt. Raises BundleError where the model was not trained on it."""
        try:
            return self.index[prompt_name(level, span)]
        except KeyError:
            raise BundleError(
                f"the bundle has no scale prompt {prompt_name(level, span)!r}; it has "
                f"{', '.join(self.index)}; choose levels and cascade among these"
            ) from None


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle on disk."""

    folder: Path
    manifest: Manifest
    embeddings: ScaleEmbeddings = field(repr=False)

    def graph_path(self, graph: GraphName) -> Path:
        """Path of a graph's ONNX file."""
        return self.folder / self.manifest.graphs[graph].files[0].name

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the manifest, which names every file by hash: it stands for the weights."""
        return file_sha256(self.folder / MANIFEST_NAME)

    @classmethod
    def read(cls, folder: Path) -> "Bundle":
        """Read and verify a bundle: schema, sizes, hashes, embeddings.

        Raises BundleError with what is wrong; nothing of an unverified file is interpreted.
        """
        manifest = read_manifest(folder)
        listed = [f for graph in manifest.graphs.values() for f in graph.files]
        for spec in (*listed, *manifest.files):
            _verify_file(folder, spec)
        for graph in manifest.graphs.values():
            _verify_external(folder, graph)
        embeddings = _read_embeddings(folder)
        given = {"states": embeddings.states.shape[1:], "pooled": embeddings.pooled.shape[1:]}
        for tensor in manifest.graphs["denoise"].inputs:
            if tensor.name in given and tensor.shape[1:] != given[tensor.name]:
                raise BundleError(
                    f"{folder / EMBEDDINGS_NAME}: {tensor.name} are {given[tensor.name]} a prompt, "
                    f"the denoise graph takes {tensor.shape[1:]}; export the bundle again"
                )
        return cls(folder, manifest, embeddings)


def write_embeddings(folder: Path, embeddings: ScaleEmbeddings) -> None:
    """Write the embeddings table (plain arrays, no pickle)."""
    np.savez(
        folder / EMBEDDINGS_NAME,
        prompts=np.array(list(embeddings.index), dtype=np.str_),
        states=embeddings.states,
        pooled=embeddings.pooled,
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, last of all files, since it is what makes the folder a bundle."""
    text = json.dumps(plain(manifest), indent=1)
    (folder / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")


def file_spec(folder: Path, name: str) -> FileSpec:
    """Describe a file of a bundle folder by size and hash."""
    path = folder / name
    return FileSpec(name, path.stat().st_size, file_sha256(path))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read and validate `manifest.json` alone. Raises BundleError."""
    path = folder / MANIFEST_NAME
    hint = "give a folder NAME.c2gm that c2gm-export wrote"
    if not path.is_file():
        raise BundleError(f"{folder} is not a model bundle: it has no {MANIFEST_NAME}; {hint}")
    if path.stat().st_size > MANIFEST_LIMIT_BYTES:
        raise BundleError(
            f"{path} is over {MANIFEST_LIMIT_BYTES} bytes, which no manifest is; {hint}"
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON ({error}); export the bundle again") from None
    found = document.get("format_version") if isinstance(document, dict) else None
    if found != FORMAT_VERSION:
        raise BundleError(
            f"{path} has format version {found!r}, this c2gm reads {FORMAT_VERSION}; "
            "export the bundle again with this version"
        )
    try:
        manifest: Manifest = build(Manifest, document, "manifest")
    except (TypeError, ValueError) as error:
        raise BundleError(f"{path}: {error}; export the bundle again") from None
    for wrong, what in _contradictions(manifest):
        if wrong:
            raise BundleError(f"{path}: {what}; export the bundle again")
    return manifest


def _contradictions(manifest: Manifest) -> Iterator[tuple[bool, str]]:
    """What types alone don't say of a manifest: pairs of (is it wrong, what is wrong)."""
    names, graphs = sorted(manifest.graphs), manifest.graphs.values()
    yield set(names) != set(GRAPHS), f"graphs are {names}, expected {sorted(GRAPHS)}"
    yield not all(graph.files for graph in graphs), "a graph has no file"
    listed = [file.name for file in manifest.files]
    yield (
        EMBEDDINGS_NAME not in listed,
        f"files are {listed}, expected {EMBEDDINGS_NAME} among them",
    )
    yield manifest.scaling_factor <= 0, f"scaling_factor is {manifest.scaling_factor}, expected > 0"
    latent_channels = manifest.latent_channels
    yield (
        not 1 <= latent_channels <= MAX_LATENT_CHANNELS,
        f"latent_channels is {latent_channels}, expected 1 to {MAX_LATENT_CHANNELS}",
    )
    factor, multiple = manifest.latent_factor, manifest.window_multiple
    yield factor != LATENT_FACTOR, f"latent_factor is {factor}, this c2gm runs {LATENT_FACTOR}"
    yield (
        multiple < 1 or TILE_SIZE % multiple != 0,
        f"window_multiple is {multiple}, expected a divisor of {TILE_SIZE}",
    )
    sides = manifest.window_sides
    yield (
        not sides or any(side < 1 or side % multiple for side in sides),
        f"window_sides are {sides}, expected multiples of {multiple}",
    )
    for graph_name, (inputs, outputs) in TENSORS.items():
        graph = manifest.graphs[graph_name]
        for what, tensors, expected in (
            ("inputs", graph.inputs, inputs),
            ("outputs", graph.outputs, outputs),
        ):
            found = sorted(tensor.name for tensor in tensors)
            yield found != sorted(expected), f"{graph_name} has the {what} {found}, not {expected}"
    channels = {
        tensor.shape[1:2]
        for graph_name in ("denoise", "vae_decoder", "vae_encoder")
        for tensor in manifest.graphs[graph_name].tensors
        if tensor.name in ("latents", "previous_x0", "next_latents", "x0")
    }
    yield (
        channels != {(manifest.latent_channels,)},
        f"latent_channels is {manifest.latent_channels}, the graphs' latents have {channels}",
    )
    steps, limit = manifest.default_steps, manifest.schedule.max_steps
    yield not 1 <= steps <= limit, f"default_steps is {steps}, expected 1 to {limit}"
    levels, spans = manifest.trained_levels, manifest.cascade_spans
    yield (
        not levels or not set(levels) <= set(LEVELS),
        f"trained_levels {levels} are not among ours",
    )
    yield not set(spans) <= set(SPANS), f"cascade_spans {spans} are not among {SPANS}"
    unknown = set(manifest.early_stop) - {prompt_name(*key) for key in prompt_keys()}
    yield bool(unknown), f"early_stop has unknown scale prompts {sorted(unknown)}"


def plain(value: Any) -> Any:
    """Dataclasses, mappings (read-only ones too, which `asdict` cannot copy) and tuples as JSON."""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


def _verify_file(folder: Path, spec: FileSpec) -> None:
    if Path(spec.name).name != spec.name or spec.name in ("", ".", ".."):
        raise BundleError(f"{folder}: file name {spec.name!r} leaves the bundle; don't use it")
    path = folder / spec.name
    if os.path.islink(path) or not os.path.isfile(path):  # never raise, whatever the name
        raise BundleError(f"{path} is missing from the bundle; copy or export it again")
    size = path.stat().st_size
    if size != spec.bytes:
        raise BundleError(
            f"{path} has {size} bytes, the manifest says {spec.bytes}; copy or export it again"
        )
    if file_sha256(path) != spec.sha256:
        raise BundleError(f"{path} does not match its SHA-256; copy or export the bundle again")


def _verify_external(folder: Path, graph: GraphSpec) -> None:
    """Refuse a graph that would read files which the manifest does not list with it."""
    path = folder / graph.files[0].name
    try:
        wanted = external_files(path)
    except ValueError as error:
        raise BundleError(
            f"{path} is not an ONNX file ({error}); export the bundle again"
        ) from None
    foreign = sorted(wanted - {file.name for file in graph.files[1:]})
    if foreign:
        raise BundleError(
            f"{path} takes weights from {foreign[0]!r}, which is not a file that the bundle lists "
            "with this graph; don't use it"
        )


def _read_embeddings(folder: Path) -> ScaleEmbeddings:
    path = folder / EMBEDDINGS_NAME
    try:
        prompts, states, pooled = read_arrays(
            path, ("prompts", "states", "pooled"), EMBEDDINGS_LIMIT_BYTES
        )
        states, pooled = states.astype(np.float32), pooled.astype(np.float32)
    except (OSError, EOFError, ValueError, TypeError, KeyError, BadZipFile) as error:
        raise BundleError(f"{path} cannot be read ({error}); export the bundle again") from None
    if states.ndim != 3 or pooled.shape != states.shape[::2] or prompts.shape != states.shape[:1]:
        raise BundleError(
            f"{path} has shapes {prompts.shape}, {states.shape}, {pooled.shape}, expected (n,), "
            "(n, tokens, width), (n, width); export the bundle again"
        )
    index = {str(name): row for row, name in enumerate(prompts)}
    unknown = set(index) - {prompt_name(*key) for key in prompt_keys()}
    if unknown:
        raise BundleError(f"{path} has unknown scale prompts {sorted(unknown)}; export it again")
    if len(index) != len(prompts) or not (np.isfinite(states).all() and np.isfinite(pooled).all()):
        raise BundleError(f"{path} repeats a scale prompt or holds NaN; export the bundle again")
    return ScaleEmbeddings(index, states, pooled)
