"""Archives as servers send them and as none does, made by Python's own tarfile, and a server that
sends them: a connection without a network."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pgrepl
from pgrepl import Lsn
from pgrepl.aio.connection import AsyncConnection
from pgrepl.basebackup import (
    ArchiveData,
    ArchiveStart,
    BackupEnd,
    BackupEvent,
    BackupStart,
    ManifestData,
    ManifestStart,
    ReceivedBackup,
    Tablespace,
    receive_base_backup,
)
from pgrepl.protocol.replication import SystemIdentity

__all__ = [
    "FLAVOURS",
    "MAIN",
    "PLAIN",
    "SPACE",
    "SPACES",
    "Server",
    "contents",
    "directory",
    "events",
    "everything",
    "file",
    "link",
    "member",
    "receive",
    "receive_async",
    "receive_in_a_loop",
    "tar",
]

MAIN: Final = Tablespace(None, None, 100)
SPACE: Final = Tablespace(16384, "/srv/space", 50)

Entry = tuple[tarfile.TarInfo, bytes]


def member(name: str, kind: bytes, content: bytes = b"", target: str = "") -> Entry:
    """A member of whatever type and name."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), target
    return info, content


def file(name: str, content: bytes = b"x") -> Entry:
    return member(name, tarfile.REGTYPE, content)


def directory(name: str) -> Entry:
    # tarfile itself adds the slash.
    return member(name, tarfile.DIRTYPE)


def link(name: str, target: str) -> Entry:
    """A symbolic link, with the slash behind its name that PostgreSQL gives it."""
    return member(f"{name}/", tarfile.SYMTYPE, target=target)


def tar(*entries: Entry, end: int = 1024) -> bytes:
    """An archive; its end is so many zeros."""
    buffer = io.BytesIO()
    for info, content in entries:
        buffer.write(info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape"))
        buffer.write(content + bytes(-len(content) % 512))
    return buffer.getvalue() + bytes(end)


#: A small archive of a data directory, and what one has for a tablespace.
PLAIN: Final = tar(directory("base"), directory("base/1"), file("base/1/1259", b"rows"), file("f"))
SPACES: Final = (directory("pg_tblspc"), link("pg_tblspc/16384", "/srv/space"))


def events(
    *archives: tuple[Tablespace, bytes],
    manifest: bytes | None = b"{}",
    cut: int = 1000,
    suffix: str = "",
    names: Callable[[str], str] = str,
) -> Iterator[BackupEvent]:
    """What a server of today sends: each archive in pieces of `cut` bytes."""
    yield BackupStart(Lsn("0/2000028"), 1, tuple(space for space, _ in archives))
    for space, content in archives:
        name = f"{'base' if space.oid is None else space.oid}.tar{suffix}"
        yield ArchiveStart(names(name), space.location, space.oid)
        for at in range(0, len(content), cut):
            yield ArchiveData(memoryview(content)[at : at + cut])
    if manifest is not None:
        yield ManifestStart()
        yield ManifestData(memoryview(manifest))
    yield BackupEnd(Lsn("0/2000100"), 1)


@dataclass
class Server:
    """What `receive_base_backup` asks a connection for. An exception among the `events` is raised
    when its turn comes."""

    events: Iterable[BackupEvent | BaseException]
    server_version: int = 180000
    mode: str = "0700"
    system: str = "1"
    pid: int = 7
    options: dict[str, Any] = field(default_factory=dict)
    uploaded: bytes = b""
    slots: list[str] = field(default_factory=list)
    left_early: bool = False

    def base_backup(self, *, timeout: float, **options: Any) -> Events:
        assert timeout < 1  # it looks up now and then
        self.options = options
        return Events(self)

    def show(self, name: str) -> str:
        assert name == "data_directory_mode"
        if self.server_version < 110000:
            raise pgrepl.ServerError({"sqlstate": "42704"})
        return self.mode

    def identify_system(self) -> SystemIdentity:
        return SystemIdentity(self.system, 1, Lsn(0), None)

    def upload_manifest(self, data: Iterable[bytes]) -> None:
        self.uploaded = b"".join(data)

    def create_physical_slot(self, name: str, **_: bool) -> None:
        self.slots.append(name)

    def drop_slot(self, name: str, **_: float) -> None:
        self.slots.remove(name)


class Events:
    """See `Backup`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._events = iter(server.events)
        self._over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BackupEvent:
        event = next(self._events, None)
        self._over = event is None
        if event is None:
            raise StopIteration
        if isinstance(event, BaseException):
            raise event
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.left_early = not self._over


class AwaitedServer:
    """The same server as an `AsyncConnection`."""

    def __init__(self, server: Server) -> None:
        self.server = server

    @property  # type: ignore[misc]  # `isinstance` asks for it as well
    def __class__(self) -> type:
        return AsyncConnection

    @property
    def server_version(self) -> int:
        return self.server.server_version

    @property
    def pid(self) -> int:
        return self.server.pid

    def base_backup(self, **options: Any) -> AwaitedEvents:
        return AwaitedEvents(self.server.base_backup(**options))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.server, name)

        async def call(*args: Any, **keywords: Any) -> Any:
            await asyncio.sleep(0)
            return method(*args, **keywords)

        return call


class AwaitedEvents:
    """See `AsyncBackup`. A server that has nothing to say lets others have their turns."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BackupEvent:
        try:
            event = next(self._events, None)
        except TimeoutError:
            await asyncio.sleep(0.001)
            raise
        if event is None:
            raise StopAsyncIteration
        return event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._events.__exit__(*error)


def receive(server: Server, target: Path, **options: Any) -> ReceivedBackup:
    """Take a backup, in plain format unless the options say else."""
    connection: Any = server
    received: ReceivedBackup = receive_base_backup(
        connection, target, **{"format": "plain", **options}
    )
    return received


def receive_in_a_loop(server: Server, target: Path, **options: Any) -> ReceivedBackup:
    """The same in asyncio, with an event loop of its own."""
    return asyncio.run(receive_async(server, target, **options))


async def receive_async(server: Server, target: Path, **options: Any) -> ReceivedBackup:
    """The same in asyncio."""
    connection: Any = AwaitedServer(server)
    if isinstance(options.get("wal_connection"), Server):
        options["wal_connection"] = AwaitedServer(options["wal_connection"])
    received: ReceivedBackup = await receive_base_backup(
        connection, target, **{"format": "plain", **options}
    )
    return received


#: What takes a backup in each of the flavours.
FLAVOURS: Final = {"blocking": receive, "asyncio": receive_in_a_loop}


def contents(folder: Path) -> dict[str, bytes]:
    """All files below, with what is in them."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def everything(folder: Path) -> list[str]:
    """The names of all that is below."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
