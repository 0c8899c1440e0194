"""ONNX -> TensorRT engines, beside a bundle's graphs; one builder for two flavours.

`tensorrt-rtx` builds for any RTX GPU, several at once, on a machine without one. `tensorrt` builds
for the GPU at hand alone. Their Python modules are the same almost name for name. Networks are
strongly typed: what is computed in half precision stands in the ONNX graph (export/half_checks.py).
"""

import hashlib
import json
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from c2gm.export.half_checks import check_half
from c2gm.export.layer_report import HEADER, LayerReport, memory_of, parse_layers, summarise
from c2gm.export.output import writing
from c2gm.runtime.backends.cuda_device import first_device
from c2gm.runtime.backends.tensorrt_library import collecting_logger, load_library
from c2gm.runtime.batching import BUCKETS
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.contract import GRAPHS, FileSpec, GraphName
from c2gm.runtime.engines import (
    FORMAT_VERSION,
    LAYERS_NAME,
    PLAN_SUFFIX,
    EngineBuild,
    EngineMemory,
    EngineSet,
    Flavour,
    engine_key,
    engines_folder,
    onnx_hashes,
    read_plan,
    read_record,
    this_platform,
    write_record,
)
from c2gm.runtime.errors import (
    C2GMError,
    EngineBuildError,
    OptionError,
)
from c2gm.runtime.grid import WINDOW_MULTIPLE

Progress = Callable[[str], None]

