"""The two flavours of the connection are one thing: the same names, parameters and annotations."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Coroutine

import pytest

import pgrepl
from pgrepl import aio
from pgrepl.errors import UsageError

#: What asyncio has under other names.
SPECIAL = {"__enter__": "__aenter__", "__exit__": "__aexit__"}

#: What is called without awaiting it, and what gives an object of its own flavour.
OF_ITS_OWN = {"base_backup", "stream", "stream_raw"}
AT_ONCE = {"fileno", *OF_ITS_OWN}

#: Without `connect`, which is a function of the module in the blocking flavour.
NAMES = [name for name in dir(aio.AsyncConnection) if name != "connect" and name[0] != "_"]


def parameters(function: object) -> list[inspect.Parameter]:
    assert callable(function)
    return list(inspect.signature(function).parameters.values())


@pytest.mark.parametrize("name", [name for name in NAMES if name not in AT_ONCE])
def test_methods_are_awaited_and_properties_are_not(name: str) -> None:
    attribute = inspect.getattr_static(aio.AsyncConnection, name)
    assert inspect.iscoroutinefunction(attribute) != isinstance(attribute, property)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_name_takes_and_gives_the_same(name: str) -> None:
    here = inspect.getattr_static(aio.AsyncConnection, name)
    there = inspect.getattr_static(pgrepl.Connection, name)
    assert type(here) is type(there)
    if isinstance(here, property):
        here, there = here.fget, there.fget
    assert parameters(here) == parameters(there)
    if name not in OF_ITS_OWN:
        assert inspect.signature(here) == inspect.signature(there)


def test_nothing_of_the_wire_is_missing() -> None:
    assert set(NAMES) >= {
        "query",
        "identify_system",
        "show",
        "timeline_history",
        "create_logical_slot",
        "create_physical_slot",
        "read_slot",
        "alter_slot",
        "drop_slot",
        "base_backup",
        "upload_manifest",
        "start_streaming",
        "start_physical",
        "receive_wal_message",
        "receive_wal_messages",
        "send_standby_status",
        "send_hot_standby_feedback",
        "stop_streaming",
        "stop_physical",
        "disconnect",
        "close",
        "closed",
        "parameters",
        "pid",
        "server_version",
    }
    for blocking, asynchronous in SPECIAL.items():
        assert hasattr(pgrepl.Connection, blocking)
        assert hasattr(aio.AsyncConnection, asynchronous)


def test_connect_takes_the_same() -> None:
    assert parameters(aio.connect) == parameters(pgrepl.connect)
    there = [each for each in parameters(pgrepl.connect) if not each.name.startswith("_")]
    here = parameters(aio.AsyncConnection.connect)
    assert [each for each in here if not each.name.startswith("_")] == there


def test_what_connect_gives_is_a_coroutine() -> None:
    """So that a task can be made of it, as of any other."""
    connecting = aio.connect(host="127.0.0.1", port=1, user="ann")
    assert isinstance(connecting, Coroutine)
    assert asyncio.iscoroutine(connecting)
    with pytest.raises(AttributeError, match="expected `async with` or `await` before 'query'"):
        connecting.query  # type: ignore[attr-defined]  # noqa: B018
    assert repr(connecting) == "<connect(...): await it, or enter it by async with>"
    with pytest.warns(RuntimeWarning, match="was never awaited"):
        del connecting
        gc.collect()

    async def main() -> None:
        task = asyncio.create_task(aio.connect(host="127.0.0.1", port=1, user="ann"))
        with pytest.raises(pgrepl.ConnectionFailed, match="could not connect to 127.0.0.1:1: "):
            await task
        with pytest.raises(pgrepl.ConnectionFailed, match="could not connect to 127.0.0.1:1: "):
            async with aio.connect(host="127.0.0.1", port=1, user="ann"):
                raise AssertionError("there is no server at port 1")

    asyncio.run(main())


def test_a_conninfo_that_makes_no_sense_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="expected a known connection option"):
        aio.connect(hots="localhost")  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="expected replication='database' or 'physical'"):
        aio.connect(replication="logical")  # type: ignore[arg-type]


def test_no_secret_is_in_what_connect_gives() -> None:
    connecting = aio.connect("postgresql://ann:hunter2@127.0.0.1:1/shop")
    assert "hunter2" not in repr(connecting)
    assert "hunter2" not in repr(vars(connecting))
    connecting.close()
