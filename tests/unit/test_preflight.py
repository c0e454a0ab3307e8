"""What is checked before a stream begins: what is asked, and every finding."""

from __future__ import annotations

import pickle
from typing import Any, TypeVar

import pytest

from pgrepl import Lsn
from pgrepl.errors import (
    Error,
    PublicationNotFound,
    ServerError,
    ServerShutdown,
    SlotGap,
    SlotInUse,
    SlotInvalidated,
    SlotNotFound,
    SystemMismatch,
    UsageError,
)
from pgrepl.protocol import frontend
from pgrepl.protocol.preflight import Preflight, SlotState
from pgrepl.protocol.replication import SystemIdentity
from pgrepl.resume import ResumeToken
from tests.support import builders
from tests.support.preflight_answers import READY, SLOT, answer, asking, history, identity, of

_Error = TypeVar("_Error", bound=Error)

TOKEN = ResumeToken("7291", 3, Lsn("0/2000"))

HISTORY = "1\t0/1500\tno recovery target specified\n\n# by hand\n2\t0/2800\tbefore 0/2800\n"


def finding(kind: type[_Error], *messages: bytes, **question: Any) -> _Error:
    """The error that these messages lead to, the last one only."""
    dialogue = asking(**question).receive(*messages[:-1])
    with pytest.raises(kind) as caught:
        dialogue.receive(messages[-1])
    assert type(caught.value) is kind
    assert dialogue.ended
    twin = pickle.loads(pickle.dumps(caught.value))
    assert (str(twin), vars(twin)) == (str(caught.value), vars(caught.value))
    return caught.value


# All is well


def test_all_is_well() -> None:
    dialogue = asking()
    assert dialogue.sent == [frontend.query("IDENTIFY_SYSTEM")]
    dialogue.receive(*identity())
    assert len(dialogue.sent) == 2
    assert not dialogue.ended
    assert dialogue.receive(*of()).result == Preflight(
        system=SystemIdentity("7291", 3, Lsn("0/3000"), "shop"),
        slot=SlotState(
            name="s",
            plugin="pgoutput",
            slot_type="logical",
            database="shop",
            temporary=False,
            active_pid=None,
            restart_lsn=Lsn("0/1000"),
            confirmed_flush_lsn=Lsn("0/1800"),
            wal_status="reserved",
            two_phase=False,
            conflicting=False,
            invalidation_reason=None,
            failover=False,
            synced=True,
        ),
        wal_sender_timeout=60.0,
        start=Lsn("0/1800"),
    )
    assert len(dialogue.sent) == 2


def test_an_old_server_has_fewer_columns() -> None:
    newer = (
        "wal_status",
        "two_phase",
        "conflicting",
        "invalidation_reason",
        "failover",
        "synced",
    )
    dialogue = asking(version="12.22").receive(*identity())
    found = dialogue.receive(*of(**dict.fromkeys(newer))).result.slot
    assert {getattr(found, name) for name in newer} == {None}
    assert found.confirmed_flush_lsn == Lsn("0/1800")


@pytest.mark.parametrize(("setting", "seconds"), [("0", 0.0), ("1", 0.001), ("6500", 6.5)])
def test_how_long_the_server_waits(setting: str, seconds: float) -> None:
    dialogue = asking().receive(*identity(), *answer(SLOT, timeout=[setting]))
    assert dialogue.result.wal_sender_timeout == seconds


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (None, "0/1800"),
        (Lsn(0), "0/1800"),
        (0, "0/1800"),
        (Lsn("0/1800"), "0/1800"),
        (Lsn("0/1801"), "0/1801"),
        (Lsn("0/3000"), "0/3000"),
        (ResumeToken("7291", 3, Lsn("0/1800")), "0/1800"),
        (ResumeToken("7291", 3, Lsn("0/2000"), 17), "0/2000"),
        (ResumeToken("7291", 3, Lsn("0/3000")), "0/3000"),
    ],
)
def test_where_it_begins(start: Any, expected: str) -> None:
    begins = asking(start=start).receive(*identity(), *of()).result.start
    assert (begins, type(begins)) == (Lsn(expected), Lsn)


def test_a_temporary_slot_of_this_connection_is_active_and_ours() -> None:
    ours = of(temporary="t", active_pid="4711", ours="t")
    found = asking().receive(*identity(), *ours).result.slot
    assert (found.temporary, found.active_pid) == (True, 4711)


def test_several_publications() -> None:
    names = ("p", "q", "p")
    assert (
        asking(publications=names)
        .receive(*identity(), *answer(SLOT, publications=["q", "p"]))
        .ended
    )


# What is asked


def question(version: str = "18.4", **names: Any) -> str:
    return asking(version=version, **names).receive(*identity()).sent[1][5:-1].decode()


