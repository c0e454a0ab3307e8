"""The programs in examples/, run as a reader would run them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.live.streams import PATIENCE, TABLE, create_slot, eventually, meanwhile, wait_until_free
from tests.support.clusters import Database

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_asyncio_service_loses_nothing_and_repeats_nothing(
    database: Database, tmp_path: Path
) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    ledger = tmp_path / "ledger"
    ledger.touch()
    finished = threading.Event()
    written = [0]

    def write() -> None:
        draw = random.Random(12)
        with database.connect() as session:
            while not finished.is_set():
                rows = draw.choice((1, 1, 5, 300))
                session.execute(
                    "INSERT INTO item SELECT i, '' FROM generate_series(%s::int, %s::int) i",
                    [written[0], written[0] + rows - 1],
                )
                written[0] += rows

    def noted() -> list[int]:
        return [int(key) for key in ledger.read_text().split()]

    def serve_until(count: int, number: int) -> None:
        wait_until_free(database, slot)
        program = [sys.executable, str(EXAMPLES / "asyncio_service.py")]
        service = subprocess.Popen(
            [*program, database.dsn(), slot, "p", str(ledger)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            eventually(
                lambda: len(noted()) >= count or service.poll() is not None,
                f"{count} rows are in the ledger",
            )
            os.kill(service.pid, number)
            said, _ = service.communicate(timeout=PATIENCE)
        finally:
            service.kill()
            service.communicate()
        assert service.returncode == 0, said
        assert said.splitlines()[-1].endswith("with 0 pending"), said

    with meanwhile(write):
        try:
            serve_until(500, signal.SIGTERM)
            assert len(noted()) >= 500
            serve_until(len(noted()) + 500, signal.SIGINT)
        finally:
            finished.set()
    serve_until(written[0], signal.SIGTERM)
    assert sorted(noted()) == list(range(written[0]))
    # They did finish out of order.
    assert noted() != sorted(noted())
