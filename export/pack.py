"""A model -> a bundle folder: graphs, embeddings table, parity report, manifest. All or nothing."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from c2gm.export.cases import CheckPlan, reference_cases
from c2gm.export.graphs import GRAPH_CLASSES, Precision
from c2gm.export.onnx import export_onnx
from c2gm.export.output import PARITY_NAME, SUFFIX, writing
from c2gm.export.parity import Parity
from c2gm.model.config import GUIDE_FROM
from c2gm.model.flops import count_flops
from c2gm.model.sgdm import SGDM
from c2gm.runtime.bundle import Bundle, ScaleEmbeddings, file_spec, write_embeddings
from c2gm.runtime.contract import (
    FORMAT_VERSION,
    GRAPHS,
    LATENT_FACTOR,
    GraphSpec,
    Manifest,
    Provenance,
    prompt_name,
)
from c2gm.runtime.errors import OptionError, OutputError
from c2gm.runtime.grid import DEFAULT_WINDOW_PX
from c2gm.runtime.levels import LEVELS, SPANS, prompt_keys, scale_prompt
from c2gm.runtime.manifest import EMBEDDINGS_NAME, write_manifest

Progress = Callable[[str], None]
"""Takes one line of progress."""

RANDOM_WEIGHTS = Provenance(
    weights="random, untrained",
    licence="Apache-2.0",
    attribution="",
    training_data=(),
    c2gm_version=version("c2gm"),
)


def export_bundle(
    model: SGDM,
    output: Path,
    precision: Precision = "fp32",
    *,
    provenance: Provenance = RANDOM_WEIGHTS,
    plan: CheckPlan | None = None,
    overwrite: bool = False,
    progress: Progress = lambda line: None,
) -> Path:
    """Export `model` as the bundle folder `output` (NAME.c2gm) and return its path.

    `plan` says how much is compared with torch, and its `steps` are the bundle's default steps.
    All or nothing, see `new_bundle`. Raises ParityError if a graph does not compute what the model
    does, OutputError if `output` exists or cannot be written.
    """
    plan = CheckPlan() if plan is None else plan
    with new_bundle(output, overwrite) as folder:
        _write_bundle(model, folder, precision, provenance, plan, progress)
    return output


@contextmanager
def new_bundle(output: Path, overwrite: bool) -> Iterator[Path]:
    """An empty folder to write a bundle into, which is moved to `output` at the end.

    It lies beside `output`, so that on any error nothing is left and an existing bundle stays.
    Raises OutputError if `output` exists or cannot be written.
    """
    check_output(output, overwrite)
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
            folder = Path(scratch) / output.name
            folder.mkdir()
            yield folder
            Bundle.read(folder)
            _move(folder, output, Path(scratch) / "replaced")


def check_output(output: Path, overwrite: bool) -> None:
    """Raise OptionError or OutputError where `output` cannot be the place of a new bundle."""
    if output.suffix != SUFFIX:
        raise OptionError(f"--output is {output}, expected a name that ends in {SUFFIX}")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists; add --overwrite or choose another --output")
    if output.exists() and not (output.is_dir() and (output / "manifest.json").is_file()):
        raise OutputError(f"{output} exists and is not a bundle; choose another --output")


def _write_bundle(
    model: SGDM,
    folder: Path,
    precision: Precision,
    provenance: Provenance,
    plan: CheckPlan,
    progress: Progress,
) -> None:
    config = model.config
    gflop = count_flops(config)
    progress("torch model: running the cases to compare with")
    parity = Parity(reference_cases(model, plan), precision, config.schedule, plan)
    graphs: dict[str, GraphSpec] = {}
    for name in GRAPHS:
        progress(f"{name}: exporting")
        graph = GRAPH_CLASSES[name](model, precision)
        files = export_onnx(graph, folder)
        progress(f"{name}: comparing with torch")
        if precision == "fp16":
            parity.check_torch(graph)
        graph.release()
        parity.check_onnx(graph, files[0])
        specs = tuple(file_spec(folder, file.name) for file in files)
        graphs[name] = GraphSpec(specs, graph.inputs, graph.outputs, round(gflop[name], 4))
    _write_embeddings(model, folder)
    report = json.dumps(parity.report(), indent=1) + "\n"
    (folder / PARITY_NAME).write_text(report, encoding="utf-8")
    write_manifest(
        folder,
        Manifest(
            format_version=FORMAT_VERSION,
            name=folder.name.removesuffix(SUFFIX),
            preset=config.name,
            precision=precision,
            latent_channels=config.autoencoder.latent_channels,
            latent_factor=LATENT_FACTOR,
            scaling_factor=config.autoencoder.scaling_factor,
            schedule=config.schedule,
            trained_levels=tuple(LEVELS),
            cascade_spans=SPANS,
            default_steps=plan.steps,
            early_stop={},
            graphs=graphs,
            window_sides=(DEFAULT_WINDOW_PX,),
            guide_from=GUIDE_FROM if config.name == "nano" else min(LEVELS),
            files=tuple(file_spec(folder, file) for file in (EMBEDDINGS_NAME, PARITY_NAME)),
            provenance=provenance,
        ),
    )


def _write_embeddings(model: SGDM, folder: Path) -> None:
    """The table of all scale prompts, computed in float32 whatever the bundle's precision."""
    keys = list(prompt_keys())
    states, pooled = model.encode_prompts([scale_prompt(*key) for key in keys])
    index = {prompt_name(*key): row for row, key in enumerate(keys)}
    write_embeddings(folder, ScaleEmbeddings(index, states.numpy(), pooled.numpy()))


def _move(folder: Path, output: Path, aside: Path) -> None:
    """Put `folder` in the place of `output`; what was there goes only once that has worked."""
    if not output.exists():
        folder.rename(output)
        return
    output.rename(aside)
    try:
        folder.rename(output)
    except OSError:
        aside.rename(output)
        raise
    with suppress(OSError):
        shutil.rmtree(aside)
