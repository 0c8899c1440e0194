"""A bundle that has seen real windows: INT8 ranges, and when sampling may stop early."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from c2gm.export.cases import CheckPlan
from c2gm.export.early_stop import calibrate_early_stop
from c2gm.export.output import PARITY_NAME
from c2gm.export.pack import export_bundle, new_bundle
from c2gm.export.quantize import QuantizePlan, quantize_bundle
from c2gm.model.sgdm import SGDM
from c2gm.runtime.bundle import Bundle, file_spec
from c2gm.runtime.contract import Precision, Provenance
from c2gm.runtime.manifest import write_manifest

WINDOWS = 96
"""Of training ground, on which early stopping is calibrated."""


def export_calibrated(
    model: SGDM,
    output: Path,
    precision: Precision,
    dataset: Path,
    *,
    provenance: Provenance,
    plan: CheckPlan,
    overwrite: bool,
    progress: Callable[[str], None],
    longer: Sequence[int] = (),
) -> Path:
    """Export `model` as the bundle `output`, calibrated on a dataset folder; all or nothing.

    `longer`: see `calibrate_early_stop`.
    Raises what `export_bundle` and `quantize_bundle` raise, DataError for an unusable dataset.
    """
    first: Literal["fp16", "fp32"] = "fp16" if precision == "fp16" else "fp32"
    with new_bundle(output, overwrite) as folder:
        plain = folder if precision != "int8" else folder.parent / "float32.c2gm"
        if plain == folder:
            folder.rmdir()
        export_bundle(model, plain, first, provenance=provenance, plan=plan, progress=progress)
        if precision == "int8":
            quantize_bundle(Bundle.read(plain), folder, QuantizePlan(dataset), progress)
        add_early_stop(folder, dataset, progress, longer)
    return output


def add_early_stop(
    folder: Path, dataset: Path, progress: Callable[[str], None], longer: Sequence[int] = ()
) -> None:
    """Calibrate a bundle's early stopping and write it into manifest and report.

    Where rules for a whole schedule of `longer` steps win, that becomes the default.
    """
    bundle = Bundle.read(folder)
    verdict = calibrate_early_stop(bundle, dataset, WINDOWS, progress, longer)
    report = folder / PARITY_NAME
    content = json.loads(report.read_text(encoding="utf-8")) | {"early_stop": dict(verdict.report)}
    report.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    manifest = bundle.manifest
    if verdict.steps is not None:
        whole = manifest.schedule.whole()
        manifest = replace(manifest, default_steps=verdict.steps, schedule=whole)
    files = tuple(file_spec(folder, spec.name) for spec in manifest.files)
    write_manifest(folder, replace(manifest, early_stop=verdict.rules, files=files))
