"""The processes of a server: they run as its user, in its folder, and none outlives its maker."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import IO, Final

from .errors import TemporaryServerError
from .server_account import Account

__all__ = ["Processes", "Warden"]

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

_WARDEN_PATIENCE: Final = 10.0


class Processes:
    """Starts the programs of a server. `timeout`: seconds for one that is to end by itself."""

    def __init__(self, folder: Path, account: Account | None, timeout: float) -> None:
        self.folder = folder
        self._account = account
        self._timeout = timeout

    def run(self, program: Path, *arguments: str) -> str:
        """Run a program to its end and return what it wrote.

        Raises `TemporaryServerError` where it fails, or does not end.
        """
        process = self.spawn([str(program), *arguments], output=subprocess.PIPE)
        with process:
            try:
                output, _ = process.communicate(timeout=self._timeout)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)  # initdb has children of its own
                if isinstance(error, subprocess.TimeoutExpired):
                    raise TemporaryServerError(
                        f"{program.name} has not ended after {self._timeout:g} s"
                    ) from None
                raise
        text = output.decode(errors="replace").strip()
        if process.returncode != 0:
            raise TemporaryServerError(
                f"{program.name} failed with status {process.returncode}:\n{text}"
            )
        return text

    def spawn(
        self, command: list[str], *, output: int | IO[bytes], stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a process as the server's user, in a session that a terminal's Ctrl-C misses.

        Raises `TemporaryServerError` where there is no such program.
        """
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
            raise TemporaryServerError(
                f"cannot run {command[0]}: {error.strerror}; expected a folder with the programs "
                "of a PostgreSQL server (initdb, postgres)"
            ) from error


class Warden:
    """A shell that waits for the end of a pipe, then ends the server and removes its folder.

    The pipe ends with the process that holds it, however that ends.
    """

    def __init__(self, processes: Processes) -> None:
        self._shell = processes.spawn(
            ["/bin/sh", "-c", _WARDEN, "pgrepl-warden", str(processes.folder)],
            stdin=subprocess.PIPE,
            output=subprocess.DEVNULL,
        )

    def dismiss(self) -> None:
        """Let it remove what may still be left, and wait for its end."""
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        try:
            self._shell.wait(_WARDEN_PATIENCE)
        except subprocess.TimeoutExpired:
            self._shell.kill()
        self._shell.wait()
