"""What users test their consumers with: docs/testing.md as somebody copies it, the fixtures for
pytest, and the server and its databases, blocking and for asyncio."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

import pgrepl
from pgrepl.testing import AsyncTemporaryServer, TemporaryServer, TemporaryServerError
from tests.live.streams import PATIENCE, eventually
from tests.support import servers

pytestmark = pytest.mark.live

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "testing.md"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """The page's blocks that are whole files, written as such."""
    blocks = re.findall(r"```python\n(# (\w+\.py)\n.*?)```", PAGE.read_text(), re.DOTALL)
    written = []
    for content, name in blocks:
        written.append(tmp_path / name)
        written[-1].write_text(content)
    assert [path.name for path in written] == [
        "server.py",
        "conftest.py",
        "consumer.py",
        "test_consumer.py",
        "test_password.py",
        "test_async_consumer.py",
    ]
    return written


def environment(folder: Path, installation: servers.Installation | None) -> dict[str, str]:
    """For programs in a folder, on the server that is named or on whatever there is."""
    named = {"PGREPL_TEST_BIN": str(installation.bin_directory)} if installation else {}
    return {**os.environ, **named, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}


def run_tests(folder: Path, installation: servers.Installation | None = None) -> str:
    """What pytest says of the tests in a folder, in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error"],
        cwd=folder,
        env=environment(folder, installation),
        capture_output=True,
        text=True,
        timeout=PATIENCE * 6,
        check=False,
    )
    return ended.stdout + ended.stderr


class TestPage:
    def test_a_type_checker_accepts_it(self, files: list[Path]) -> None:
        pytest.importorskip("mypy")
        checked = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *map(str, files)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "MYPYPATH": str(files[0].parent)},
        )
        assert (checked.returncode, checked.stdout) == (0, "")

    def test_its_tests_pass(self, files: list[Path], installation: servers.Installation) -> None:
        said = run_tests(files[0].parent, installation)
        assert re.search(r"\b3 passed in", said), said

    def test_a_fixture_of_ones_own_has_its_imports(self) -> None:
        [snippet] = re.findall(r"```python\n(import pytest\n.*?)```", PAGE.read_text(), re.DOTALL)
        defined: dict[str, object] = {}
        exec(snippet, defined)
        assert "postgres_server" in defined

    def test_a_consumer_that_does_not_come_back_fails_its_test(self, files: list[Path]) -> None:
        for path in files:
            text = path.read_text()
            path.write_text(text.replace("if not error.retryable:", "if True:"))
        said = run_tests(files[0].parent)
        assert re.search(r"\b2 failed, 1 passed in", said), said

    def test_its_program_runs(self, files: list[Path], installation: servers.Installation) -> None:
        ended = subprocess.run(
            [sys.executable, str(files[0])],
            env=environment(files[0].parent, installation),
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
            check=False,
        )
        assert (ended.stdout, ended.stderr) == ("{'id': 1, 'name': 'a'}\n", "")


TESTS: Final = """
import pgrepl
import pytest
from pgrepl.testing import AsyncTemporaryServer, TemporaryServer

@pytest.mark.parametrize("turn", range(2))
def test_is_empty_each_time(postgres_database, turn):
    postgres_database.execute("CREATE TABLE t (a int)")
    with pgrepl.connect(postgres_database.dsn()) as connection:
        connection.create_logical_slot("any_name")
    postgres_database.execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'left'")

def test_stopped(postgres_server):
    slots = "SELECT (SELECT count(*) FROM pg_replication_slots), count(*) FROM pg_prepared_xacts"
    assert postgres_server.execute(slots) == [("0", "0")]
    postgres_server.stop()

def test_runs_again(postgres_database):
    assert postgres_database.execute("SELECT 1") == [("1",)]

def test_both_are_one(
    postgres_server, postgres_database, async_postgres_server, async_postgres_database
):
    assert postgres_server.dsn() == async_postgres_server.dsn()
    assert postgres_database.dsn() == async_postgres_database.dsn()
"""

FAILING: Final = """
import pgrepl
import pytest

def test_before(postgres_database):
    with pytest.raises(pgrepl.ServerError):
        postgres_database.execute("SELECT 'of the test before'::int")

def test_fails(postgres_database):
    postgres_database.execute("SELECT 'of this test'::int")