def test_only_columns_that_the_version_has_are_asked_for() -> None:
    def columns(version: str) -> list[str]:
        return question(version).removeprefix("SELECT ").split(" FROM ")[0].split(", ")

    since = {
        "wal_status": 13,
        "two_phase": 14,
        "conflicting": 16,
        "invalidation_reason": 17,
        "failover": 17,
        "synced": 17,
    }
    for major in range(10, 20):
        asked = columns(f"{major}.1")
        assert asked[:-1] == [
            name if since.get(name, 0) <= major else "NULL" for name in list(SLOT)[:-1]
        ]
    assert columns("") == columns("10.1")


def test_v15_names_are_literals_whatever_a_backslash_means() -> None:
    asked = question(slot="a'b", publications=["it's", "back\\slash'", 'a"b,c', "é"])
    assert "OPERATOR(pg_catalog.=) 'a''b'::pg_catalog.text" in asked
    assert "ARRAY['it''s', E'back\\\\slash''', 'a\"b,c', 'é']::pg_catalog.text[]" in asked


def test_nothing_depends_on_a_search_path() -> None:
    asked = question(publications=["p"])
    for word in ("pg_replication_slots", "pg_publication", "pg_settings", "pg_backend_pid", "text"):
        assert asked.count(f"pg_catalog.{word}") == asked.count(word) > 0
    assert asked.count("OPERATOR(pg_catalog.=)") == asked.count("=") == 4


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"publications": ()}, "one publication name or more"),
        ({"publications": ["p", ""]}, "one publication name or more"),
        ({"publications": "p"}, r"use \['p'\]"),
        ({"publications": ["a\0b"]}, "without zero bytes"),
        ({"slot": ""}, "expected a name"),
        ({"slot": 'a"b'}, "expected a name"),
        ({"slot": "a\0b"}, "expected a name"),
    ],
)
def test_names_that_cannot_be_are_refused_before_anything_is_sent(
    names: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        asking(**names)


# What is found


def test_a_physical_connection() -> None:
    error = finding(UsageError, *identity("7291", "3", "0/3000", None))
    assert "replication='database'" in str(error)


def test_no_such_slot() -> None:
    error = finding(SlotNotFound, *identity(), *answer())
    assert (error.sqlstate, error.retryable) == ("42704", False)
    assert error.message == 'replication slot "s" does not exist'
    assert error.detail == "This is system 7291, database 'shop'."
    assert error.hint is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"slot_type": "physical", "plugin": None, "database": None},
            "expected a logical slot for pgoutput, 's' is 'physical'",
        ),
        ({"database": "other"}, "expected a slot of database 'shop', which .* of database 'other'"),
        ({"plugin": "wal2json"}, "expected a slot of plugin 'pgoutput', 's' is of plugin 'wal2jso"),
        ({"database": "\x1b[2J"}, r"of database '\\x1b\[2J'"),
    ],
)
def test_a_slot_for_something_else(changes: dict[str, str | None], words: str) -> None:
    error = finding(UsageError, *identity(), *of(**changes))
    with pytest.raises(UsageError, match=words):
        raise error


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"wal_status": "lost"}, None, "since WAL that it needs was removed"),
        ({"wal_status": "lost", "conflicting": "t"}, None, "removed, or it conflicted with the"),
        ({"conflicting": "t"}, None, "conflicted with the recovery"),
        ({"invalidation_reason": "wal_removed"}, "wal_removed", "max_slot_wal_keep_size"),
        ({"invalidation_reason": "rows_removed"}, "rows_removed", "hot_standby_feedback"),
        (
            {"invalidation_reason": "wal_level_insufficient", "conflicting": "t"},
            "wal_level_insufficient",
            "wal_level = logical",
        ),
        (
            {"invalidation_reason": "idle_timeout", "restart_lsn": None},
            "idle_timeout",
            "idle_replication_slot_timeout",
        ),
        ({"invalidation_reason": "of_tomorrow"}, "of_tomorrow", 'due to "of_tomorrow"'),
    ],
)
def test_a_slot_that_the_server_has_given_up(
    changes: dict[str, str | None], reason: str | None, words: str
) -> None:
    error = finding(SlotInvalidated, *identity(), *of(**changes))
    assert error.reason == reason
    assert (error.sqlstate, error.retryable) == ("55000", False)
    assert 'can no longer access replication slot "s"' in str(error)
    assert words in str(error)


@pytest.mark.parametrize("status", ["reserved", "extended", "unreserved", None])
def test_a_slot_that_still_has_its_wal(status: str | None) -> None:
    assert asking().receive(*identity(), *of(wal_status=status)).ended


