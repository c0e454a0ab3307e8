"""Acknowledging the contiguous prefix of what is done out of order."""

from __future__ import annotations

import threading
from itertools import permutations
from queue import Queue
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrepl import AckInOrder
from pgrepl.errors import UsageError


class Item:
    """What a stream gave; equal to all others, as two transactions never are."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Item)

    __hash__ = None  # type: ignore[assignment]


class Recorder:
    """A stream that keeps what was acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []

    def ack(self, upto: Item) -> None:
        self.acknowledged.append(upto.number)


def taken(count: int) -> tuple[Recorder, AckInOrder[Item], list[Item]]:
    stream = Recorder()
    acks: AckInOrder[Item] = AckInOrder(stream)
    return stream, acks, [acks.take(Item(number)) for number in range(count)]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_the_longest_prefix_that_is_done(order: tuple[int, ...]) -> None:
    stream, acks, items = taken(4)
    done: set[int] = set()
    for number in order:
        acks.done(items[number])
        done.add(number)
        prefix = next((n for n in range(4) if n not in done), 4)
        assert (stream.acknowledged or [-1])[-1] == prefix - 1
        assert [item.number for item in acks.pending] == [n for n in range(4) if n not in done]
        assert len(acks) == 4 - len(done)
    # Each says all that is new at once, and nothing twice.
    assert stream.acknowledged == sorted(set(stream.acknowledged))


@given(st.lists(st.one_of(st.just(None), st.integers(0, 9)), max_size=60))
def test_taking_and_finishing_in_any_order(steps: list[int | None]) -> None:
    stream, acks, items = taken(0)
    pending: list[Item] = []
    for step in steps:
        if step is None:
            items.append(acks.take(Item(len(items))))
            pending.append(items[-1])
        elif pending:
            acks.done(pending.pop(step % len(pending)))
        first = pending[0].number if pending else len(items)
        assert (stream.acknowledged or [-1])[-1] == first - 1
        assert [item.number for item in acks.pending] == [item.number for item in pending]


def test_memory_is_for_what_is_under_way() -> None:
    stream, acks, _ = taken(0)
    slow = acks.take(Item(-1))
    for number in range(10_000):
        acks.done(acks.take(Item(number)))
    assert stream.acknowledged == []
    # One stands for all that are done behind the slow one.
    assert acks._front.after is acks._last and acks._last.run is not None
    assert acks._last.run.number == 9_999
    assert len(acks) == len(acks._under_way) == 1
    acks.done(slow)
    assert stream.acknowledged == [9_999]
    assert acks._front is acks._last and acks._front.after is None


def test_what_was_not_taken_cannot_be_done() -> None:
    stream, acks, [item] = taken(1)
    with pytest.raises(UsageError, match="that was taken and is not done yet"):
        acks.done(Item(0))
    with pytest.raises(UsageError, match="something new to be taken"):
        acks.take(item)
    acks.done(item)
    with pytest.raises(UsageError, match="that was taken and is not done yet"):
        acks.done(item)
    assert stream.acknowledged == [0]
    acks.take(item)
    assert repr(acks).startswith("<pgrepl.AckInOrder 1 pending, the first is <")


def test_an_error_of_the_stream_is_raised() -> None:
    class Ended:
        def ack(self, upto: Item) -> None:
            raise UsageError("expected a stream that is on")

    acks: AckInOrder[Item] = AckInOrder(Ended())
    first, second = acks.take(Item(0)), acks.take(Item(1))
    acks.done(second)
    with pytest.raises(UsageError, match="a stream that is on"):
        acks.done(first)


def test_many_threads() -> None:
    queue: Queue[Item | None] = Queue(maxsize=50)
    finished = [threading.Event() for _ in range(3000)]
    wrong: list[int] = []

    class Checking(Recorder):
        def ack(self, upto: Item) -> None:
            # Whatever is acknowledged was done before, and so was all before it.
            begin = self.acknowledged[-1] + 1 if self.acknowledged else 0
            wrong.extend(n for n in range(begin, upto.number + 1) if not finished[n].is_set())
            super().ack(upto)

    stream = Checking()
    acks: AckInOrder[Item] = AckInOrder(stream)

    def work(seed: int) -> None:
        draw = Random(seed)
        held: list[Item] = []
        while (item := queue.get()) is not None:
            held.append(item)
            draw.shuffle(held)
            while held and draw.random() < 0.6:
                done = held.pop()
                finished[done.number].set()
                acks.done(done)
        for done in held:
            finished[done.number].set()
            acks.done(done)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for number in range(len(finished)):
        queue.put(acks.take(Item(number)))
    for _ in workers:
        queue.put(None)
    for worker in workers:
        worker.join()
    assert wrong == []
    assert stream.acknowledged[-1] == len(finished) - 1
    assert stream.acknowledged == sorted(set(stream.acknowledged))
    assert acks.pending == [] and acks._front is acks._last
