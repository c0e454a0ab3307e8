"""``pgrepl doctor``: what it makes of answers that are hard to get from a real server."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

import pgrepl
from pgrepl.cli.doctor.refusal import turned_away
from pgrepl.doctor.finding import Finding, Level
from pgrepl.doctor.publications import check_publications
from pgrepl.doctor.questions import Questions
from pgrepl.doctor.server import Server
from pgrepl.doctor.settings import check_settings
from pgrepl.doctor.slots import check_slots
from pgrepl.errors import server_error
from pgrepl.protocol.conversation import Steps

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


# Sessions that did not begin


def refusal(sqlstate: str, routine: str, message: str = "no", severity: str = "FATAL") -> Any:
    return server_error(
        {"severity": severity, "sqlstate": sqlstate, "message": message, "routine": routine}
    )


def test_a_role_without_replication() -> None:
    finding = turned_away(refusal("42501", "InitPostgres"), "user='a\"b\x1b[2J' dbname=shop")
    assert finding is not None
    assert finding.sql == (r'ALTER ROLE U&"a""b\001b[2J" REPLICATION;',)


def test_a_database_that_is_closed() -> None:
    finding = turned_away(refusal("42501", "CheckMyDatabase"), "user=r dbname='s h\"op'")
    assert finding is not None
    assert finding.sql == ('GRANT CONNECT ON DATABASE "s h""op" TO "r";',)


@pytest.mark.parametrize(
    ("message", "sql"),
    [
        (
            "number of requested standby connections exceeds max_wal_senders (currently 10)",
            ("ALTER SYSTEM SET max_wal_senders = '20';",),
        ),
        (
            "... max_wal_senders ...",
            (
                "ALTER SYSTEM SET max_wal_senders = '10';",
                "ALTER SYSTEM SET wal_level = 'logical';",
            ),
        ),
    ],
)
def test_no_wal_sender(message: str, sql: tuple[str, ...]) -> None:
    finding = turned_away(refusal("53300", "InitProcess", message), "user=r")
    assert finding is not None
    assert (finding.sql, finding.then) == (sql, "restart the server")


@pytest.mark.parametrize(
    "error",
    [
        refusal("53300", "InitProcess", "sorry, too many clients already"),
        refusal("42501", "aclcheck_error", severity="ERROR"),
        refusal("28P01", "auth_failed"),
        pgrepl.ConnectionFailed("gone"),
    ],
)
def test_other_refusals_are_errors(error: Any) -> None:
    assert turned_away(error, "user=r") is None


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


# The report


@pytest.fixture
def command() -> Any:
    """The module of the command; a skip without click and rich."""
    pytest.importorskip("click")
    pytest.importorskip("rich")
    from pgrepl.cli.doctor import command

    return command


def test_the_report_is_printable(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [
        Finding("fine", Level.OK, "fine"),
        Finding("bad", Level.PROBLEM, "[red]\x1b[2J", "why\n?", ("SELECT 1;",), "then\t"),
        Finding("odd", Level.HINT, "odd \u202e"),
    ]
    monkeypatch.setattr(command, "_examined", lambda *_: list(findings))
    assert run(command) == 1
    assert capsys.readouterr().out.splitlines() == [
        r"problem  [red]\x1b[2J",
        r"         why\n?",
        "         SELECT 1;",
        r"         -- then\t",
        r"hint     odd \u202e",
        "ok       fine",
        "",
        "1 problem, no warnings, 1 hint",
    ]
    assert run(command, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert [each["id"] for each in told] == ["bad", "odd", "fine"]
    assert told[0]["found"] == "[red]\x1b[2J"
    del findings[1]
    assert run(command) == 0


def run(command: Any, *arguments: str) -> Any:
    return command.doctor_command.main(list(arguments), standalone_mode=False)


@pytest.mark.parametrize("name", ["doctor", "identify"])
@pytest.mark.usefixtures("command")
def test_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from pgrepl.cli import main

    with pytest.raises(SystemExit) as ended:
        main((name, "--help"))
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"  pgrepl {name} " in said
    assert "The status is 0" in " ".join(said.split())


@pytest.mark.parametrize("columns", [80, 40])
def test_the_report_is_laid_out_by_words(
    columns: int, command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words stay whole, and what is copied means the same; `then` is a comment on each line."""
    from rich.cells import cell_len

    long = "x" * 90
    sql = (
        'BEGIN; ALTER PUBLICATION "p q" DROP TABLE "public"."a table of quite some length"; '
        "ALTER SYSTEM SET search_path = 'one,   two, three, four, five, six, and seven'; COMMIT;"
    )
    then = "restart the server, which takes some time and ends what runs there, or do not"
    finding = Finding(
        "a", Level.PROBLEM, f"the slot {long} is 日本語日本語日本語 behind", then, (sql,), then
    )
    monkeypatch.setattr(command, "_examined", lambda *_: [finding])
    for name, value in (("FORCE_COLOR", "1"), ("NO_COLOR", "1"), ("COLUMNS", str(columns))):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TERM", "xterm")
    assert run(command) == 1
    lines = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out).splitlines()[:-2]
    assert {line[:9] for line in lines} == {"problem  ", " " * 9}
    quoted = '"public"."a table of quite some length";'
    for line in lines:
        assert cell_len(line) <= columns or line[9:] in (long, quoted) or "'one," in line
    told = " ".join(line[9:] for line in lines)
    assert told.replace("-- ", "") == " ".join((finding.found, then, sql, then))
    assert told.count("-- ") == sum(line[9:12] == "-- " for line in lines) > 1
    assert len(lines) > 8