RTX_TARGETS: tuple[str, ...] = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""Compute capabilities that TensorRT-RTX builds for: GeForce RTX 20, A100, RTX 30, 40, 50."""

ALIVE_SECONDS = 20.0
"""Between two signs of life of a build."""

HOST_BYTES_PER_BYTE, HOST_BYTES = 4, 1 << 30
"""Memory that a build takes, roughly: an SD-size U-Net of 1.73 GB took 5.8 GB (measured)."""


def build_engines(
    bundle: Bundle,
    flavour: Flavour,
    capabilities: Sequence[str],
    *,
    buckets: Sequence[int],
    sides: Sequence[int] = (),
    progress: Progress = lambda line: None,
) -> Path:
    """Build engines of all graphs into `bundle/engines/KEY` and return that folder.

    `capabilities` as "8.6"; `buckets`: batch sizes; `sides`: of windows in pixels, those of the
    manifest where none are given. All or nothing; what is built already is checked and kept.

    Raises OptionError for targets, buckets or sides that cannot be, BackendError where the library
    is missing or needs a GPU, EngineBuildError for a graph that must not be built in half
    precision, that TensorRT refuses or that it leaves in FP32, OutputError.
    """
    manifest = bundle.manifest
    sides = tuple(sorted(set(sides or manifest.window_sides)))
    targets = check_request(flavour, capabilities, buckets, sides)
    trt = load_library(flavour)
    made = EngineBuild(
        flavour=flavour,
        version=str(trt.__version__),
        platform=this_platform(),
        capabilities=targets,
        precision=manifest.precision,
        buckets=tuple(sorted(set(buckets))),
        sides=sides,
    )
    onnx = onnx_hashes(manifest)
    key = engine_key(made, onnx)
    output = engines_folder(bundle.folder, key)
    if _is_complete(bundle, output):
        progress(f"{output}: built already, nothing to do")
        return output
    if manifest.precision == "int8":
        raise OptionError(
            f"{bundle.folder} is of int8, which is for CPUs; export a bundle with --precision fp16"
        )
    if manifest.precision == "fp32":
        progress("warning: the bundle is of fp32, and so its engines will be slow; see --precision")
    else:
        for graph in GRAPHS:
            check_half(bundle.graph_path(graph))
    with writing(output):
        output.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{key}.", dir=output.parent) as scratch:
            folder = Path(scratch) / key
            folder.mkdir()
            _write_engines(trt, bundle, made, folder, progress)
            if output.exists():
                shutil.rmtree(output)
            folder.rename(output)
    return output


def check_request(
    flavour: Flavour, capabilities: Sequence[str], buckets: Sequence[int], sides: Sequence[int]
) -> tuple[str, ...]:
    """The asked-for capabilities in order, each once; that of the GPU at hand for `tensorrt`.

    Raises BackendError where the library, or for `tensorrt` the GPU, is missing; OptionError for
    capabilities that it does not build for, and for batches and windows that cannot be.
    """
    wrong = [side for side in sides if side < 1 or side % WINDOW_MULTIPLE]
    if wrong:
        raise OptionError(f"--sides has {wrong[0]}, expected multiples of {WINDOW_MULTIPLE}")
    unknown_sizes = [size for size in buckets if size not in BUCKETS]
    if unknown_sizes or not buckets:
        raise OptionError(
            f"--buckets has {unknown_sizes[0] if buckets else 'nothing'}, expected batch sizes "
            f"among {', '.join(map(str, BUCKETS))}"
        )
    load_library(flavour)
    if flavour == "tensorrt":
        here = first_device("or use --engine tensorrt-rtx").capability
        if set(capabilities) - {here}:
            raise OptionError(
                f"--targets are {', '.join(capabilities)}, but tensorrt builds for the GPU at hand "
                f"alone, which has {here}; leave --targets out, or use --engine tensorrt-rtx"
            )
        return (here,)
    unknown = [c for c in capabilities if c not in RTX_TARGETS]
    if unknown or not capabilities:
        raise OptionError(
            f"--targets {', '.join(unknown) or 'is empty'}: expected compute capabilities among "
            f"{', '.join(RTX_TARGETS)} (RTX 3090: 8.6, RTX 40: 8.9, RTX 50: 12.0)"
        )
    return tuple(sorted(set(capabilities), key=lambda text: tuple(map(int, text.split(".")))))


def _is_complete(bundle: Bundle, output: Path) -> bool:
    """Whether sound engines lie there already."""
    if not output.is_dir():
        return False
    try:
        engines = read_record(output)
        for graph in GRAPHS:
            read_plan(bundle, engines, graph)
    except C2GMError:
        return False
    return True


def _write_engines(
    trt: Any, bundle: Bundle, made: EngineBuild, folder: Path, progress: Progress
) -> None:
    plans: dict[str, FileSpec] = {}
    memory: dict[str, EngineMemory] = {}
    reports: dict[str, Any] = {}
    for graph in GRAPHS:
        spec = bundle.manifest.graphs[graph]
        size = sum(file.bytes for file in spec.files)
        estimate = (HOST_BYTES + HOST_BYTES_PER_BYTE * size) / 1e9
        profiles = len(made.profiles(graph, spec))
        shapes = "one shape" if profiles == 1 else f"{profiles} shapes"
        progress(
            f"{graph}: building, {shapes} for {', '.join(made.capabilities)}; takes "
            f"about {estimate:.1f} GB of memory"
        )
        started = time.monotonic()
        engine = build_plan(trt, bundle, graph, made, progress)
        (folder / f"{graph}{PLAN_SUFFIX}").write_bytes(engine.plan)
        digest = hashlib.sha256(engine.plan).hexdigest()
        plans[graph] = FileSpec(f"{graph}{PLAN_SUFFIX}", len(engine.plan), digest)
        memory[graph] = engine.memory
        seconds = time.monotonic() - started
        report = engine.report
        reports[graph] = asdict(report) | {"build_seconds": round(seconds, 1)}
        progress(
            f"{graph}: {plans[graph].bytes / 1e6:.1f} MB in {seconds:.0f} s; "
            f"for each shape {report.half_convolutions // profiles} of "
            f"{report.convolutions // profiles} convolutions and "
            f"{report.half_products // profiles} of {report.products // profiles} matrix products "
            f"in half precision, {report.fused_attention // profiles} fused attentions; on the "
            f"device {engine.memory.weight_bytes / 1e6:.0f} MB of weights and up to "
            f"{max(engine.memory.activation_bytes, default=0) / 1e6:.0f} MB of activations"
        )
    (folder / LAYERS_NAME).write_text(json.dumps(reports, indent=1) + "\n", encoding="utf-8")
    onnx = onnx_hashes(bundle.manifest)
    write_record(
        folder, EngineSet(FORMAT_VERSION, engine_key(made, onnx), made, onnx, plans, memory)
    )


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """A serialised engine with what the build said of it."""

    plan: bytes
    report: LayerReport
    memory: EngineMemory


def build_plan(
    trt: Any, bundle: Bundle, graph: GraphName, made: EngineBuild, progress: Progress
) -> BuiltEngine:
    """Build one graph. Raises EngineBuildError with TensorRT's own words."""
    with interrupts_noted() as noted:
        try:
            return _build(trt, bundle, graph, made, progress, noted)
        finally:
            if noted:
                raise KeyboardInterrupt


