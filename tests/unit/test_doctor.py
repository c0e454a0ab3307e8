"""`pgrepl.doctor`: what it makes of answers that are hard to get from a real server, and of what
callers get wrong."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

import pgrepl
from pgrepl.doctor import Finding, Level, examine
from pgrepl.doctor.publications import check_publications
from pgrepl.doctor.questions import Questions
from pgrepl.doctor.server import Server
from pgrepl.doctor.settings import check_settings
from pgrepl.doctor.slots import check_slots
from pgrepl.protocol.conversation import Steps

ROOT: Final = Path(__file__).parents[2]
BAD = 'a"b\x1b[2J'
SERVER = Server(180000, "18.4", "shop", BAD, False, 1, (), None)


class FakeServer:
    """Answers queries by what they ask from."""

    def __init__(self, answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    def answered(self, questions: Questions[Any]) -> Any:
        """What questions come to."""
        steps: Steps[str, Any] = Steps(questions)
        while steps.request is not None:
            steps.answer(self._results(steps.request))
        return steps.result

    def _results(self, sql: str) -> list[pgrepl.Result]:
        self.asked.append(sql)
        name = next(name for name in self._answers if re.search(rf"{name}\b", sql))
        rows: list[tuple[str | None, ...]] = [(json.dumps(row),) for row in self._answers[name]]
        return [pgrepl.Result(("row_to_json",), rows, "SELECT")]


SETTINGS = {
    "wal_level": ("logical", None, "postmaster"),
    "max_replication_slots": ("10", None, "postmaster"),
    "max_wal_senders": ("10", None, "postmaster"),
    "max_wal_size": ("1024", "MB", "sighup"),
    "wal_sender_timeout": ("60000", "ms", "user"),
    "max_slot_wal_keep_size": ("20480", "MB", "sighup"),
    "hot_standby_feedback": ("on", None, "sighup"),
}


def settings(**changed: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of pg_settings."""
    return [
        {
            "name": name,
            "setting": value,
            "unit": unit,
            "context": context,
            "source": "default",
            "pending_restart": False,
            **changed.get(name, {}),
        }
        for name, (value, unit, context) in SETTINGS.items()
    ]


def found(server: Server = SERVER, **changed: dict[str, Any]) -> list[Finding]:
    """What is found about settings, those that are ok left out."""
    found = FakeServer({"pg_settings": settings(**changed)}).answered(check_settings(server))
    return [each for each in found if each.level is not Level.OK]


def test_good_settings() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("source", "sql", "then"),
    [
        ("default", "ALTER SYSTEM SET wal_sender_timeout = '1min';", ""),
        ("configuration file", "ALTER SYSTEM SET wal_sender_timeout = '1min';", ""),
        (
            "user",
            r'ALTER ROLE U&"a""b\001b[2J" SET wal_sender_timeout = ' + "'1min';",
            "connect again",
        ),
        ("database", "ALTER DATABASE \"shop\" SET wal_sender_timeout = '1min';", "connect again"),
        (
            "database user",
            r'ALTER ROLE U&"a""b\001b[2J" IN DATABASE "shop" SET wal_sender_timeout = ' + "'1min';",
            "connect again",
        ),
        (
            "command line",
            None,
            "start the server without wal_sender_timeout on its command line",
        ),
        ("client", None, "leave wal_sender_timeout out of the options of the conninfo"),
    ],
)
def test_a_setting_is_mended_where_it_was_made(source: str, sql: str | None, then: str) -> None:
    [finding] = found(wal_sender_timeout={"setting": "0", "source": source})
    assert finding.sql[:1] == (() if sql is None else (sql,))
    assert finding.then == then
    assert finding.sql[1:] == (("SELECT pg_reload_conf();",) if not then else ())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"setting": "0"}, "wal_sender_timeout is off"),
        ({"setting": "4999"}, "wal_sender_timeout is 5.0 s"),
        ({"setting": "11", "unit": "min"}, "wal_sender_timeout is 11 min"),
    ],
)
def test_timeouts(changed: dict[str, Any], words: str) -> None:
    [finding] = found(wal_sender_timeout=changed)
    assert finding.found == words
    assert finding.level is Level.WARNING


def test_a_standby_before_16() -> None:
    server = Server(150000, "15.1", "shop", "r", True, 1, (), None)
    [finding] = found(server)
    assert (finding.id, finding.level, finding.sql) == ("standby", Level.PROBLEM, ())


@pytest.mark.parametrize(
    "changed", [{"setting": "many"}, {"setting": 5}, {"setting": None}, {"pending_restart": None}]
)
def test_hostile_settings(changed: dict[str, Any]) -> None:
    with pytest.raises(pgrepl.ProtocolError):
        found(max_wal_senders=changed)


