"""The benchmarks, as far as they can go stale without anybody's notice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks import clients, fed, loops, replay
from benchmarks.catalogue import live, rows, stream
from benchmarks.live import async_drains, drains, keepers, readers, workload
from benchmarks.rows import decode
from pgrepl.protocol import catalogue

PROGRAMS: Mapping[str, Mapping[str, Any]] = {
    "benchmarks.clients": clients.CLIENTS,
    "benchmarks.fed": {**fed.WORKS, "decode": None},
    "benchmarks.rows.decode": decode.WORKS,
    "benchmarks.live.drains": drains.DRAINS,
    "benchmarks.live.async_drains": async_drains.DRAINS,
    "benchmarks.live.readers": readers.READERS,
    "benchmarks.live.keepers": keepers.KEEPERS,
}


def test_names_are_names() -> None:
    names = [each.name for part in (stream, rows, live) for each in part.LINE_UP]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("contender", stream.LINE_UP, ids=lambda each: each.name)
def test_programs_of_the_stream(contender: stream.Contender) -> None:
    module, *work = contender.program
    if work:
        assert work[0] in PROGRAMS[module]
    peers = [each.name for each in stream.LINE_UP]
    assert contender.peer is None or contender.peer in peers


@pytest.mark.parametrize("contender", live.LINE_UP, ids=lambda each: each.name)
def test_programs_of_the_live_part(contender: live.Contender) -> None:
    _, _, module, work, _ = contender.command("{}")
    assert work in PROGRAMS[module]
    assert contender.race != "drain" or contender.course in workload.SHAPES
    same_course = [each.who for each in live.LINE_UP if each.course == contender.course]
    assert contender.blocking is None or contender.blocking in same_course


def test_programs_of_the_rows() -> None:
    assert {each.work for each in rows.DECODINGS} <= set(PROGRAMS["benchmarks.rows.decode"])


@pytest.mark.parametrize("rows_wanted", [1, 7_500, 60_000, 400_000])
def test_loads_are_whole_batches(rows_wanted: int) -> None:
    for shape in workload.SHAPES.values():
        written = shape.size * shape.transactions(rows_wanted)
        assert written and written % loops.BATCH_ROWS == 0


def test_the_replay_server_answers_what_is_asked() -> None:
    assert len(replay._TYPE_COLUMNS) == len(catalogue._Row._fields)
