"""The temporary server for asyncio: nothing that it does keeps the event loop waiting.

What starts and stops processes runs in a thread and is never left half done: a task that is
cancelled meanwhile ends once that is through. SQL runs over pgrepl's own asyncio connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Self

from ..aio.connection import connect
from ..public import imported_from
from .data_directory import Settings
from .database import APPLICATION, Rows, TemporaryDatabase, last_rows
from .server import STOP_TIMEOUT, StopMode, TemporaryServer

__all__ = ["AsyncTemporaryDatabase", "AsyncTemporaryServer"]


async def _in_thread(call: Callable[[], object]) -> None:
    """Run `call` in a thread, to its end, also where this task is cancelled; then that is raised.

    An error of `call` goes before the cancellation.
    """
    running = asyncio.ensure_future(asyncio.to_thread(call))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancelled = error
    running.result()
    if cancelled is not None:
        raise cancelled


@imported_from("pgrepl.testing")
class AsyncTemporaryServer:
    """A `TemporaryServer` for asyncio, which has the same arguments and the same names.

    ``async with AsyncTemporaryServer() as server``, or `start()` and `close()`. It belongs to no
    event loop: a session's tests can share one, each in a loop of its own.
    """

    def __init__(
        self,
        bin_directory: str | Path | None = None,
        *,
        version: int | str | None = None,
        settings: Settings | None = None,
        hba: str | None = None,
        files: Mapping[str, bytes] | None = None,
        fill: Callable[[Path], object] | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        self._server = TemporaryServer(
            bin_directory,
            version=version,
            settings=settings,
            hba=hba,
            files=files,
            fill=fill,
            start_timeout=start_timeout,
        )

    @staticmethod
    def of(server: TemporaryServer) -> AsyncTemporaryServer:
        """The same server for asyncio: what one of both starts or stops, is so for the other."""
        return _SharedServer(server)

    def __repr__(self) -> str:
        return repr(self._server).replace("<", "<Async", 1)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def folder(self) -> Path:
        """See `TemporaryServer.folder`."""
        return self._server.folder

    @property
    def socket_directory(self) -> Path:
        """See `TemporaryServer.socket_directory`."""
        return self._server.socket_directory

    @property
    def data_directory(self) -> Path:
        """See `TemporaryServer.data_directory`."""
        return self._server.data_directory

    @property
    def log_file(self) -> Path:
        """See `TemporaryServer.log_file`."""
        return self._server.log_file

    @property
    def bin_directory(self) -> Path:
        """See `TemporaryServer.bin_directory`."""
        return self._server.bin_directory

    @property
    def host(self) -> str:
        """See `TemporaryServer.host`."""
        return self._server.host

    @property
    def port(self) -> int:
        """See `TemporaryServer.port`."""
        return self._server.port

    @property
    def version(self) -> str:
        """See `TemporaryServer.version`."""
        return self._server.version

    @property
    def pid(self) -> int:
        """See `TemporaryServer.pid`."""
        return self._server.pid

    @property
    def is_running(self) -> bool:
        """See `TemporaryServer.is_running`."""
        return self._server.is_running

    def dsn(self, **parameters: str | int) -> str:
        """See `TemporaryServer.dsn`."""
        return self._server.dsn(**parameters)

    def url(self, **parameters: str | int) -> str:
        """See `TemporaryServer.url`."""
        return self._server.url(**parameters)

    async def execute(self, sql: str, *, dbname: str = "postgres") -> Rows:
        """Run SQL as the superuser; see `TemporaryServer.execute`."""
        conninfo = self.dsn(dbname=dbname)
        async with connect(conninfo, application_name=APPLICATION) as connection:
            return last_rows(await connection.query(sql))

    @contextlib.asynccontextmanager
    async def new_database(self) -> AsyncIterator[AsyncTemporaryDatabase]:
        """A database that is gone afterwards; see `TemporaryServer.new_database`."""
        making = self._server.new_database()
        database: list[TemporaryDatabase] = []
        try:
            await _in_thread(lambda: database.append(making.__enter__()))
            yield AsyncTemporaryDatabase(self, database[0])
        finally:
            if database:
                await _in_thread(lambda: making.__exit__(None, None, None))

    async def start(self) -> Self:
        """Make the server if this is the first start, run it; see `TemporaryServer.start`.

        A start that is cancelled leaves nothing behind.
        """
        try:
            await _in_thread(self._server.start)
        except asyncio.CancelledError:
            await self.close()
            raise
        return self

    async def stop(self, mode: StopMode = "fast", timeout: float = STOP_TIMEOUT) -> None:
        """Stop the server and keep its data; see `TemporaryServer.stop`."""
        await _in_thread(lambda: self._server.stop(mode, timeout))

    async def restart(self, mode: StopMode = "fast", timeout: float = STOP_TIMEOUT) -> None:
        """Stop and start on the same data and port; see `TemporaryServer.restart`."""
        await _in_thread(lambda: self._server.restart(mode, timeout))

    async def close(self) -> None:
        """Stop the server at once and remove every trace of it; see `TemporaryServer.close`."""
        await _in_thread(self._server.close)


class _SharedServer(AsyncTemporaryServer):
    """One that somebody else has made."""

    def __init__(self, server: TemporaryServer) -> None:
        self._server = server


@imported_from("pgrepl.testing")
class AsyncTemporaryDatabase:
    """A `TemporaryDatabase` for asyncio, which has the same names."""

    def __init__(self, server: AsyncTemporaryServer, database: TemporaryDatabase) -> None:
        self.server = server
        self._database = database

    def __repr__(self) -> str:
        return repr(self._database).replace("<", "<Async", 1)

    @property
    def name(self) -> str:
        """The database's name."""
        return self._database.name

    def slot(self, stem: str = "slot") -> str:
        """A slot's name that no other database's test uses; see `TemporaryDatabase.slot`."""
        return self._database.slot(stem)

    def dsn(self, **parameters: str | int) -> str:
        """See `TemporaryDatabase.dsn`."""
        return self._database.dsn(**parameters)

    def url(self, **parameters: str | int) -> str:
        """See `TemporaryDatabase.url`."""
        return self._database.url(**parameters)

    async def execute(self, sql: str) -> Rows:
        """Run SQL in this database; see `TemporaryServer.execute`."""
        return await self.server.execute(sql, dbname=self.name)

    async def drop(self) -> None:
        """See `TemporaryDatabase.drop`."""
        await _in_thread(self._database.drop)
