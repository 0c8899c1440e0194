"""Our calls of TensorRT and CUDA have as many arguments as the real bindings' functions take.

The bindings import without a GPU, and their docstrings begin with the signatures. (Names in other
versions of the bindings: gpu_api.py.)
"""

import ast
import re
from collections.abc import Iterator
from types import ModuleType

import cuda.bindings.runtime
import pytest
import tensorrt_rtx
from gpu_api import CUDA_OBJECTS, ROOT, SOURCES, TENSORRT_OBJECTS


def calls(objects: set[str]) -> Iterator[tuple[str, str, int]]:
    """Source, name and number of arguments of every call of a method of such objects."""
    for source in SOURCES:
        for node in ast.walk(ast.parse((ROOT / source).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if ast.unparse(node.func.value) in objects:
                    assert not node.keywords, "positional arguments are the same in all versions"
                    yield source, node.func.attr, len(node.args)


def arities(text: str, name: str) -> set[int]:
    """Numbers of arguments of the signatures of a function in a docstring, `self` not counted."""
    found: set[int] = set()
    for signature in re.findall(rf"(?m)^(?:\d+\. )?\s*{name}\((.*)\)(?: ->.*)?$", text):
        if signature.startswith("*args"):
            continue
        depth, parts = 0, [""]
        for letter in signature:
            depth += (letter in "[(<") - (letter in "])>")
            if letter == "," and depth == 0:
                parts.append("")
            else:
                parts[-1] += letter
        parts = [p.strip() for p in parts if p.strip() and not p.strip().startswith("self")]
        needed = sum("=" not in part for part in parts)
        found |= set(range(needed, len(parts) + 1))
    return found


def tensorrt_arities(name: str) -> set[int]:
    """Of all classes' methods of this name, and of classes and enumerations called by it."""
    found: set[int] = set()
    for owner in vars(tensorrt_rtx).values():
        if isinstance(owner, type) and name in vars(owner):
            found |= arities(vars(owner)[name].__doc__ or "", name)
    whole = getattr(tensorrt_rtx, name, None)
    if isinstance(whole, type):
        found |= arities(whole.__init__.__doc__ or "", "__init__")
    return found


@pytest.mark.parametrize(
    ("objects", "module"),
    [(TENSORRT_OBJECTS, tensorrt_rtx), (CUDA_OBJECTS, cuda.bindings.runtime)],
)
def test_calls_have_the_arguments_that_the_bindings_take(
    objects: set[str], module: ModuleType
) -> None:
    checked = set()
    for source, name, count in calls(objects):
        if module is tensorrt_rtx:
            taken = tensorrt_arities(name)
        else:
            taken = arities(getattr(module, name).__doc__ or "", name)
        assert taken, f"{source}: the bindings show no signature of {name}"
        assert count in taken, f"{source}: {name} has {count} arguments, the bindings take {taken}"
        checked.add(name)
    assert len(checked) > 12
