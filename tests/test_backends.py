"""Which backend a run gets: what was asked for or one clear line, and never another in silence."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from c2gm.runtime import backends
from c2gm.runtime.backends import open_backend
from c2gm.runtime.backends.onnxruntime import OnnxRuntimeBackend
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.errors import BackendError

NO_GPU = os.environ | {"CUDA_VISIBLE_DEVICES": ""}


def infer(scene: Path, model: Path, folder: Path, backend: str, before: str = "") -> list[str]:
    """The lines on stderr of `c2gm-infer`, which must end with exit code 7 and write nothing."""
    output = folder / "never.mbtiles"
    call = f"from c2gm.runtime.cli import main; {before}; main()"
    options = ("--imagery", scene, "--levels", "14", "--model", model, "--output", output)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {call}", *options, "--backend", backend],
        capture_output=True,
        text=True,
        env=NO_GPU,
    )
    assert done.returncode == 7, done.stderr
    assert not list(folder.iterdir())
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("backend", "before", "reason"),
    [
        ("tensorrt-rtx", "", "no usable CUDA driver|no CUDA device"),
        ("tensorrt-rtx", "sys.modules['tensorrt_rtx'] = None", "needs the package tensorrt_rtx"),
        ("tensorrt-rtx", "sys.modules['cuda.bindings.runtime'] = None", "needs cuda-bindings"),
        ("tensorrt", "sys.modules['tensorrt'] = None", "needs the package tensorrt, which is not"),
        ("cuda", "", "needs onnxruntime-gpu"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    tiny_bundle: Path, small_scene: Path, tmp_path: Path, backend: str, before: str, reason: str
) -> None:
    lines = infer(small_scene, tiny_bundle, tmp_path, backend, before or "pass")
    assert len(lines) == 1 and lines[0].startswith("c2gm-infer: error: ")
    assert any(part in lines[0] for part in reason.split("|")), lines


def refuse(reason: str) -> Callable[[Bundle], OnnxRuntimeBackend]:
    def opener(bundle: Bundle) -> OnnxRuntimeBackend:
        raise BackendError(f"{reason}; do this or that")

    return opener


def test_auto_takes_the_first_that_can_run_and_says_why_not_the_others(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.read(tiny_bundle)
    openers = dict(backends.BACKENDS) | {"cuda": refuse("no card")}
    monkeypatch.setattr(backends, "BACKENDS", openers)
    opened = open_backend("auto", bundle, 4, 256)
    assert opened.backend.name == "onnxruntime"
    assert opened.passed_over == ("not TensorRT: the model has no engines", "not cuda: no card")
    openers["cuda"] = OnnxRuntimeBackend.cpu
    assert open_backend("auto", bundle, 4, 256).passed_over == opened.passed_over[:1]
    with pytest.raises(BackendError, match="choose one of auto, tensorrt-rtx, tensorrt, cuda"):
        open_backend("tpu", bundle, 4, 256)


def test_with_engines_auto_tries_tensorrt(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.c2gm"
    copy.symlink_to(tiny_bundle)
    bundle = Bundle.read(copy)
    monkeypatch.setattr(backends, "FOLDER", ".")
    openers = {name: refuse(f"no {name} here") for name in backends.BACKENDS}
    openers["onnxruntime"] = OnnxRuntimeBackend.cpu
    monkeypatch.setattr(backends, "BACKENDS", openers)
    assert open_backend("auto", bundle, 1, 256).passed_over == (
        "not tensorrt-rtx: no tensorrt-rtx here",
        "not tensorrt: no tensorrt here",
        "not cuda: no cuda here",
    )
