"""If these fail, windows share a row, wait for ever, or run at a batch size that nobody built."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2gm.runtime.batching import BUCKETS, Slots, bucket_of


@given(
    capacity=st.integers(1, max(BUCKETS)),
    durations=st.lists(st.integers(1, 9), max_size=60),
)
def test_every_item_gets_a_row_in_turn_and_rows_are_never_shared(
    capacity: int, durations: list[int]
) -> None:
    slots: Slots[int] = Slots(capacity)
    waiting, admitted, left = list(range(len(durations))), [], []
    ticks = 0
    while waiting or len(slots):
        while waiting and slots.free:
            item = waiting.pop(0)
            admitted.append(slots.admit(item).item)
        occupied = list(slots)
        assert len({slot.row for slot in occupied}) == len(occupied) <= capacity
        assert not waiting or len(occupied) == capacity, "a free row while somebody waits"
        assert max(slot.row for slot in occupied) < slots.capacity
        for slot in occupied:
            slot.steps_done += 1
            if slot.steps_done == durations[slot.item]:
                left.append(slots.retire(slot.row))
        ticks += 1
    assert admitted == list(range(len(durations)))
    assert sorted(left) == admitted
    assert ticks <= sum(durations)


def test_misuse_is_an_error() -> None:
    slots: Slots[str] = Slots(1)
    slots.admit("a")
    with pytest.raises(ValueError, match="all 1 rows"):
        slots.admit("b")
    slots.retire(0)
    with pytest.raises(ValueError, match="row 0 is free"):
        slots.retire(0)
    with pytest.raises(ValueError, match="at least 1"):
        Slots(0)
    with pytest.raises(ValueError, match="at most 16"):
        bucket_of(17)