@pytest.mark.parametrize("temporary", ["f", "t"])
def test_a_slot_that_somebody_holds(temporary: str) -> None:
    error = finding(SlotInUse, *identity(), *of(active_pid="4711", temporary=temporary, ours="f"))
    assert (error.pid, error.sqlstate, error.retryable) == (4711, "55006", True)


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (ResumeToken("7290", 3, Lsn("0/2000")), "this is another system"),
        (ResumeToken("7290", 1, Lsn("0/2000")), "this is another system"),
        (ResumeToken("7291", 4, Lsn("0/2000")), "an earlier timeline of the same system"),
    ],
)
def test_another_history(token: ResumeToken, words: str) -> None:
    error = finding(SystemMismatch, *identity(), *of(), start=token)
    assert error.expected == (token.systemid, token.timeline)
    assert error.got == ("7291", 3)
    assert words in str(error)
    assert str(token) in str(error)
    assert error.retryable is False


def test_a_slot_that_has_moved_on() -> None:
    start = ResumeToken("7291", 3, Lsn("0/17FF"))
    error = finding(SlotGap, *identity(), *of(), start=start)
    assert (error.wanted, error.available) == (Lsn("0/17FF"), Lsn("0/1800"))
    assert (error.sqlstate, error.retryable) == ("55000", False)
    assert "from 0/17FF on, it has those from 0/1800 on" in error.message


@pytest.mark.parametrize("plugin", ["pgoutput", None])
def test_a_position_that_the_slot_has_passed(
    plugin: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    dialogue = asking(start=Lsn("0/17FF"), plugin=plugin).receive(*identity(), *of())
    assert dialogue.result.start == Lsn("0/1800")
    [record] = caplog.records
    assert (record.name, record.levelname) == ("pgrepl.stream", "WARNING")
    assert "slot 's': the stream begins at 0/1800, " in record.getMessage()
    assert "and not at 0/17FF as asked for" in record.getMessage()


def test_a_position_that_the_slot_has_not_passed_is_nothing_to_warn_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for start in (None, 0, Lsn("0/1800"), Lsn("0/2000"), ResumeToken("7291", 3, Lsn("0/1800"))):
        assert asking(start=start).receive(*identity(), *of()).ended
    assert caplog.records == []


def test_a_token_of_no_position_is_no_reason_to_begin_anywhere() -> None:
    error = finding(SlotGap, *identity(), *of(), start=ResumeToken("7291", 3, Lsn(0)))
    assert (error.wanted, error.available) == (Lsn(0), Lsn("0/1800"))


@pytest.mark.parametrize("start", [Lsn("0/3001"), ResumeToken("7291", 3, Lsn("0/3001"))])
def test_a_server_that_has_not_come_so_far(start: Lsn | ResumeToken) -> None:
    error = finding(SlotGap, *identity(), *of(), start=start)
    assert (error.wanted, error.available) == (Lsn("0/3001"), Lsn("0/3000"))
    assert "reaches to 0/3001, this one's ends at 0/3000" in error.message


@pytest.mark.parametrize(
    ("publications", "existing", "missing"),
    [
        (["p"], [], ("p",)),
        (["p"], ["P"], ("p",)),
        (["a", "p", "b", "a"], ["p"], ("a", "b")),
        (['it\'s \\ "x", y'], [], ('it\'s \\ "x", y',)),
    ],
)
def test_a_publication_that_is_missing(
    publications: list[str], existing: list[str], missing: tuple[str, ...]
) -> None:
    error = finding(
        PublicationNotFound,
        *identity(),
        *answer(SLOT, publications=existing),
        publications=publications,
    )
    assert error.names == missing
    assert (error.sqlstate, error.retryable) == ("42704", False)
    assert all(f'"{name}"' in error.message for name in missing)


def test_what_is_missing_may_be_gone_on_without(caplog: pytest.LogCaptureFixture) -> None:
    rows = answer(SLOT, publications=["p"])
    dialogue = asking(publications=["p", "q\n"], on_missing="warn").receive(*identity(), *rows)
    assert dialogue.ended
    [record] = caplog.records
    assert (record.name, record.levelname) == ("pgrepl.stream", "WARNING")
    assert "\n" not in record.getMessage()
    assert "found none of the name" in record.getMessage()


def test_a_publication_made_now_comes_too_late_for_what_the_slot_still_has() -> None:
    def hint(**question: Any) -> str:
        missing = answer(SLOT, publications=[])
        error = finding(PublicationNotFound, *identity(), *missing, **question)
        assert error.hint is not None
        return error.hint

    assert "changes between 0/1800 and its creation end the stream" in hint(version="17.10")
    assert "changes between 0/1800 and its creation are left out" in hint(version="18.0")
    assert "changes between 0/2000 and" in hint(start=TOKEN)
    create = "create with CREATE PUBLICATION what is missing, or leave it out"
    assert hint(start=Lsn("0/3000")) == create


def test_what_is_found_first() -> None:
    """Each finding hides those behind it, so that nobody acts on what comes of something else."""
    layers: list[tuple[type[Error], dict[str, str | None]]] = [
        (UsageError, {"slot_type": "physical"}),
        (UsageError, {"database": "other"}),
        (UsageError, {"plugin": "other"}),
        (SlotInvalidated, {"wal_status": "lost"}),
        (SlotInUse, {"active_pid": "1", "ours": "f"}),
        (SystemMismatch, {}),
    ]
    token = ResumeToken("7290", 3, Lsn("0/9000"))
    while layers:
        changes = {name: value for _, each in layers for name, value in each.items()}
        answers = answer(SLOT | changes, publications=[])
        error = finding(layers[0][0], *identity(), *answers, start=token)
        if changes.get("slot_type"):
            assert "physical" in str(error)
        layers.pop(0)
    finding(SlotGap, *identity(), *answer(SLOT, publications=[]), start=Lsn("0/9000"))
    finding(SlotNotFound, *identity(), *answer(publications=[]), start=token)


def test_what_a_server_calls_its_database_cannot_steer_a_terminal() -> None:
    error = finding(SlotNotFound, *identity("7291", "3", "0/3000", "\x1b[2J"), *answer())
    assert all(c.isprintable() or c == "\n" for c in str(error))


# Timelines


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (ResumeToken("7291", 2, Lsn("0/2000")), None),
        (ResumeToken("7291", 2, Lsn("0/2800")), None),
        (ResumeToken("7291", 2, Lsn("0/2801")), "timeline 2 in this server's history, it left"),
        (ResumeToken("7291", 1, Lsn("0/1800")), "timeline 1 in this server's history, it left"),
    ],
)
def test_a_token_of_an_earlier_timeline(token: ResumeToken, words: str | None) -> None:
    dialogue = asking(start=token).receive(*identity(), *of())
    assert dialogue.sent[2:] == [frontend.query("TIMELINE_HISTORY 3")]
    answers = history(("00000003.history", HISTORY))
    if words is None:
        assert dialogue.receive(*answers).result.start == token.end_lsn
        return
    error = finding(SlotGap, *identity(), *of(), *answers, start=token)
    assert words in error.message
    assert error.wanted == token.end_lsn
    assert error.available == Lsn("0/2800" if token.timeline == 2 else "0/1500")


