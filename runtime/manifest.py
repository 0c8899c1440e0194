"""`manifest.json` of a bundle: written, read back, and what cannot be true of one."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from c2gm.runtime.contract import (
    FORMAT_VERSION,
    GRAPHS,
    LATENT_FACTOR,
    TENSORS,
    Manifest,
    prompt_name,
)
from c2gm.runtime.errors import BundleError
from c2gm.runtime.levels import LEVELS, SPANS, TILE_SIZE, prompt_keys
from c2gm.runtime.strict_json import build

MANIFEST_NAME = "manifest.json"
EMBEDDINGS_NAME = "scale_embeddings.npz"
MANIFEST_LIMIT_BYTES = 4 << 20
MAX_LATENT_CHANNELS = 1024


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, last of all files, since it is what makes the folder a bundle."""
    text = json.dumps(plain(manifest), indent=1)
    (folder / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")


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
