"""A PostgreSQL server in a temporary folder, for as long as it is needed and no longer.

Law: neither a server process nor a folder outlives its maker. `close()` removes both; a failed
start, Ctrl-C in the middle of one and the end of the interpreter lead there; and a maker that is
killed outright is seen by the warden, a shell that waits for the end of a pipe and then cleans up.

Durability is switched off, and whoever can reach the port is let in (`trust`) unless other
`pg_hba.conf` lines are given: this is a server to try things on, not one to keep data in.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias

from ..ownership import Owner
from ..public import imported_from
from .addresses import HOST, SUPERUSER, conninfo_string, conninfo_url, free_port
from .data_directory import DEFAULT_SETTINGS, DataDirectory, Settings
from .database import Rows, TemporaryDatabase, execute
from .errors import TemporaryServerError
from .folder import new_folder
from .processes import Processes, Warden
from .programs import find_programs, major_version
from .server_account import NoServerAccount, give, server_account

__all__ = ["LOSING_TRACK", "STOP_TIMEOUT", "StopMode", "TemporaryServer"]

StopMode: TypeAlias = Literal["smart", "fast", "immediate"]

LOSING_TRACK: Final = frozenset(
    {subprocess.Popen.__init__.__code__, Processes.spawn.__code__, new_folder.__code__}
)
"""The functions in which a signal's handler that raises would lose the only trace of a process or
folder just made."""

# By name, since Windows lacks some of them and must get as far as the error that says so.
_STOP_SIGNALS: Final[Mapping[StopMode, str]] = {
    "smart": "SIGTERM",
    "fast": "SIGINT",
    "immediate": "SIGQUIT",
}

# Seconds that sessions, and those who stream, have by default to come to their end.
STOP_TIMEOUT: Final = 30.0

# A postmaster told to shut down at once kills what is left of its children after five seconds.
_IMMEDIATE_PATIENCE: Final = 10.0


@imported_from("pgrepl.testing")
class TemporaryServer:
    """A server of its own, reachable on 127.0.0.1 and by a Unix socket in its own folder.

    A context manager, or to be used by `start()` and `close()`. The superuser is `postgres`, and
    needs no password; `wal_level` is `logical`. Its methods may be called from any thread.

    Args:
        bin_directory: where `initdb` and `postgres` are; None: where they are found, as
            docs/testing.md has it.
        version: the major version that must be found, 18 for instance; None: any.
        settings: lines of postgresql.conf, which go before those that a server has here by default.
        hba: the text of pg_hba.conf; None: everybody on this machine is trusted.
        files: name -> content, put into the data directory before the first start (certificates).
        fill: makes the data directory at the path that it is given, from a base backup for
            instance; None: initdb. What it leaves there of settings and pg_hba.conf is kept.
        start_timeout: seconds that initdb and a start may each take.
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
        if os.name != "posix":
            raise TemporaryServerError(
                "a temporary server needs a POSIX system (Linux, macOS, WSL): "
                "use a server that is already running instead"
            )
        # Absolute, since the programs are run from another folder.
        self._given_bin = None if bin_directory is None else Path(bin_directory).absolute()
        self._bin = self._given_bin
        self._wanted = major_version(version)
        self._settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self._data = DataDirectory(self._settings, hba, dict(files or {}), fill)
        self._start_timeout = start_timeout
        try:
            self._account = server_account()
        except NoServerAccount as error:
            raise TemporaryServerError(str(error)) from None
        self._owner = Owner()
        self._lock = threading.RLock()
        self._processes: Processes | None = None
        self._version = ""
        self._port = 0
        self._server: subprocess.Popen[bytes] | None = None
        self._warden: Warden | None = None
        self._databases = itertools.count(1)

    def __repr__(self) -> str:
        state = f"port {self._port}, running" if self.is_running else "not running"
        return f"<TemporaryServer {self._version or self._wanted or self._bin or ''}: {state}>"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # Where it is.

    @property
    def folder(self) -> Path:
        """The temporary folder, which is the Unix socket's directory too. It goes with `close()`.

        Raises:
            TemporaryServerError: the server was not started, or is closed.
        """
        return self._made().folder

    def _made(self) -> Processes:
        if self._processes is None:
            raise TemporaryServerError(
                "the server has no folder: call start() first; close() removes it"
            )
        return self._processes

    @property
    def socket_directory(self) -> Path:
        """The directory of the Unix socket, to be given as `host`."""
        return self.folder

    @property
    def data_directory(self) -> Path:
        """The server's data, readable by the server's user alone."""
        return self.folder / "data"

    @property
    def log_file(self) -> Path:
        """What the server logs, over all its starts."""
        return self.folder / "server.log"

    @property
    def bin_directory(self) -> Path:
        """The programs in use: those given or found, or a copy where the server's user needs one.

        Raises:
            TemporaryServerError: none were given, and the server was not started yet.
        """
        if self._bin is None:
            raise TemporaryServerError("the server's programs are looked for by start()")
        return self._bin

    @property
    def host(self) -> str:
        """The address that it listens at, besides the Unix socket."""
        return HOST

    @property
    def port(self) -> int:
        """The TCP port, the same over restarts; 0 before the first start."""
        return self._port

    @property
    def version(self) -> str:
        """What the server calls itself, as "18.6" or "15.18"; empty before the first start."""
        return self._version

    @property
    def pid(self) -> int:
        """The postmaster's process id.

        Raises:
            TemporaryServerError: the server is not running.
        """
        server = self._server
        if server is None:
            raise TemporaryServerError("the server is not running, so it has no process id")
        return server.pid

    @property
    def is_running(self) -> bool:
        """Whether its process is there, though it may still be starting or ending."""
        server = self._server
        return server is not None and server.poll() is None

    def dsn(self, **parameters: str | int) -> str:
        """A libpq keyword/value string for this server; `parameters` go before the defaults.

        The defaults are TCP, user `postgres` and database `postgres`. For the Unix socket give
        `host=str(server.socket_directory)`.
        """
        return conninfo_string(self._parameters(parameters))

    def url(self, **parameters: str | int) -> str:
        """The same as `dsn` in the form ``postgresql://postgres@127.0.0.1:23456/postgres``."""
        return conninfo_url(self._parameters(parameters))

    def _parameters(self, given: Mapping[str, str | int]) -> dict[str, str]:
        defaults = {"host": HOST, "port": str(self._port), "user": SUPERUSER, "dbname": "postgres"}
        return defaults | {name: str(value) for name, value in given.items()}

    # What it is asked.

    def execute(self, sql: str, *, dbname: str = "postgres") -> Rows:
        """Run SQL as the superuser, in a session of its own; return the last statement's rows.

        Values are the server's text, or None. Several statements in one string are one
        transaction. Raises `pgrepl.ServerError` for what the server refuses.
        """
        return execute(self.dsn(dbname=dbname), sql)

    @contextlib.contextmanager
    def new_database(self) -> Iterator[TemporaryDatabase]:
        """A database that is empty, and gone afterwards with its slots and all that hold it.

        A server that was stopped meanwhile is started again for that.
        """
        database = TemporaryDatabase(self, f"test_{next(self._databases)}")
        self.execute(f"CREATE DATABASE {database.name}")
        try:
            yield database
        finally:
            if self._processes is not None:
                self.start()
                database.drop()

    # Its life.

    def start(self) -> Self:
        """Make the server if this is the first start, run it, wait until it accepts.

        Raises:
            TemporaryServerError: no programs were found, or it does not start; then with the end of
                its log. Everything is removed before that.
        """
        self._refuse_child()
        with self._lock:
            if self.is_running:
                return self
            try:
                self._launch(self._processes or self._make())
            except BaseException:
                self.close()
                raise
            return self

    def stop(self, mode: StopMode = "fast", timeout: float = STOP_TIMEOUT) -> None:
        """Stop the server and keep its data.

        `fast` ends sessions, and waits for those who stream until they have all and have confirmed
        it; `smart` before that waits for sessions of SQL to end by themselves; `immediate` is a
        crash. `timeout`: seconds that this may take. In a forked child it does nothing: the server
        is its parent's.

        Raises:
            TemporaryServerError: `fast` or `smart` took longer, and it had to be a crash after all.
                The server is stopped then as well, and `start()` runs it again.
        """
        if self._owner.is_parent:
            return
        with self._lock:
            if not self._end(mode, timeout):
                raise TemporaryServerError(
                    f"the server has not stopped in mode {mode!r} within {timeout:g} s, and was "
                    "made to crash: sessions that stream must confirm all that they are sent "
                    "(ack), or close; a crash that is meant is stop('immediate')"
                )

    def _end(self, mode: StopMode, timeout: float) -> bool:
        """End the process, if there is one, at last by harder means; whether `mode` was kept."""
        server = self._server
        if server is None:
            return True
        is_as_asked = False
        for sign, patience in (
            (signal.Signals[_STOP_SIGNALS[mode]], timeout),
            (signal.SIGQUIT, _IMMEDIATE_PATIENCE),
            (signal.SIGKILL, _IMMEDIATE_PATIENCE),
        ):
            server.send_signal(signal.SIGCONT)  # a frozen server hears nothing
            server.send_signal(sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(patience)
                is_as_asked = mode == "immediate" or sign.name == _STOP_SIGNALS[mode]
                break
        # Left by a server that was killed; the warden must not take its number for a live one.
        (self.data_directory / "postmaster.pid").unlink(missing_ok=True)
        self._server = None
        return is_as_asked

    def restart(self, mode: StopMode = "fast", timeout: float = STOP_TIMEOUT) -> None:
        """Stop and start on the same data and port; see `stop`. `immediate` is a crash with
        recovery.

        Raises:
            TemporaryServerError: as `stop` and `start`. Where it has not stopped in time, it is not
                started again either.
        """
        self._refuse_child()
        with self._lock:
            self.stop(mode, timeout)
            self.start()

    def _refuse_child(self) -> None:
        # Before the lock is asked for, which a thread may hold that a child does not have.
        if self._owner.is_parent:
            raise TemporaryServerError(
                "the server belongs to the process that made it, this is its child"
            )

    def close(self) -> None:
        """Stop the server at once and remove every trace of it. May be called again."""
        if self._owner.is_parent:
            return
        with self._lock:
            if self._processes is None:
                return
            self._end("immediate", _IMMEDIATE_PATIENCE)
            shutil.rmtree(self.folder, ignore_errors=True)
            if self._warden is not None:
                self._warden.dismiss()
                self._warden = None
            self._processes = None
            atexit.unregister(self.close)

    # How it is made.

    def _make(self) -> Processes:
        given = self._given_bin or find_programs(self._wanted).bin_directory
        self._processes = Processes(new_folder(self._account), self._account, self._start_timeout)
        atexit.register(self.close)
        self._warden = Warden(self._processes)
        self._bin = self._reachable(given)
        self._version = self._ask_version(self._bin)
        self._data.make(self.data_directory, self._bin, self._processes, self._account)
        return self._processes

    def _reachable(self, given: Path) -> Path:
        """The given programs, or a copy of their installation that the server's user can run."""
        prefix = given.resolve().parent
        package = prefix.parent.name  # wheels keep their libraries in <package>.libs beside it
        libraries = prefix.parent.parent / f"{package}.libs"
        if self._account is None or (
            self._account.can_read_all(prefix) and self._account.can_read_all(libraries)
        ):
            return given
        copies = self.folder / "installation"
        shutil.copytree(prefix, copies / package / prefix.name, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, copies / libraries.name, symlinks=True)
        give(copies, self._account)
        return copies / package / prefix.name / "bin"

    def _ask_version(self, bin_directory: Path) -> str:
        answer = self._made().run(bin_directory / "postgres", "--version")
        found = re.search(r"\(PostgreSQL\) ((\d+)\S*)", answer)
        if found is None or self._wanted not in (None, found[2]):
            raise TemporaryServerError(
                f"expected PostgreSQL {self._wanted or 'of any version'} in {bin_directory}, "
                f"its server program says {answer!r}"
            )
        return found[1]

    def _launch(self, processes: Processes) -> None:
        chosen = self._port or int(self._settings.get("port", 0))
        program, data = self.bin_directory / "postgres", self.data_directory
        for _ in range(5):
            self._port = chosen or free_port()
            with self.log_file.open("ab") as log:
                beginning = log.tell()
                self._server = processes.spawn(
                    [str(program), "-D", str(data), "-p", str(self._port)], output=log
                )
            if self._wait_until_ready(self._server):
                return
            self._server = None
            # Between choosing a port and binding it another process may have taken it.
            if chosen or "Address already in use" not in self._log(beginning):
                break
        raise TemporaryServerError(self._failure("ended during its start"))

    def _wait_until_ready(self, server: subprocess.Popen[bytes]) -> bool:
        """True once connections are accepted, False if the process has ended instead."""
        deadline = time.monotonic() + self._start_timeout
        while time.monotonic() < deadline:
            if server.poll() is not None:
                return False
            if self._postmaster_status(server.pid) in ("ready", "standby"):
                return True
            time.sleep(0.01)
        raise TemporaryServerError(
            self._failure(f"does not accept connections after {self._start_timeout:g} s")
        )

    def _postmaster_status(self, pid: int) -> str:
        """The eighth line of postmaster.pid; nothing when it is another server's, now gone."""
        try:
            lines = (self.data_directory / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return ""
        return lines[7].strip() if len(lines) > 7 and lines[0] == str(pid) else ""

    def _failure(self, what: str) -> str:
        tail = "\n".join(f"  {line}" for line in self._log().splitlines()[-20:])
        return f"PostgreSQL {self._version} {what}. The end of its log:\n{tail}"

    def _log(self, beginning: int = 0) -> str:
        return self.log_file.read_bytes()[beginning:].decode(errors="replace")
