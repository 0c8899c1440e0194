"""Slots: which window sits in which row of the batch (pure, no pixels).

A batch is a fixed number of rows. A window is admitted to a free row, keeps its own step counter
there, and leaves when it is finished, so that windows of any progress run side by side.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

BUCKETS: tuple[int, ...] = (1, 2, 4, 8, 16)
"""Batch sizes that a backend is run at; a graph on a GPU is built for exactly these."""

GPU_WINDOWS = 4
"""Windows at a time on a GPU where the user does not say."""


@dataclass(slots=True)
class Slot(Generic[T]):
    """An occupied row: what sits in it, steps done, and steps in a row that changed little."""

    row: int
    item: T
    steps_done: int = 0
    calm_steps: int = 0


def bucket_of(rows: int, buckets: Sequence[int] = BUCKETS) -> int:
    """The smallest bucket that holds so many rows. Raises ValueError where none does."""
    for bucket in sorted(buckets):
        if rows <= bucket:
            return bucket
    raise ValueError(f"{rows} rows, expected at most {max(buckets)}")


def gpu_rows(windows: int | None) -> int:
    """Rows of a GPU's loop for so many windows at a time; None: a number that fits most cards.

    Always all of them are run, however many are in use: a row's bits must not depend on that.
    """
    return bucket_of(GPU_WINDOWS if windows is None else windows)


class Slots(Generic[T]):
    """The rows of one batch; items are admitted to the lowest free row."""

    def __init__(self, capacity: int) -> None:
        """Raises ValueError for a capacity below 1."""
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}, expected at least 1")
        self.capacity = capacity
        self._rows: list[Slot[T] | None] = [None] * capacity

    def __len__(self) -> int:
        return sum(slot is not None for slot in self._rows)

    def __iter__(self) -> Iterator[Slot[T]]:
        """Occupied slots in row order."""
        return iter([slot for slot in self._rows if slot is not None])

    @property
    def free(self) -> int:
        """Number of free rows."""
        return self.capacity - len(self)

    def admit(self, item: T) -> Slot[T]:
        """Give an item the lowest free row. Raises ValueError if there is none."""
        for row, slot in enumerate(self._rows):
            if slot is None:
                self._rows[row] = admitted = Slot(row, item)
                return admitted
        raise ValueError(f"all {self.capacity} rows are in use")

    def retire(self, row: int) -> T:
        """Free a row and give back its item. Raises ValueError if it is free already."""
        slot = self._rows[row]
        if slot is None:
            raise ValueError(f"row {row} is free")
        self._rows[row] = None
        return slot.item