"""


class TestPlugin:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "conftest.py").write_text('pytest_plugins = ["pgrepl.testing.pytest_plugin"]\n')
        return tmp_path

    def test_fixtures(self, folder: Path) -> None:
        (folder / "test_it.py").write_text(TESTS)
        said = run_tests(folder)
        assert re.search(r"\b5 passed in", said), said

    def test_the_log_of_a_test_that_failed(self, folder: Path) -> None:
        (folder / "test_it.py").write_text(FAILING)
        said = run_tests(folder)
        assert re.search(r"\b1 failed, 1 passed in", said), said
        assert "PostgreSQL server log" in said
        assert 'invalid input syntax for type integer: "of this test"' in said
        assert '"of the test before"' not in said

    def test_a_server_with_settings_of_ones_own(self, folder: Path) -> None:
        (folder / "test_it.py").write_text(
            "import pytest\n"
            "from pgrepl.testing import TemporaryServer\n"
            "@pytest.fixture(scope='session')\n"
            "def postgres_server():\n"
            "    with TemporaryServer(settings={'work_mem': '7MB'}) as server:\n"
            "        yield server\n"
            "def test_it(postgres_database):\n"
            "    assert postgres_database.execute('SHOW work_mem') == [('7MB',)]\n"
        )
        said = run_tests(folder)
        assert re.search(r"\b1 passed in", said), said

    def test_is_not_loaded_by_itself(self, tmp_path: Path) -> None:
        (tmp_path / "test_it.py").write_text("def test_it(postgres_database): pass\n")
        said = run_tests(tmp_path)
        assert "fixture 'postgres_database' not found" in said


@pytest.fixture(scope="module")
def server() -> Iterator[TemporaryServer]:
    """A server of whatever version there is."""
    with TemporaryServer() as made:
        yield made


class TestDatabase:
    def test_goes_with_all_that_holds_it(self, server: TemporaryServer) -> None:
        with server.new_database() as database:
            database.execute("CREATE TABLE t (a int); CREATE PUBLICATION p FOR ALL TABLES")
            holder = pgrepl.connect(database.dsn())
            streaming = pgrepl.connect(database.dsn())
            streaming.create_logical_slot("of_any_name")
            holder.create_logical_slot("for_a_while", temporary=True)
            holder.create_physical_slot(database.slot("physical"))
            stream = streaming.stream("of_any_name", publications=["p"])
            database.execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'it''s left'")
            name = database.name
        assert server.execute("SELECT slot_name FROM pg_replication_slots") == []
        assert server.execute("SELECT gid FROM pg_prepared_xacts") == []
        assert server.execute(f"SELECT 1 FROM pg_database WHERE datname = '{name}'") == []
        with pytest.raises(pgrepl.Error):
            for _ in stream:
                pass
        for connection in (holder, streaming):
            connection.disconnect()

    def test_names_differ(self, server: TemporaryServer) -> None:
        with server.new_database() as one, server.new_database() as other:
            assert one.name != other.name
            assert len({one.slot(), one.slot("b"), other.slot()}) == 3
            assert one.execute("SELECT current_database()") == [(one.name,)]

    def test_goes_from_a_server_that_was_stopped_or_closed(self) -> None:
        with TemporaryServer() as server:
            with server.new_database() as database:
                server.stop()
            assert (
                server.execute(f"SELECT 1 FROM pg_database WHERE datname = '{database.name}'") == []
            )
            with server.new_database():
                server.close()
            assert not server.is_running

    def test_an_error_of_the_test_is_the_one_that_shows(self, server: TemporaryServer) -> None:
        with pytest.raises(ZeroDivisionError), server.new_database():
            raise ZeroDivisionError

    def test_rows_are_text(self, server: TemporaryServer) -> None:
        assert server.execute("SELECT 1, NULL, 'ä'; SELECT true, 2.50") == [("t", "2.50")]
        assert server.execute("CREATE TEMPORARY TABLE t (a int)") == []
        assert server.execute("") == []
        with pytest.raises(pgrepl.ServerError, match="division by zero"):
            server.execute("SELECT 1 / 0")


class TestServer:
    def test_strings_lead_to_it(self, server: TemporaryServer) -> None:
        server.execute("""CREATE ROLE "a b@/'\\:?" LOGIN REPLICATION""")
        user = "a b@/'\\:?"
        for string in (server.dsn, server.url):
            for host in (server.host, str(server.socket_directory)):
                conninfo = string(user=user, host=host, application_name="who asks?")
                with pgrepl.connect(conninfo) as connection:
                    [result] = connection.query(
                        "SELECT session_user, current_setting('application_name'),"
                        " inet_server_addr() IS NULL"
                    )
                assert result.rows == [(user, "who asks?", "ft"[host.startswith("/")])]

    def test_another_version_than_was_asked_for(self, installation: servers.Installation) -> None:
        with TemporaryServer(installation.bin_directory, version=installation.major) as right:
            assert right.version == installation.version
        with pytest.raises(TemporaryServerError, match="expected PostgreSQL 9 in"):
            TemporaryServer(installation.bin_directory, version=9).start()

    def test_is_found_by_its_version(
        self, installation: servers.Installation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"PGREPL_TEST_BIN_{installation.major}", str(installation.bin_directory))
        with TemporaryServer(version=int(installation.major)) as server:
            assert server.version == installation.version
            [(number,)] = server.execute("SHOW server_version_num")
            assert str(number).startswith(installation.major)

    def test_an_orderly_end_is_no_crash_without_a_word(self, server: TemporaryServer) -> None:
        """A consumer that does not confirm keeps a server from it."""

        async def restart() -> None:
            await AsyncTemporaryServer.of(server).restart(timeout=0.5)

        ends: list[Callable[[], None]] = [
            lambda: server.restart(timeout=0.5),
            lambda: asyncio.run(restart()),
        ]

        with server.new_database() as database:
            database.execute("CREATE TABLE t (a int); CREATE PUBLICATION p FOR TABLE t")
            with pgrepl.connect(database.dsn()) as connection:
                connection.create_logical_slot(database.slot())
            database.execute("INSERT INTO t VALUES (1)")
            for end in ends:
                connection = pgrepl.connect(database.dsn())
                stream = connection.stream(database.slot(), publications=["p"])
                assert [change.new["a"] for change in next(stream.transactions())] == [1]
                with pytest.raises(TemporaryServerError, match=r"'fast' within 0\.5 s"):
                    end()
                connection.disconnect()
                assert not server.is_running
                server.start()
            server.stop("immediate", timeout=30)

    def test_two_threads_restart_it(self, server: TemporaryServer) -> None:
        with ThreadPoolExecutor() as pool:
            for each in [pool.submit(server.restart, "immediate") for _ in range(4)]:
                each.result()
        assert server.execute("SELECT 1") == [("1",)]


async def ticks_while(awaited: asyncio.Task[object]) -> int:
    """How often another task of the loop has had its turn."""
    ticks = 0
    while not awaited.done():
        await asyncio.sleep(0)
        ticks += 1
    return ticks


class TestAsync:
    def test_its_life_keeps_no_loop_waiting(self) -> None:
        async def live() -> None:
            server = AsyncTemporaryServer()
            steps: list[Callable[[], Coroutine[Any, Any, object]]] = [
                server.start,
                lambda: server.execute("CREATE TABLE t AS SELECT 1 AS a"),
                server.restart,
                lambda: server.restart("immediate"),
                server.stop,
                server.start,
                lambda: server.execute("TABLE t"),
            ]
            answer: object = None
            for step in steps:
                task: asyncio.Task[object] = asyncio.create_task(step())
                # A loop that waits for a server, or for initdb, has one turn or two.
                assert await ticks_while(task) > 3
                answer = await task
            assert answer == [("1",)]
            folder = server.folder
            await server.close()
            assert not folder.exists()

        asyncio.run(live())

    def test_a_database(self) -> None:
        async def use() -> None:
            async with AsyncTemporaryServer() as server:
                async with server.new_database() as database:
                    assert await database.execute("SELECT current_database()") == [(database.name,)]
                    async with pgrepl.AsyncConnection.connect(database.url()) as connection:
                        await connection.create_logical_slot(database.slot())
                    await server.stop()
                assert await server.execute("SELECT slot_name FROM pg_replication_slots") == []
                with pytest.raises(ZeroDivisionError):
                    async with server.new_database() as database:
                        raise ZeroDivisionError
                assert (
                    await server.execute("SELECT 1 FROM pg_database WHERE datname ~ 'test'") == []
                )

        asyncio.run(use())

    @pytest.mark.parametrize("turns", [0, 3000])
    def test_a_start_that_is_cancelled_leaves_nothing(self, short_tmp: Path, turns: int) -> None:
        async def cancel() -> None:
            starting = asyncio.create_task(AsyncTemporaryServer().start())
            for _ in range(turns):
                await asyncio.sleep(0)
            starting.cancel()
            await asyncio.sleep(0)
            starting.cancel()  # who is impatient
            with pytest.raises(asyncio.CancelledError):
                await starting

        asyncio.run(cancel())
        assert list(short_tmp.iterdir()) == []

    def test_an_error_of_a_start(self, short_tmp: Path) -> None:
        async def start() -> None:
            with pytest.raises(TemporaryServerError, match='"wal_level": "nonsense"'):
                async with AsyncTemporaryServer(settings={"wal_level": "nonsense"}):
                    pass

        asyncio.run(start())
        assert list(short_tmp.iterdir()) == []

    def test_a_killed_loop_takes_the_server_along(self) -> None:
        program = (
            "import asyncio\n"
            "from pgrepl.testing import AsyncTemporaryServer\n"
            "async def main():\n"
            "    async with AsyncTemporaryServer() as server:\n"
            "        print(server.folder, flush=True)\n"
            "        await asyncio.sleep(60)\n"
            "asyncio.run(main())\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as maker:
            assert maker.stdout is not None
            folder = Path(maker.stdout.readline().strip())
            assert folder.is_dir()
            maker.send_signal(signal.SIGKILL)
        eventually(lambda: not folder.exists(), "its folder is removed")


def test_neither_pytest_nor_the_programs_packages_are_needed() -> None:
    program = (
        "import sys\n"
        "for name in ('pytest', 'click', 'rich', 'psycopg'): sys.modules[name] = None\n"
        "import pgrepl.testing\n"
        "assert pgrepl.testing.AsyncTemporaryServer.__name__ in pgrepl.testing.__all__\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
