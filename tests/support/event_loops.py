"""Event loops for tests: of asyncio, and of uvloop where it is installed.

A test of the asynchronous flavour runs its coroutine by `asyncio.Runner`. One that was written for
the blocking flavour runs on the asynchronous one as well: `blocking_connect` gives a `connect`
whose connections have the methods of blocking ones, each of which lets the loop run until it is
done.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
from collections.abc import Callable, Coroutine, Iterator
from types import ModuleType
from typing import Any, Final, Self, TypeAlias

import pytest

import pgrepl.aio
from tests.support.inside import wire_of

LoopFactory: TypeAlias = Callable[[], asyncio.AbstractEventLoop]

#: Names of the loops, for `params` of a fixture.
LOOPS: Final = ("asyncio", "uvloop")

# libuv makes a pipe for the whole process with its first loop: not in the middle of a test that
# counts descriptors.
with contextlib.suppress(ImportError):
    importlib.import_module("uvloop").new_event_loop().close()


def loop_factory(name: str) -> LoopFactory:
    """What makes loops of that name; a skip where there are none."""
    if name == "asyncio":
        return asyncio.new_event_loop
    factory: LoopFactory = pytest.importorskip("uvloop").new_event_loop
    return factory


@contextlib.contextmanager
def running(name: str, patience: float) -> Iterator[Callable[[Any], Any]]:
    """A function that runs a coroutine in a loop of that name; no task may be left behind."""

    async def whole(coroutine: Any) -> Any:
        result = await asyncio.wait_for(coroutine, patience)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    with asyncio.Runner(loop_factory=loop_factory(name)) as runner:
        yield lambda coroutine: runner.run(whole(coroutine))


@contextlib.contextmanager
def blocking_connect(codec: ModuleType, loop: str) -> Iterator[Callable[..., Awaited]]:
    """`pgrepl.connect`, by `pgrepl.aio.connect` on that twin of the codec and loops of that name.

    The loops are closed at the end.
    """
    factory = loop_factory(loop)
    made: list[Awaited] = []

    def connect(*args: Any, **keywords: Any) -> Awaited:
        with contextlib.ExitStack() as stack:
            runner = stack.enter_context(asyncio.Runner(loop_factory=factory))
            connecting = pgrepl.aio.connect(*args, _codec=codec, **keywords)
            made.append(Awaited(runner, runner.run(connecting)))
            stack.pop_all()
        return made[-1]

    yield connect
    for connection in made:
        connection.release()


class Awaited:
    """An asynchronous connection that looks like a blocking one, with a loop of its own."""

    def __init__(self, runner: asyncio.Runner, connection: pgrepl.aio.AsyncConnection) -> None:
        self._runner = runner
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._connection, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute

        def call(*args: Any, **keywords: Any) -> Any:
            return self._runner.run(attribute(*args, **keywords))

        return call

    def base_backup(self, **options: Any) -> AwaitedBackup:
        """A base backup that looks like a blocking one."""
        return AwaitedBackup(self._runner, self._connection.base_backup(**options))

    @property
    def _wire(self) -> Any:
        return wire_of(self._connection)

    @property
    def asynchronous(self) -> pgrepl.aio.AsyncConnection:
        """The connection itself, for what is given one."""
        return self._connection

    def wait_for(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the connection's loop."""
        return self._runner.run(coroutine)

    def release(self) -> None:
        """Close the loop, and leave the connection as it is."""
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AwaitedBackup:
    """An asynchronous base backup that looks like a blocking one."""

    def __init__(self, runner: asyncio.Runner, backup: pgrepl.basebackup.AsyncBackup) -> None:
        self._runner = runner
        self._backup = backup

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> pgrepl.basebackup.BackupEvent:
        try:
            # A coroutine of its own, whose StopAsyncIteration a task can carry.
            return self._runner.run(self._backup.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._backup.__aexit__(None, None, None))
