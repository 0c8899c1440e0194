"""A bundle folder, read and verified.

Bundles are data: files are named in the manifest with their size and SHA-256, may not leave the
folder, and are checked before use.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from c2gm.runtime.contract import FileSpec, GraphName, GraphSpec, Manifest, prompt_name
from c2gm.runtime.errors import BundleError
from c2gm.runtime.levels import prompt_keys
from c2gm.runtime.manifest import EMBEDDINGS_NAME, MANIFEST_NAME, read_manifest
from c2gm.runtime.npz import read_arrays
from c2gm.runtime.onnx_files import external_files

EMBEDDINGS_LIMIT_BYTES = 256 << 20
"""Unpacked; those of the full model take 9 MB."""


@dataclass(frozen=True, slots=True)
class ScaleEmbeddings:
    """Embeddings of all scale prompts: states (n, tokens, width), pooled (n, width), float32."""

    index: Mapping[str, int]
    states: NDArray[np.float32]
    pooled: NDArray[np.float32]

    def row(self, level: int, span: int | None) -> int:
        """Row of a prompt. Raises BundleError where the model was not trained on it."""
        try:
            return self.index[prompt_name(level, span)]
        except KeyError:
            raise BundleError(
                f"the bundle has no scale prompt {prompt_name(level, span)!r}; it has "
                f"{', '.join(self.index)}; choose levels and cascade among these"
            ) from None


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle on disk."""

    folder: Path
    manifest: Manifest
    embeddings: ScaleEmbeddings = field(repr=False)

    def graph_path(self, graph: GraphName) -> Path:
        """Path of a graph's ONNX file."""
        return self.folder / self.manifest.graphs[graph].files[0].name

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the manifest, which names every file by hash: it stands for the weights."""
        return file_sha256(self.folder / MANIFEST_NAME)

    @classmethod
    def read(cls, folder: Path) -> "Bundle":
        """Read and verify a bundle: schema, sizes, hashes, embeddings.

        Raises BundleError with what is wrong; nothing of an unverified file is interpreted.
        """
        manifest = read_manifest(folder)
        listed = [f for graph in manifest.graphs.values() for f in graph.files]
        for spec in (*listed, *manifest.files):
            _verify_file(folder, spec)
        for graph in manifest.graphs.values():
            _verify_external(folder, graph)
        embeddings = _read_embeddings(folder)
        given = {"states": embeddings.states.shape[1:], "pooled": embeddings.pooled.shape[1:]}
        for tensor in manifest.graphs["denoise"].inputs:
            if tensor.name in given and tensor.shape[1:] != given[tensor.name]:
                raise BundleError(
                    f"{folder / EMBEDDINGS_NAME}: {tensor.name} are {given[tensor.name]} a prompt, "
                    f"the denoise graph takes {tensor.shape[1:]}; export the bundle again"
                )
        return cls(folder, manifest, embeddings)


def write_embeddings(folder: Path, embeddings: ScaleEmbeddings) -> None:
    """Write the embeddings table (plain arrays, no pickle)."""
    np.savez(
        folder / EMBEDDINGS_NAME,
        prompts=np.array(list(embeddings.index), dtype=np.str_),
        states=embeddings.states,
        pooled=embeddings.pooled,
    )


def file_spec(folder: Path, name: str) -> FileSpec:
    """Describe a file of a bundle folder by size and hash."""
    path = folder / name
    return FileSpec(name, path.stat().st_size, file_sha256(path))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify_file(folder: Path, spec: FileSpec) -> None:
    if Path(spec.name).name != spec.name or spec.name in ("", ".", ".."):
        raise BundleError(f"{folder}: file name {spec.name!r} leaves the bundle; don't use it")
    path = folder / spec.name
    if os.path.islink(path) or not os.path.isfile(path):  # never raise, whatever the name
        raise BundleError(f"{path} is missing from the bundle; copy or export it again")
    size = path.stat().st_size
    if size != spec.bytes:
        raise BundleError(
            f"{path} has {size} bytes, the manifest says {spec.bytes}; copy or export it again"
        )
    if file_sha256(path) != spec.sha256:
        raise BundleError(f"{path} does not match its SHA-256; copy or export the bundle again")


def _verify_external(folder: Path, graph: GraphSpec) -> None:
    """Refuse a graph that would read files which the manifest does not list with it."""
    path = folder / graph.files[0].name
    try:
        wanted = external_files(path)
    except ValueError as error:
        raise BundleError(
            f"{path} is not an ONNX file ({error}); export the bundle again"
        ) from None
    foreign = sorted(wanted - {file.name for file in graph.files[1:]})
    if foreign:
        raise BundleError(
            f"{path} takes weights from {foreign[0]!r}, which is not a file that the bundle lists "
            "with this graph; don't use it"
        )


def _read_embeddings(folder: Path) -> ScaleEmbeddings:
    path = folder / EMBEDDINGS_NAME
    try:
        prompts, states, pooled = read_arrays(
            path, ("prompts", "states", "pooled"), EMBEDDINGS_LIMIT_BYTES
        )
        states, pooled = states.astype(np.float32), pooled.astype(np.float32)
    except (OSError, EOFError, ValueError, TypeError, KeyError, BadZipFile) as error:
        raise BundleError(f"{path} cannot be read ({error}); export the bundle again") from None
    if states.ndim != 3 or pooled.shape != states.shape[::2] or prompts.shape != states.shape[:1]:
        raise BundleError(
            f"{path} has shapes {prompts.shape}, {states.shape}, {pooled.shape}, expected (n,), "
            "(n, tokens, width), (n, width); export the bundle again"
        )
    index = {str(name): row for row, name in enumerate(prompts)}
    unknown = set(index) - {prompt_name(*key) for key in prompt_keys()}
    if unknown:
        raise BundleError(f"{path} has unknown scale prompts {sorted(unknown)}; export it again")
    if len(index) != len(prompts) or not (np.isfinite(states).all() and np.isfinite(pooled).all()):
        raise BundleError(f"{path} repeats a scale prompt or holds NaN; export the bundle again")
    return ScaleEmbeddings(index, states, pooled)
