"""TensorRT engines beside a bundle's graphs: what they were built from and for, who may load them.

`BUNDLE/engines/KEY/` holds a plan for every graph, `engines.json` and `layers.json`. A plan is
machine code for one library version and some GPUs. A stale or foreign one is the commonest failure
of all that use TensorRT, so everything that can be wrong with one is found here, before a byte of
it reaches the deserialiser. Engines are not part of a bundle's fingerprint: they compute the same.
"""

import hashlib
import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from c2gm.runtime.batching import BUCKETS
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.contract import GRAPHS, FileSpec, GraphName, GraphSpec, Manifest, Precision
from c2gm.runtime.errors import BackendError
from c2gm.runtime.grid import decoder_sides
from c2gm.runtime.manifest import plain
from c2gm.runtime.strict_json import build

FORMAT_VERSION = 1
FOLDER, RECORD_NAME, LAYERS_NAME = "engines", "engines.json", "layers.json"
PLAN_SUFFIX = ".plan"
RECORD_LIMIT_BYTES = 1 << 20

RECIPE = 2
"""Raised when the builder's own settings change, so that older engines do not pass for new ones."""

Flavour = Literal["tensorrt", "tensorrt-rtx"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)


@dataclass(frozen=True, slots=True)
class EngineBuild:
    """What a set of engines is built with and for.

    `capabilities`: CUDA compute capabilities as "8.6"; `sides`: of windows, in pixels.
    """

    flavour: Flavour
    version: str
    platform: str
    capabilities: tuple[str, ...]
    precision: Precision
    buckets: tuple[int, ...]
    sides: tuple[int, ...]
    recipe: int = RECIPE

    def profiles(self, name: GraphName, graph: GraphSpec) -> tuple[tuple[int, int], ...]:
        """(Rows, side) of every optimisation profile of a graph, in order; each is one shape.

        Only the denoiser runs in batches (device_loop.py). The decoder also paints canvases. A
        graph whose inputs do not depend on the side has one for the first side alone.
        """
        buckets = self.buckets if name == "denoise" else (1,)
        shaped = any(x.at(1, 256) != x.at(1, 512) for x in graph.inputs)
        sides = self.sides if shaped else self.sides[:1]
        if name == "vae_decoder":
            sides = tuple(sorted({wide for side in sides for wide in decoder_sides(side)}))
        return tuple((bucket, side) for bucket in buckets for side in sides)


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """Device memory of one engine: its weights, and what a context needs for each profile."""

    weight_bytes: int
    activation_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EngineSet:
    """The record of one folder of engines.

    `onnx`: for every graph the SHA-256 of its files, in the manifest's order.
    """

    format_version: int
    key: str
    build: EngineBuild
    onnx: Mapping[str, tuple[str, ...]]
    plans: Mapping[str, FileSpec]
    memory: Mapping[str, EngineMemory]


def this_platform() -> str:
    """Operating system and processor, as plans depend on them: `linux-x86_64`."""
    return f"{platform.system().lower()}-{platform.machine().lower()}"


