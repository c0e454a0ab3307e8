"""``pgrepl doctor``: what it makes of a session that does not begin, and how it shows findings."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

import pgrepl
from pgrepl.cli.doctor.refusal import turned_away
from pgrepl.doctor import Finding, Level
from pgrepl.errors import server_error

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
