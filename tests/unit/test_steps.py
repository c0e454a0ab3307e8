"""Generators that make requests, driven to their ends: the same in both flavours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import pytest

from pgrepl.protocol.conversation import Steps


class Interrupt(BaseException):
    """As Ctrl-C is one."""


def sums(*numbers: int) -> Generator[int, int, int]:
    """Ask for the double of each number, and again where that fails."""
    total = 0
    for number in numbers:
        try:
            total += yield number
        except ValueError as error:
            assert error.__context__ is None
            total += yield -number
    return total


def blocking(steps: Steps[int, int], double: Callable[[int], int]) -> int:
    return steps.run(double)


def in_a_loop(steps: Steps[int, int], double: Callable[[int], int]) -> int:
    async def later(number: int) -> int:
        await asyncio.sleep(0)
        return double(number)

    return asyncio.run(steps.run_async(later))


@pytest.fixture(params=[blocking, in_a_loop])
def run(request: pytest.FixtureRequest) -> Callable[..., int]:
    drive: Callable[..., int] = request.param
    return drive


def test_answers(run: Callable[..., int]) -> None:
    assert run(Steps(sums(1, 2, 3)), lambda number: number * 2) == 12
    assert run(Steps(sums()), lambda _: pytest.fail("nothing was asked")) == 0


def test_errors_are_raised_where_the_answer_is_awaited(run: Callable[..., int]) -> None:
    def double(number: int) -> int:
        if number == 2:
            raise ValueError(number)
        return number * 2

    assert run(Steps(sums(1, 2, 3)), double) == 2 - 4 + 6


def test_errors_that_the_generator_does_not_want(run: Callable[..., int]) -> None:
    def double(_: int) -> int:
        raise KeyError

    steps = Steps(sums(1))
    with pytest.raises(KeyError):
        run(steps, double)
    assert steps.request is None


def test_what_comes_from_outside_leaves_the_request_standing(run: Callable[..., int]) -> None:
    """It can be gone on with."""
    interrupts = [Interrupt()]

    def double(number: int) -> int:
        if number == 2 and interrupts:
            raise interrupts.pop()
        return number * 2

    steps = Steps(sums(1, 2, 3))
    with pytest.raises(Interrupt):
        run(steps, double)
    assert steps.request == 2
    assert run(steps, double) == 12


def test_a_cancellation_is_no_answer() -> None:
    async def main() -> int:
        waits = asyncio.Event()

        async def never(_: int) -> Any:
            waits.set()
            await asyncio.Event().wait()

        async def double(number: int) -> int:
            return number * 2

        steps = Steps(sums(1, 2))
        task = asyncio.ensure_future(steps.run_async(never))
        await waits.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert steps.request == 1
        return await steps.run_async(double)

    assert asyncio.run(main()) == 6