def onnx_hashes(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """SHA-256 of every graph's files, as `EngineSet.onnx` wants them."""
    return {name: tuple(f.sha256 for f in manifest.graphs[name].files) for name in GRAPHS}


def engine_key(made: EngineBuild, onnx: Mapping[str, Sequence[str]]) -> str:
    """16 hexadecimal digits that differ wherever engines may not stand for each other."""
    content = {"build": made, "onnx": {name: tuple(onnx[name]) for name in GRAPHS}}
    text = json.dumps(plain(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def engines_folder(bundle: Path, key: str) -> Path:
    """Where engines of a key lie in a bundle."""
    return bundle / FOLDER / key


def has_engines(bundle: Bundle) -> bool:
    """Whether engines were ever added to a bundle."""
    return (bundle.folder / FOLDER).is_dir()


def write_record(folder: Path, engines: EngineSet) -> None:
    """Write `engines.json`, last: it is what makes the folder a set of engines."""
    text = json.dumps(plain(engines), indent=1)
    (folder / RECORD_NAME).write_text(text + "\n", encoding="utf-8")


def read_record(folder: Path) -> EngineSet:
    """Read and check `engines.json` alone. Raises BackendError."""
    path = folder / RECORD_NAME
    try:
        if path.stat().st_size > RECORD_LIMIT_BYTES:
            raise ValueError(f"it has over {RECORD_LIMIT_BYTES} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
        found = document.get("format_version") if isinstance(document, dict) else None
        if found != FORMAT_VERSION:
            raise ValueError(f"its format version is {found!r}, this c2gm reads {FORMAT_VERSION}")
        engines: EngineSet = build(EngineSet, document, "engines")
        for part in (engines.onnx, engines.plans, engines.memory):
            if set(part) != set(GRAPHS):
                raise ValueError(f"it names the graphs {sorted(part)}, expected {sorted(GRAPHS)}")
    except (OSError, UnicodeDecodeError, RecursionError, TypeError, ValueError) as error:
        raise BackendError(f"{path} cannot be used: {error}; delete {folder}") from None
    if engines.key != folder.name or engines.key != engine_key(engines.build, engines.onnx):
        raise BackendError(f"{path} does not fit its key {folder.name}; delete {folder}")
    return engines


@dataclass(frozen=True, slots=True)
class Machine:
    """Where engines are to run: library, its exact version, platform, the GPU's capability."""

    flavour: Flavour
    version: str
    platform: str
    capability: str


def find_engines(bundle: Bundle, machine: Machine, bucket: int, side: int) -> EngineSet:
    """The engines of a bundle that fit a machine and hold batches of `bucket` windows of `side` px.

    Raises BackendError: with every set that there is, why it does not fit, and the command that
    builds one that does.
    """
    folder, refused = bundle.folder / FOLDER, list[str]()
    for place in sorted(folder.glob("[!.]*/")) if has_engines(bundle) else ():
        try:
            engines = read_record(place)
        except BackendError as error:
            refused.append(str(error))
            continue
        reasons = _reasons(engines, bundle.manifest, machine, bucket, side)
        if not reasons:
            return engines
        refused.append(f"{place.name} {' and '.join(reasons)}")
    found = f"its engines do not fit: {'; '.join(refused)}" if refused else "it has no engines"
    raise BackendError(
        f"{bundle.folder} cannot run on {machine.flavour} {machine.version}, compute capability "
        f"{machine.capability}: {found}; build them with: "
        f"{_rebuild(bundle, machine, bucket, side)}"
    )


def _rebuild(bundle: Bundle, machine: Machine, bucket: int, side: int) -> str:
    """The command that adds engines to a bundle that fit."""
    wanted = EngineBuild(
        flavour=machine.flavour,
        version=machine.version,
        platform=machine.platform,
        capabilities=(machine.capability,),
        precision=bundle.manifest.precision,
        buckets=tuple(sorted({*BUCKETS, bucket})),
        sides=tuple(sorted({*bundle.manifest.window_sides, side})),
    )
    return build_command(bundle, wanted)


def build_command(bundle: Bundle, made: EngineBuild) -> str:
    """The command that builds such engines into a bundle."""
    options = (
        ("--targets", made.capabilities),
        ("--buckets", made.buckets),
        ("--sides", made.sides),
    )
    words = " ".join(f"{name} {','.join(map(str, values))}" for name, values in options)
    return f"c2gm-export --add-to {shlex.quote(str(bundle.folder))} --engine {made.flavour} {words}"


def _reasons(
    engines: EngineSet, manifest: Manifest, machine: Machine, bucket: int, side: int
) -> list[str]:
    made, reasons = engines.build, list[str]()
    for what, has, needs in (
        ("for the library", made.flavour, machine.flavour),
        ("for version", made.version, machine.version),
        ("for", made.platform, machine.platform),
        ("in precision", made.precision, manifest.precision),
    ):
        if has != needs:
            reasons.append(f"is {what} {has}, not {needs}")
    if machine.capability not in made.capabilities:
        capabilities = _listed(made.capabilities)
        reasons.append(f"is for compute capability {capabilities}, not {machine.capability}")
    if engines.onnx != onnx_hashes(manifest):
        reasons.append("was built from other graphs than the bundle's")
    if bucket not in made.buckets:
        reasons.append(f"is for batches of {_listed(made.buckets)}, not {bucket}")
    if side not in made.sides:
        reasons.append(f"is for windows of {_listed(made.sides)} px, not {side}")
    return reasons


def read_plan(bundle: Bundle, engines: EngineSet, graph: GraphName) -> bytes:
    """A plan, byte for byte as it was built. Raises BackendError for any other."""
    folder, spec = engines_folder(bundle.folder, engines.key), engines.plans[graph]
    try:
        plan = (folder / f"{graph}{PLAN_SUFFIX}").read_bytes()
    except OSError as error:
        plan, found = b"", f"cannot be read ({error.strerror})"
    else:
        found = "is not what was built"
    if len(plan) != spec.bytes or hashlib.sha256(plan).hexdigest() != spec.sha256:
        command = build_command(bundle, engines.build)
        raise BackendError(f"{folder}/{graph}{PLAN_SUFFIX} {found}; build it again with: {command}")
    return plan


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
