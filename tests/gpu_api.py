"""Every TensorRT and CUDA name that c2gm uses exists in the real bindings: python tests/gpu_api.py

The bindings are small packages that pip downloads; their libraries, and a GPU, are not needed to
look names up in them. Names are found by reading our own sources, so that none can be forgotten.
"""

import ast
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = (
    "export/tensorrt.py",
    "runtime/backends/cuda_device.py",
    "runtime/backends/cuda_driver.py",
    "runtime/backends/tensorrt.py",
    "runtime/backends/tensorrt_library.py",
    "tests/test_gpu.py",
)

TENSORRT_OBJECTS = {
    *("trt", "library", "builder", "network", "parser", "config", "profile", "context", "engine"),
    *("self._runtime", "prepared.context", "self._library"),
    *("trt.ProfilingVerbosity", "trt.BuilderFlag", "trt.ComputeCapability", "trt.ILogger"),
    *("trt.NetworkDefinitionCreationFlag", "trt.ExecutionContextAllocationStrategy"),
    *("eager", "library.ILogger"),
}
CUDA_OBJECTS = {
    *("cuda", "cudart", "self._cuda", "properties"),
    *("self._cuda.cudaMemcpyKind", "cuda.cudaStreamCaptureMode"),
}
"""What stands for an object of a library in our sources."""

RTX_ONLY = {
    *("num_compute_capabilities", "set_compute_capability", "ComputeCapability"),
    *("REQUIRE_USER_ALLOCATION", "is_stream_capturable", "EAGER", "create_runtime_config"),
    *("DynamicShapesKernelSpecializationStrategy", "set_execution_context_allocation_strategy"),
    "dynamic_shapes_kernel_specialization_strategy",
}
"""Used for `tensorrt-rtx` alone, or where it exists."""

GUARDED = {"STRONGLY_TYPED"}
"""Asked for with getattr: TensorRT 10 has it, later ones know nothing else."""

PACKAGES = {
    "tensorrt-cu12-bindings==10.16.1.11": TENSORRT_OBJECTS,
    "tensorrt-cu13-bindings==11.4.0.106": TENSORRT_OBJECTS,
    "tensorrt-rtx-cu13-bindings==1.7.1.116": TENSORRT_OBJECTS,
    "cuda-bindings==13.5.0": CUDA_OBJECTS,
    "cuda-bindings==12.9.10": CUDA_OBJECTS,
}


def used(objects: set[str]) -> set[str]:
    """Names that our sources ask such objects for."""
    names: set[str] = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse((ROOT / source).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in objects:
                names.add(node.attr)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
                owner, name = node.args[0], node.args[1]
                if ast.unparse(owner) in objects and isinstance(name, ast.Constant):
                    names.add(str(name.value))
    return names


def offered(package: str, folder: Path) -> set[str]:
    """All names in a package: of its Python sources, and in its compiled modules."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary"]
    subprocess.run([*command, ":all:", "--dest", str(folder), package], check=True)
    names: set[str] = set()
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.endswith((".so", ".pyd", ".py", ".pyi", ".pxd", ".pyx")):
                    text = archive.read(member)
                    names |= {found.decode() for found in re.findall(rb"[A-Za-z_]\w+", text)}
    return names


def main() -> int:
    """Compare, and say what is missing where."""
    missing = 0
    for package, objects in PACKAGES.items():
        names = used(objects)
        assert len(names) > 15, "our sources are not read as they should be"
        if "rtx" not in package:
            names -= RTX_ONLY
        with tempfile.TemporaryDirectory() as folder:
            lost = sorted(names - GUARDED - offered(package, Path(folder)))
        print(f"{package}: {len(names)} names used, missing: {', '.join(lost) or 'none'}")
        missing += len(lost)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
