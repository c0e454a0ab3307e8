"""Fixtures of the live tests alone. They use a database by turns: to make one takes longer than
most of them do."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest

from tests.live.patients import hospital, patient
from tests.live.streams import eventually
from tests.support import servers
from tests.support.clusters import Cluster, Database
from tests.support.flavours import ASYNCHRONOUS
from tests.support.versions import DEFAULT_MAJORS, GIVEN, cluster_names

__all__ = ["hospital", "patient"]

_VARIABLES: Final = ("HOST", "PORT", "USER", "PASSWORD", "DATABASE", "SSLMODE")

# Statements that remove what a test may leave in a database, one a row, in an order that works.
_REMOVE: Final = """
    SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts
        WHERE database = current_database()
    UNION ALL SELECT format('DROP PUBLICATION %I', pubname) FROM pg_publication
    UNION ALL SELECT format('DROP SCHEMA %I CASCADE', nspname) FROM pg_namespace
        WHERE nspname !~ '^pg_|^information_schema$'
    UNION ALL SELECT 'CREATE SCHEMA public'
    UNION ALL SELECT format('ALTER DATABASE %I RESET ALL', current_database())
"""


# What takes longest: programs that are started once a test or more, and asyncio where the blocking
# API does the same on every server. The pure twin says what the native one does.
_LONG_FILES: Final = (
    *("test_async_", "test_cli_", "test_doctor_", "test_libpq_", "test_receive_base_backup"),
)


def _is_long(item: pytest.Function) -> bool:
    return (
        item.path.name.startswith(_LONG_FILES)
        or item.callspec.params.get("flavour") in ASYNCHRONOUS
        or "python" in item.callspec.id.split("-")
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run what takes longest on the newest server alone; on every one with PGREPL_LONG=1, or where
    PGREPL_TEST_MAJORS names them."""
    if os.environ.get("PGREPL_LONG") == "1" or os.environ.get("PGREPL_TEST_MAJORS"):
        return
    older = DEFAULT_MAJORS[:-1]
    left_out = [
        item
        for item in items
        if isinstance(item, pytest.Function)
        and item.path.parent == Path(__file__).parent
        and hasattr(item, "callspec")
        and item.callspec.params.get("cluster") in older
        and _is_long(item)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None of the caller's PG* variables, nor the certificates of his home."""
    for name in _VARIABLES:
        monkeypatch.delenv(f"PG{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def own_cluster(cluster: Cluster) -> Cluster:
    """A cluster with the accounts of tests.support.clusters, that may be stopped; else a skip."""
    assert cluster.own.is_running
    return cluster


@pytest.fixture(scope="module")
def programs(cluster: Cluster) -> Path:
    """The server's programs, to start more servers by; else a skip."""
    return cluster.own.bin_directory


@pytest.fixture(params=[pytest.param(n, marks=pytest.mark.live) for n in cluster_names()])
def installation(request: pytest.FixtureRequest) -> servers.Installation:
    """The programs of each major version, for servers that a test makes for itself."""
    found = None if request.param == GIVEN else servers.find(request.param)
    if found is None:
        pytest.skip("needs the programs of a server")
    return found


@pytest.fixture
def short_tmp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for temporary folders: pytest's own are closed to others and too deep."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An empty directory for WAL."""
    made = tmp_path / "archive"
    made.mkdir()
    return made


@pytest.fixture
def tls_cluster(own_cluster: Cluster) -> Cluster:
    """A cluster of ours that has TLS; else a skip."""
    if not own_cluster.has_tls:
        pytest.skip(f"this build of PostgreSQL {own_cluster.version} has no TLS")
    return own_cluster


class Turns:
    """The database that the tests of a module use by turns."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._resources = contextlib.ExitStack()
        self._database: Database | None = None

    @contextlib.contextmanager
    def turn(self) -> Iterator[Database]:
        """An empty database; a new one if the last could not be cleaned."""
        database = self._database or self._resources.enter_context(self._cluster.new_database())
        self._database = None
        yield database
        clean(database)
        self._database = database

    def close(self) -> None:
        """Drop what was made."""
        self._resources.close()


@pytest.fixture(scope="module")
def turns(cluster: Cluster) -> Iterator[Turns]:
    """The module's database on `cluster`."""
    made = Turns(cluster)
    yield made
    made.close()


@pytest.fixture
def database(turns: Turns) -> Iterator[Database]:
    """An empty database on `cluster`; what is in it afterwards goes, with its slots."""
    with turns.turn() as empty:
        yield empty


def clean(database: Database) -> None:
    """End all sessions of a database, and remove its slots, its contents and its settings."""
    with database.connect() as connection:
        eventually(lambda: without_slots(connection, database), "the slots can be dropped")
        for (statement,) in connection.execute(_REMOVE).fetchall():
            connection.execute(statement)


def without_slots(connection: psycopg.Connection[tuple[object, ...]], database: Database) -> bool:
    """Drop the slots that can be dropped; whether there are none any more."""
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    slots = connection.execute(
        "SELECT slot_name, active_pid FROM pg_replication_slots"
        " WHERE database = current_database() OR starts_with(slot_name, %s)",
        [f"{database.name}_"],
    ).fetchall()
    for name, pid in slots:
        if pid is not None:
            connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        else:
            # A temporary one may be gone by now.
            with contextlib.suppress(psycopg.errors.UndefinedObject, psycopg.errors.ObjectInUse):
                connection.execute("SELECT pg_drop_replication_slot(%s)", [name])
    return not slots
