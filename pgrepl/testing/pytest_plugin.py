"""Fixtures for pytest: a server for the session, a database for each test, and both for asyncio.

In the topmost conftest.py:

    pytest_plugins = ["pgrepl.testing.pytest_plugin"]

or ``pytest -p pgrepl.testing.pytest_plugin``. It is not loaded by itself, so that tests which need
no server do not pay for it. A test that fails shows what the server has logged meanwhile.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Final

import pytest

from .aio import AsyncTemporaryDatabase, AsyncTemporaryServer
from .database import TemporaryDatabase
from .server import TemporaryServer

__all__ = [
    "async_postgres_database",
    "async_postgres_server",
    "postgres_database",
    "postgres_server",
]

_LINES: Final = 100
"""Lines of the log, the last ones, that the report of a test shows."""

_log_before: Final = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[TemporaryServer]:
    """A server that all tests share. Define your own of this name for settings or a version."""
    with TemporaryServer() as server:
        yield server


@pytest.fixture(scope="session")
def async_postgres_server(postgres_server: TemporaryServer) -> AsyncTemporaryServer:
    """The same server, for tests with an event loop."""
    return AsyncTemporaryServer.of(postgres_server)


@pytest.fixture
def postgres_database(postgres_server: TemporaryServer) -> Iterator[TemporaryDatabase]:
    """An empty database, dropped afterwards with its slots and all that hold it.

    The server runs again, where the last test has stopped it.
    """
    postgres_server.start()
    with postgres_server.new_database() as database:
        yield database


@pytest.fixture
def async_postgres_database(
    async_postgres_server: AsyncTemporaryServer, postgres_database: TemporaryDatabase
) -> AsyncTemporaryDatabase:
    """The same database, for a test with an event loop."""
    return AsyncTemporaryDatabase(async_postgres_server, postgres_database)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the server has logged to the report of a test that failed."""
    report = yield
    server = getattr(item, "funcargs", {}).get("postgres_server")
    if isinstance(server, TemporaryServer):
        log = _log_of(server)
        if report.failed:
            lines = log[item.stash.get(_log_before, 0) :].decode(errors="replace").splitlines()
            report.sections.append(("PostgreSQL server log", "\n".join(lines[-_LINES:])))
        elif call.when == "setup":
            item.stash[_log_before] = len(log)
    return report


def _log_of(server: TemporaryServer) -> bytes:
    try:
        return server.log_file.read_bytes()
    except (OSError, RuntimeError):  # a server that the test has closed
        return b""
