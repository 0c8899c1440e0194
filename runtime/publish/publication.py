"""From a finished map to all its outputs, or to none: staged in a folder, then given their names.

Everything is written into `NAME.publishing/`. When all of it is there and on the disk, `JOURNAL`
in that folder lists what is to be moved; then each output is renamed to its place. A crash before
the journal leaves nothing but that folder, which the next run empties; after it, the same command
moves the rest. An SQLite lock, which no crash leaves behind, keeps a second publication out.
"""

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict, cast

from c2gm.runtime.archive import check_output, sync
from c2gm.runtime.errors import OutputError
from c2gm.runtime.mbtiles import translated
from c2gm.runtime.publish.cog import cog_names, write_cog
from c2gm.runtime.publish.facts import facts_of
from c2gm.runtime.publish.mbtiles import write_mbtiles
from c2gm.runtime.publish.options import PublishOptions
from c2gm.runtime.publish.pmtiles import write_pmtiles
from c2gm.runtime.publish.qgis import layers_of, write_qlr
from c2gm.runtime.publish.source import FinishedMap
from c2gm.runtime.publish.tileset import TileSet
from c2gm.runtime.publish.xyz import check_replaceable, write_xyz

JOURNAL, _LOCK, _REPLACED = "journal.json", "lock", "replaced"


class Journal(TypedDict):
    """What a publication will have done when it is complete."""

    identity: str
    outputs: list[str]


class Publication:
    """The outputs of one map beside each other, all named after `base`, a path without ending.

    `with_archive`: the MBTiles file is the run's own, and not written here.
    """

    def __init__(self, base: Path, options: PublishOptions, with_archive: bool, overwrite: bool):
        self.base = base
        self.options = options
        self._with_archive = with_archive
        self._overwrite = overwrite
        self.staging = _beside(base, ".publishing")

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write but the run's own file."""
        return self._with_archive and self.options.formats == ("mbtiles",) and not self.options.qgis

    def check(self, levels: Sequence[int]) -> None:
        """Refuse early what would be refused at the end. Raises OutputError.

        Outputs that the journal of a stopped publication names are its own.
        """
        known = self._journal()
        begun = set() if known is None else set(known["outputs"])
        for name in self._possible(levels):
            if name not in begun:
                self._check_name(name)

    @property
    def moving(self) -> frozenset[str]:
        """Names that a stopped publication had begun to give to its outputs."""
        known = self._journal()
        return frozenset() if known is None else frozenset(known["outputs"])

    def publish(self, source: FinishedMap, note: Callable[[str], None]) -> tuple[Path, ...]:
        """Write all outputs, or go on giving them their names; returns where they are.

        Raises OutputError, DiskFullError; then no output has its name that had not before.
        """
        with translated(self.staging), self._locked():
            identity = self._identity(source)
            known = self._journal()
            if known is None or known["identity"] != identity or self._to_be_replaced(known):
                self._clear()
                outputs = self._stage(source, note)
                for name in outputs:
                    self._check_name(name)
                self._write_journal(identity, outputs)
            else:
                outputs = known["outputs"]
                note(f"going on with {self.staging}, in which all outputs are ready")
            for name in outputs:
                self._move(name)
            if os.name == "posix":
                sync(self.base.parent)
        return tuple(self.base.parent / name for name in outputs)

    def clean(self) -> None:
        """Forget the staging folder: everything has its name."""
        with translated(self.staging):
            shutil.rmtree(self.staging, ignore_errors=True)

    def _names(self) -> dict[str, str]:
        stem = self.base.name
        rows = "tms" if self.options.tms else "xyz"
        return {
            "mbtiles": f"{stem}.mbtiles",
            "pmtiles": f"{stem}.pmtiles",
            "xyz": f"{stem}_{rows}",
            "qgis": f"{stem}.qlr",
        }

    def _possible(self, levels: Sequence[int]) -> Iterator[str]:
        names = self._names()
        for kind in self.options.formats:
            if kind == "cog":
                yield from cog_names(self.base.name, levels)
            elif kind != "mbtiles" or not self._with_archive:
                yield names[kind]
        if self.options.qgis:
            yield names["qgis"]

    def _stage(self, source: FinishedMap, note: Callable[[str], None]) -> list[str]:
        tiles = TileSet(source, self.options)
        facts = facts_of(source, tiles.levels, self.options)
        names, outputs = self._names(), []
        cogs: list[tuple[int, str]] = []
        for kind in self.options.formats:
            if kind == "mbtiles" and self._with_archive:
                continue
            note(f"publishing {kind}: {self.base.name}")
            if kind == "cog":
                cogs = write_cog(self.staging, self.base.name, source, facts)
                outputs += [name for _, name in cogs]
                continue
            write = {"mbtiles": write_mbtiles, "pmtiles": write_pmtiles, "xyz": write_xyz}[kind]
            write(self.staging / names[kind], tiles, facts)
            outputs.append(names[kind])
        if self.options.qgis:
            shown = [*outputs, *([names["mbtiles"]] if self._with_archive else [])]
            layers = layers_of(facts, shown, names["xyz"], cogs)
            write_qlr(self.staging / names["qgis"], layers, facts)
            outputs.append(names["qgis"])
        for name in outputs:
            if (self.staging / name).is_file():
                sync(self.staging / name)
        return outputs

    def _to_be_replaced(self, known: Journal) -> bool:
        """Whether all outputs of a journal have their names, and are to be made anew."""
        return self._overwrite and not any((self.staging / n).exists() for n in known["outputs"])

    def _identity(self, source: FinishedMap) -> str:
        """What the outputs depend on: the map's tiles and the options."""
        what = json.dumps([source.seal, asdict(self.options), self.base.name], sort_keys=True)
        return hashlib.sha256(what.encode()).hexdigest()

    def _journal(self) -> Journal | None:
        try:
            found = json.loads((self.staging / JOURNAL).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        whole = isinstance(found, dict) and {"identity", "outputs"} <= set(found)
        return cast(Journal, found) if whole else None

    def _write_journal(self, identity: str, outputs: list[str]) -> None:
        path = self.staging / JOURNAL
        begun = path.with_suffix(".begun")
        begun.write_text(json.dumps({"identity": identity, "outputs": outputs}), encoding="utf-8")
        sync(begun)
        os.replace(begun, path)
        if os.name == "posix":
            sync(self.staging)

    def _check_name(self, name: str) -> None:
        path = self.base.parent / name
        if path.is_dir() and name == self._names()["xyz"]:
            if not self._overwrite:
                raise OutputError(
                    f"{path} exists; give another --output, or --overwrite to replace it"
                )
            check_replaceable(path)
        else:
            check_output(path, self._overwrite)

    def _move(self, name: str) -> None:
        """Give an output its name, unless a stopped publication did."""
        staged, path = self.staging / name, self.base.parent / name
        if not staged.exists():
            if not path.exists():
                raise OutputError(
                    f"{path} is gone since it was published; delete {self.staging} and run the "
                    "same command again"
                )
            return
        if path.is_dir():  # a folder cannot be replaced in one step
            replaced = self.staging / _REPLACED
            shutil.rmtree(replaced, ignore_errors=True)
            os.replace(path, replaced)
        os.replace(staged, path)

    def _clear(self) -> None:
        for path in self.staging.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif not path.name.startswith(_LOCK):
                path.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.staging.mkdir(exist_ok=True)
        lock = sqlite3.connect(self.staging / _LOCK, timeout=0, isolation_level=None)
        try:
            lock.execute("BEGIN EXCLUSIVE")
            yield
        finally:
            lock.close()


def _beside(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)
