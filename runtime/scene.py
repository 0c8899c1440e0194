"""A raster of any kind -> imagery of any window of any level, with its validity."""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from c2gm.runtime.footprint import Box, Footprint
from c2gm.runtime.pixels import Picture


class Scene:
    """Imagery opened by `Scene.open`; a context manager. Reads take an internal lock.

    `bounds` degrees; `native_level` the level whose pixels are nearest to the data's own;
    `footprints` where valid data is, coarsely, for `grid.plan`.
    """

    path: Path
    bounds: Box
    native_level: int
    footprints: tuple[Footprint, ...]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open and survey a scene. Raises SceneError."""
        raise NotImplementedError

    def read(self, level: int, left: int, top: int, width: int, height: int) -> Picture:
        """RGBA picture (height, width, 4) of a box in level pixels; outside the data alpha is 0.

        Raises SceneError where the file is damaged.
        """
        raise NotImplementedError

    def check_levels(self, levels: Iterable[int]) -> str | None:
        """A warning for levels finer than the data; LevelError beyond three levels finer."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """SHA-256 over the scene's files."""
        raise NotImplementedError

    def close(self) -> None:
        """Close all datasets."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class ReferenceMap(Scene):
    """An existing base map (raster or MBTiles): same reading, ReferenceMapError for errors."""