def test_missing_settings() -> None:
    server = FakeServer({"pg_settings": []})
    with pytest.raises(pgrepl.ProtocolError, match="expected the setting wal_level"):
        server.answered(check_settings(SERVER))


# Publications and slots


def test_a_row_filter_that_cannot_be_shown_is_not_repeated() -> None:
    table = {
        "publication": "p",
        "published_schema": "public",
        "published_table": "t",
        "schema": "public",
        "table": "t",
        "root": None,
        "level": 0,
        "is_written": True,
        "identity_kind": "d",
        "identity": ["id"],
        "published_identity_kind": "d",
        "published_identity": ["id"],
        "has_primary_key": True,
        "has_deferrable_key": False,
        "keys": [{"index": "t_pkey", "is_primary": True, "columns": ["id"]}],
        "columns": ["a"],
        "row_filter": "(a = '\x1b')",
        "filter_columns": ["id"],
        "has_stored_long_values": False,
        "all_columns": ["id", "a"],
        "attributes": 2,
        "stored_columns": [],
        "virtual_columns": [],
    }
    publication = {
        "name": "p",
        "all_tables": False,
        **dict.fromkeys(("insert", "update", "delete", "truncate"), True),
        "via_root": False,
        "generated": True,
        "schemas": [],
    }

    def finding() -> Finding:
        server = FakeServer(
            {"FROM pg_publication_tables": [table], "FROM pg_publication": [publication]}
        )
        [_, each] = server.answered(check_publications(180000, ["p"]))
        assert each.id == "column_list_identity"
        return each

    assert finding().sql == ()
    table["row_filter"] = "(a = 'x')"
    assert finding().sql == (
        'BEGIN; ALTER PUBLICATION "p" DROP TABLE "public"."t"; ALTER PUBLICATION "p" ADD TABLE '
        '"public"."t" ("a", "id") WHERE (a = \'x\'); COMMIT;',
    )


def test_publication_names_are_quoted_when_asked_for() -> None:
    server = FakeServer(
        {
            "FROM pg_publication_tables": [],
            "FROM pg_publication": [
                {
                    "name": "x' --",
                    "all_tables": False,
                    "insert": True,
                    "update": True,
                    "delete": True,
                    "truncate": True,
                    "via_root": False,
                }
            ],
        }
    )
    [empty] = server.answered(check_publications(180000, ["x' --"]))
    assert empty.id == "publication_empty"
    assert "IN ('x'' --')" in server.asked[1]


def test_no_slots_are_no_finding() -> None:
    server = FakeServer({"wal_segment_size": [{"much": 1 << 30, "some": 1 << 24}]})
    assert server.answered(check_slots(SERVER)) == []


# Callers


def test_a_name_is_no_list_of_names() -> None:
    connection: Any = None
    with pytest.raises(pgrepl.UsageError, match=r"got the text 'shop'; use \['shop'\]"):
        examine(connection, "shop")


def test_a_connection_of_another_library() -> None:
    connection: Any = FakeServer({})
    with pytest.raises(pgrepl.UsageError, match="expected a connection of pgrepl, got FakeServer"):
        examine(connection)


def test_a_number_is_no_name() -> None:
    connection: Any = pgrepl.Connection.__new__(pgrepl.Connection)
    number: Any = 5
    with pytest.raises(pgrepl.UsageError, match="expected the name of a slot, or None, got 5"):
        examine(connection, ["shop"], number)
    with pytest.raises(pgrepl.UsageError, match=r"expected the names of publications, got \(5,\)"):
        examine(connection, [number], "shop")


def test_findings_are_values() -> None:
    finding = Finding("slot", Level.OK, "free", subject={"slot": "s"})
    assert pickle.loads(pickle.dumps(finding)) == finding
    assert {each.__module__ for each in (Finding, Level, examine)} == {"pgrepl.doctor"}
    assert hash(finding) == hash(Finding("slot", Level.OK, "free"))
    assert json.loads(json.dumps(finding.asdict()))["level"] == "ok"


def test_every_id_is_documented() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "pgrepl" / "doctor").glob("*.py"))
    made = set(re.findall(r'Finding\(\s*"(\w+)"', code))
    made |= set(re.findall(r'_get\("(\w+)"\)', code)) - {"max_wal_size"}
    made |= {"table_foreign", "table_unlogged"}
    page = (ROOT / "docs" / "doctor.md").read_text().partition("| id | found |")[2]
    cells = re.findall(r"^\| (.*?) \|", page, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == made
