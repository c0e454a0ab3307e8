"""The settings that values are read by: ahead of the first command, and never again."""

from __future__ import annotations

from typing import Any

import pytest

from pgrepl.conninfo import resolve
from pgrepl.errors import ServerShutdown
from pgrepl.protocol import frontend
from pgrepl.protocol.authentication import Credentials
from pgrepl.protocol.backend import ServerState
from pgrepl.protocol.query import simple_query
from pgrepl.protocol.session_settings import settings_due
from pgrepl.protocol.startup import start_up
from tests.support import builders
from tests.support.dialogue import Dialogue, refused

READY = builders.ready_for_query()
SET = builders.command_complete("SET")
ANSWER = (builders.command_complete("CHECKPOINT"), READY)
SETTINGS = {"IntervalStyle": "postgres", "DateStyle": "ISO, D'Y"}
FIRST = "SET IntervalStyle = 'postgres'; SET DateStyle = 'ISO, D''Y'"


def asking(state: ServerState) -> Dialogue:
    return Dialogue(simple_query(state, "CHECKPOINT"))


def due() -> ServerState:
    state = ServerState()
    state.settings_due = dict(SETTINGS)
    return state


def test_they_go_out_in_one_piece_with_the_first_command_alone() -> None:
    state = due()
    dialogue = asking(state)
    assert dialogue.sent == [frontend.query(FIRST) + frontend.query("CHECKPOINT")]
    dialogue.receive(SET, builders.parameter_status("IntervalStyle", "postgres"), SET)
    dialogue.receive(builders.notice_response(), READY)
    assert not dialogue.ended
    [result] = dialogue.receive(*ANSWER).result
    assert result.tag == "CHECKPOINT"
    assert asking(state).sent == [frontend.query("CHECKPOINT")]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("IntervalStyle", "iso_8601", "IntervalStyle postgres as was set, got 'iso_8601'"),
        ("DateStyle", "SQL, DMY", "DateStyle ISO, D'Y as was set, got 'SQL, DMY'"),
    ],
)
def test_a_setting_that_is_not_as_it_was_set(name: str, value: str, expected: str) -> None:
    """Somebody in between has swallowed it."""
    dialogue = asking(due())
    assert expected in refused(dialogue, SET, SET, builders.parameter_status(name, value), READY)


@pytest.mark.parametrize("reported", [{}, {"DateStyle": "iso, MDY", "IntervalStyle": "postgres"}])
def test_a_setting_that_is(reported: dict[str, str]) -> None:
    state = due()
    state.parameters.update(reported)
    assert asking(state).receive(SET, SET, READY, *ANSWER).ended


def test_a_setting_that_is_refused() -> None:
    """The connection is of no use, and the command's answer is still to come."""
    error = builders.error_response("no", sqlstate="55P02")
    said = refused(asking(due()), SET, error, READY)
    assert "expected the settings IntervalStyle, DateStyle to be taken" in said
    assert "ERROR 55P02: no" in said


def test_a_session_that_ends_meanwhile() -> None:
    error = builders.error_response("bye", sqlstate="57P01", severity="FATAL")
    refused(asking(due()), error, kind=ServerShutdown)


@pytest.mark.parametrize("message", [builders.data_row("a"), builders.copy_both_response()])
def test_what_does_not_belong_there(message: bytes) -> None:
    assert "expected the answer to SET" in refused(asking(due()), message)


@pytest.mark.parametrize("message", [SET, builders.notice_response()])
def test_an_answer_without_an_end(message: bytes) -> None:
    said = refused(asking(due()), *[message] * 100)
    assert "expected at most 100 messages in answer to SET" in said


# Which ones, and in which encoding text comes


@pytest.mark.parametrize(
    ("conninfo", "reported", "encoding"),
    [
        ("", {}, "UTF8"),
        ("", {"server_encoding": "LATIN1"}, "UTF8"),
        ("", {"server_encoding": "SQL_ASCII"}, "SQL_ASCII"),
        ("client_encoding=auto", {"server_encoding": "SQL_ASCII"}, "SQL_ASCII"),
        ("client_encoding=utf-8", {"server_encoding": "SQL_ASCII"}, "UTF8"),
        ("client_encoding=sql_ascii", {"server_encoding": "LATIN1"}, "SQL_ASCII"),
    ],
)
def test_the_encoding(conninfo: str, reported: dict[str, str], encoding: str) -> None:
    parameters = resolve(conninfo, {})
    asked = parameters.startup_parameters()
    assert settings_due(parameters.session_settings(), asked, reported) == {
        "DateStyle": "ISO",
        "IntervalStyle": "postgres",
        "extra_float_digits": "3",
        "bytea_output": "hex",
        "client_encoding": encoding,
    }


def test_the_start_asks_for_nothing_that_a_pooler_would_refuse() -> None:
    """PgBouncer tracks these, and lets them through."""
    known = {"user", "database", "replication", "client_encoding", "DateStyle", "application_name"}
    assert resolve("", {}).startup_parameters().keys() <= known
    physical = resolve("", {}, replication="physical")
    assert physical.startup_parameters().keys() <= known - {"DateStyle"}
    assert settings_due(physical.session_settings(), physical.startup_parameters(), {}) == {}


@pytest.mark.parametrize(("settings", "encoding"), [(SETTINGS, "LATIN1"), ({}, "UTF8")])
def test_the_end_of_the_start(settings: dict[str, str], encoding: str) -> None:
    """A pooler that forgets the encoding is told again, where there is SQL."""
    state = ServerState()
    parameters = {"user": "ann", "client_encoding": "UTF8"}
    starting: Any = start_up(state, parameters, Credentials("ann"), settings)
    status = builders.parameter_status("client_encoding", encoding)
    assert Dialogue(starting).receive(builders.authentication(0), status, READY).ended
    wanted = {**settings, "client_encoding": "UTF8"} if settings else {}
    assert state.settings_due == wanted
