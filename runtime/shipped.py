"""The bundles that come with the package, by name, and which of them a run gets by default."""

from importlib.resources import files
from pathlib import Path

from c2gm.runtime.backends import on_gpu
from c2gm.runtime.errors import BundleError

CPU_MODEL, GPU_MODEL = "nano-int8", "nano"
"""Of the same weights; INT8 is for CPUs, and nearly twice as fast there."""


def shipped_bundles() -> dict[str, Path]:
    """Folders of the bundles in the package, by name."""
    assets = Path(str(files("c2gm.runtime").joinpath("assets")))
    return {path.stem: path for path in sorted(assets.glob("*.c2gm"))}


def find_bundle(model: Path | None, backend: str) -> Path:
    """The folder that `--model` means: itself, a shipped bundle's name, or the backend's default.

    Raises BundleError where there is no such thing.
    """
    shipped = shipped_bundles()
    if model is not None:
        if model.exists():
            return model
        if str(model) in shipped:
            return shipped[str(model)]
        raise BundleError(
            f"{model} does not exist and is not the name of a shipped model; give a bundle's folder"
            f", or one of {', '.join(shipped)}"
        )
    name = GPU_MODEL if on_gpu(backend) else CPU_MODEL
    if name not in shipped:
        raise BundleError(
            f"the package lacks its model {name}, it has {', '.join(shipped) or 'none'}; install "
            "c2gm again, or give --model"
        )
    return shipped[name]
