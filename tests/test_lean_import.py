"""If this fails, the lean runtime needs a package that its users do not have."""

import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED or name.startswith(FOREIGN):
            raise ImportError(f"{name} is not part of the runtime")

BLOCKED = {"torch", "onnx", "diffusers", "open_clip", "onnxscript", "accelerate", "safetensors",
           "shapely", "pyogrio", "skia", "polygraphy", "dask", "distributed"}
FOREIGN = ("c2gm.model", "c2gm.export", "c2gm.benchmarks")
sys.meta_path.insert(0, Block())

import c2gm.runtime
names = [m.name for m in pkgutil.walk_packages(c2gm.runtime.__path__, "c2gm.runtime.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_every_runtime_module_imports_without_torch_onnx_and_diffusers() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20