def test_a_timeline_that_is_not_in_the_history() -> None:
    branch = "1\t0/1500\tno recovery target specified\n"
    token = ResumeToken("7291", 2, Lsn("0/2000"))
    answers = history(("00000003.history", branch))
    error = finding(SystemMismatch, *identity(), *of(), *answers, start=token)
    assert "another branch, without that timeline" in str(error)
    assert (error.expected, error.got) == (("7291", 2), ("7291", 3))


def test_a_history_that_is_gone() -> None:
    token = ResumeToken("7291", 2, Lsn("0/2000"))
    gone = builders.error_response("could not open file", sqlstate="58P01")
    error = finding(
        ServerError,
        *identity(),
        *of(),
        builders.row_description("f", "c"),
        gone,
        READY,
        start=token,
    )
    assert (error.sqlstate, error.message) == ("58P01", "could not open file")
    assert error.hint is not None
    assert "without the history of timeline 3" in error.hint
    away = builders.error_response("go away", severity="FATAL", sqlstate="57P01")
    assert finding(ServerShutdown, *identity(), *of(), away, start=token).hint is None


@pytest.mark.parametrize("publications", [["x", "y", "p"], ["p", "p"]])
def test_publications_that_nobody_asked_for_are_no_matter(publications: list[str]) -> None:
    answers = answer(SLOT, publications=publications)
    assert asking().receive(*identity(), *answers).ended
    finding(PublicationNotFound, *identity(), *answers, publications=["p", "z"])


# Errors of the server itself


def test_a_right_that_is_missing() -> None:
    denied = builders.error_response(
        "permission denied for view pg_replication_slots", sqlstate="42501"
    )
    error = finding(ServerError, *identity(), denied, READY)
    assert error.message == "permission denied for view pg_replication_slots"
    assert error.hint is not None
    assert "GRANT SELECT" in error.hint


def test_other_errors_come_as_they_are() -> None:
    aborted = builders.error_response("current transaction is aborted", sqlstate="25P02")
    assert finding(ServerError, *identity(), aborted, READY).hint is None
    away = builders.error_response("go away", severity="FATAL", sqlstate="57P01")
    finding(ServerShutdown, away)
    finding(ServerShutdown, *identity(), away)