def _build(
    trt: Any,
    bundle: Bundle,
    graph: GraphName,
    made: EngineBuild,
    progress: Progress,
    noted: list[int],
) -> BuiltEngine:
    """See `build_plan`; ends soon after a signal is `noted`, with whatever error that makes."""
    messages: list[str] = []
    logger = collecting_logger(
        trt, _listener(messages, lambda: progress(f"{graph}: still building"))
    )
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    path = bundle.graph_path(graph)
    if not parser.parse_from_file(str(path)):
        faults = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise EngineBuildError(
            f"{path.name}: {made.flavour} {made.version} cannot read it: "
            f"{'; '.join(faults[:3]) or 'no reason given'}"
        )
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the layer list needs it
    config.max_aux_streams = 0  # a captured graph is one stream
    if made.flavour == "tensorrt-rtx":
        # What stream capture asks of an RTX engine; and one engine for several GPUs.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        config.num_compute_capabilities = len(made.capabilities)
        for index, capability in enumerate(made.capabilities):
            member = f"SM{capability.replace('.', '')}"
            if not config.set_compute_capability(getattr(trt.ComputeCapability, member), index):
                raise EngineBuildError(f"{made.flavour} does not take the target {capability}")
    spec = bundle.manifest.graphs[graph]
    profiles = made.profiles(graph, spec)
    for rows, side in profiles:
        profile = builder.create_optimization_profile()
        for tensor in spec.inputs:
            shape = tensor.at(rows, side)
            profile.set_shape(tensor.name, shape, shape, shape)
        # A bad profile is no exception but -1.
        if config.add_optimization_profile(profile) < 0:
            raise EngineBuildError(
                f"{path.name}: {made.flavour} refuses the profile for {rows} windows of {side} px"
                f"{_why(logger.errors)}"
            )
    config.progress_monitor = _monitor(trt, noted)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise EngineBuildError(
            f"{path.name}: {made.flavour} {made.version} could not build it{_why(logger.errors)}"
        )
    lists = [message for message in messages if message.startswith(HEADER)]
    report = summarise([layer for message in lists for layer in parse_layers(message)])
    _accept(report, path, made)
    weights, activations = memory_of(messages)
    if len(activations) != len(profiles):
        raise EngineBuildError(
            f"{path.name}: {made.flavour} {made.version} told the memory of {len(activations)} of "
            f"{len(profiles)} profiles; use a version that this c2gm was tested with"
        )
    return BuiltEngine(bytes(serialized), report, EngineMemory(weights, activations))


def _accept(report: LayerReport, path: Path, made: EngineBuild) -> None:
    """Refuse an engine that does not compute in the precision that it was built for."""
    if not report.kernels:
        raise EngineBuildError(
            f"{path.name}: {made.flavour} {made.version} gave no list of layers, so that nobody "
            "knows what the engine computes; use a version that this c2gm was tested with"
        )
    if made.precision == "fp16" and (
        report.half_convolutions < report.convolutions or report.half_products < report.products
    ):
        raise EngineBuildError(
            f"{path.name}: {report.convolutions - report.half_convolutions} of "
            f"{report.convolutions} convolutions and {report.products - report.half_products} of "
            f"{report.products} matrix products are not in half precision"
        )


def _network_flags(trt: Any) -> int:
    """TensorRT 10 has to be asked for a strongly typed network; later ones know no other."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


@contextmanager
def interrupts_noted() -> Iterator[list[int]]:
    """Within this context Ctrl-C and SIGTERM raise nothing: they are put into the list.

    TensorRT calls back into Python from its own code, and swallows what is raised there.
    """
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted  # signals go to the main thread alone
        return
    before = {
        number: signal.signal(number, lambda number, _: noted.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _monitor(trt: Any, noted: list[int]) -> Any:
    """A monitor of `trt.IProgressMonitor`'s kind that ends a build once something is noted."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Says after every step whether to go on."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            """Called when a phase begins."""

        def step_complete(self, name: str, step: int) -> bool:
            """Called after every step of a phase; False ends the build."""
            return not noted

        def phase_finish(self, name: str) -> None:
            """Called when a phase ends."""

    return Monitor()


def _listener(messages: list[str], alive: Callable[[], None]) -> Callable[[str], None]:
    """Puts the list of layers and memory sizes, out of tens of thousands of lines, into a list.

    It is also what calls `alive` from time to time: nothing else returns from a build of minutes.
    """
    told = time.monotonic()

    def hear(message: str) -> None:
        nonlocal told
        if message.startswith((HEADER, "Total Activation Memory", "Total Weights Memory")):
            messages.append(message)
        if time.monotonic() - told > ALIVE_SECONDS:
            told = time.monotonic()
            alive()

    return hear


def _why(errors: Sequence[str]) -> str:
    """What TensorRT complained of, to append to a message."""
    return f": {errors[0]}" if errors else ", and does not say why"
