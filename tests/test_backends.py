"""Which backend a run gets: what was asked for or one clear line, and never another in silence."""

import os
import subprocess
import sys
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace

import pytest

from c2gm.runtime import backends
from c2gm.runtime.backends import cuda_device, onnxruntime, open_backend
from c2gm.runtime.backends.onnxruntime import OnnxRuntimeBackend
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.errors import BackendError, OptionError

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
    with pytest.raises(OptionError, match="choose one of auto, tensorrt-rtx, tensorrt, cuda"):
        open_backend("tpu", bundle, 4, 256)


def test_with_engines_auto_tries_tensorrt(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.c2gm"
    copy.symlink_to(tiny_bundle)
    bundle = Bundle.read(copy)
    monkeypatch.setattr(backends, "has_engines", lambda bundle: True)
    openers = {name: refuse(f"no {name} here") for name in backends.BACKENDS}
    openers["onnxruntime"] = OnnxRuntimeBackend.cpu
    monkeypatch.setattr(backends, "BACKENDS", openers)
    assert open_backend("auto", bundle, 1, 256).passed_over == (
        "not tensorrt-rtx: no tensorrt-rtx here",
        "not tensorrt: no tensorrt here",
        "not cuda: no cuda here",
    )


class Bindings:
    """What the CUDA bindings answer on a machine with a GPU, or with a fault."""

    def __init__(self, count: tuple[int, int], capability: tuple[int, int] = (8, 6)) -> None:
        self.count, self.capability = count, capability

    def cudaGetDeviceCount(self) -> tuple[object, int]:
        code, count = self.count
        names = {0: "cudaSuccess", 35: "cudaErrorInsufficientDriver", 100: "cudaErrorNoDevice"}
        return IntEnum("cudaError_t", {name: value for value, name in names.items()})(code), count

    def cudaGetDeviceProperties(self, device: int) -> tuple[int, object]:
        major, minor = self.capability
        return 0, SimpleNamespace(name=b"Card", major=major, minor=minor)

    def cudaSetDevice(self, device: int) -> tuple[int]:
        return (0,)

    def cudaMemGetInfo(self) -> tuple[int, int, int]:
        return 0, 10**9, 2 * 10**9


@pytest.mark.parametrize(
    ("bindings", "reason"),
    [
        (Bindings((35, 0)), "no usable CUDA driver: cudaErrorInsufficientDriver; .*, or else"),
        (Bindings((100, 0)), "no CUDA device was found; check nvidia-smi .*, or else"),
        (Bindings((0, 0)), "no CUDA device was found"),
        (Bindings((0, 1), (6, 1)), "Card has compute capability 6.1, at least 7.5 is needed"),
    ],
)
def test_every_way_to_have_no_gpu_has_a_line_of_its_own(
    bindings: Bindings, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_device, "cuda_runtime", lambda: bindings)
    with pytest.raises(BackendError, match=reason):
        cuda_device.first_device("or else")
    monkeypatch.setattr(cuda_device, "cuda_runtime", lambda: Bindings((0, 1)))
    card = cuda_device.CudaDevice("Card", "8.6", 2 * 10**9, 10**9)
    assert cuda_device.first_device("or else") == card


def test_onnxruntime_over_its_gpu_package_is_explained(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "_gpu_package_installed", lambda: True)
    with pytest.raises(BackendError, match="overwrites onnxruntime-gpu in their common folder"):
        OnnxRuntimeBackend.cuda(Bundle.read(tiny_bundle))
