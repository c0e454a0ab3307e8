"""Children that inherit a service's connections, as programs fork them: the service goes on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.live.streams import PATIENCE, TABLE, confirmed, create_slot, peek
from tests.support.clusters import Database


@pytest.mark.parametrize("sslmode", ["disable", "require"])
@pytest.mark.parametrize("api", ["blocking", "asyncio"])
def test_children_leave_the_parent_alone(api: str, sslmode: str, database: Database) -> None:
    if sslmode == "require" and not database.cluster.has_tls:
        pytest.skip("this build of PostgreSQL has no TLS")
    database.execute(TABLE)
    slot = create_slot(database)
    database.execute("INSERT INTO item VALUES (1)")
    # asyncio's own transports complain in a child that lets go of the loop.
    shown = ["-X", "dev"] if api == "blocking" else []
    ended = subprocess.run(
        [
            *(sys.executable, *shown, "-m", "tests.live.forks"),
            *(api, database.dsn(sslmode=sslmode), slot),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[1, 2]\n", "")
    [(end,)] = database.execute("SELECT pg_current_wal_lsn() - '0/0'")
    assert 0 < confirmed(database, slot) <= end
    assert peek(database, slot) == []
