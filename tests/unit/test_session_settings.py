"""The settings that values are read by: ahead of the first command, and never again."""

from __future__ import annotations

import codecs
from typing import Any

import pytest

from pgrepl.conninfo import encodings, resolve
from pgrepl.errors import ServerShutdown
from pgrepl.protocol import frontend
from pgrepl.protocol.authentication import Credentials
from pgrepl.protocol.backend import ServerState
from pgrepl.protocol.query import simple_query
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
    ("conninfo", "server", "client", "codec"),
    [
        ("", None, "UTF8", "utf-8"),
        ("", "LATIN1", "UTF8", "utf-8"),
        ("", "UTF8", "UTF8", "utf-8"),
        ("", "SQL_ASCII", "SQL_ASCII", "utf-8"),
        ("client_encoding=auto", "SQL_ASCII", "SQL_ASCII", "utf-8"),
        ("client_encoding=utf-8", "SQL_ASCII", "UTF8", "utf-8"),
        ("client_encoding=latin1", "SQL_ASCII", "SQL_ASCII", "iso8859-1"),
        ("client_encoding=latin1", "UTF8", "UTF8", "utf-8"),
        ("client_encoding=latin1", "EUC_TW", "UTF8", "utf-8"),
        ("client_encoding=sql_ascii", "SQL_ASCII", "SQL_ASCII", "utf-8"),
        ("client_encoding=sql_ascii", "UTF8", "SQL_ASCII", "utf-8"),
        ("client_encoding=sql_ascii", "EUC_JIS_2004", "SQL_ASCII", "euc_jis_2004"),
        ("client_encoding=sql_ascii", "MULE_INTERNAL", "SQL_ASCII", "ascii"),
        ("client_encoding=sql_ascii", None, "SQL_ASCII", "utf-8"),
    ],
)
def test_the_encoding(conninfo: str, server: str | None, client: str, codec: str) -> None:
    parameters = resolve(conninfo, {})
    state = ServerState()
    starting: Any = start_up(
        state,
        parameters.startup_parameters(),
        Credentials("ann"),
        parameters.session_settings(),
        client_encoding=parameters.client_encoding,
    )
    told = [] if server is None else [builders.parameter_status("server_encoding", server)]
    assert Dialogue(starting).receive(builders.authentication(0), *told, READY).ended
    assert state.codec == codec
    assert state.settings_due == {
        "DateStyle": "ISO",
        "IntervalStyle": "postgres",
        "extra_float_digits": "3",
        "bytea_output": "hex",
        "client_encoding": client,
    }


def test_every_encoding_has_a_codec() -> None:
    for name, codec in encodings._CODECS.items():
        assert encodings.encoding_named(name.lower().replace("_", "-")) == name
        assert codecs.lookup(codec)
    assert encodings.encoding_named("EUC_TW") is None


def test_the_start_asks_for_nothing_that_a_pooler_would_refuse() -> None:
    """PgBouncer tracks these, and lets them through."""
    known = {"user", "database", "replication", "client_encoding", "DateStyle", "application_name"}
    assert resolve("", {}).startup_parameters().keys() <= known
    physical = resolve("", {}, replication="physical")
    assert physical.startup_parameters().keys() <= known - {"DateStyle"}
    assert physical.session_settings() == {}


def test_a_session_without_sql_sets_nothing() -> None:
    state = ServerState()
    status = builders.parameter_status("server_encoding", "SQL_ASCII")
    starting: Any = start_up(state, {"user": "ann"}, Credentials("ann"))
    assert Dialogue(starting).receive(builders.authentication(0), status, READY).ended
    assert state.settings_due == {}
