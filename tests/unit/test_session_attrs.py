"""target_session_attrs: which sessions will do, told by the server or asked of it."""

from __future__ import annotations

from typing import Any, Final

import pytest

from pgrepl.errors import ProtocolError, UsageError
from pgrepl.protocol.backend import ServerState
from pgrepl.protocol.session_attrs import why_not
from tests.support import builders
from tests.support.dialogue import Dialogue

TARGETS: Final = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")

# in_hot_standby, default_transaction_read_only, and which targets will do with it.
TOLD: Final = [
    ("off", "off", {"any", "read-write", "primary"}),
    ("off", "on", {"any", "read-only", "primary"}),
    ("on", "off", {"any", "read-only", "standby", "prefer-standby"}),
    ("on", "on", {"any", "read-only", "standby", "prefer-standby"}),
]


def asking(target: Any, *, physical: bool = False, **settings: str) -> Dialogue:
    state = ServerState()
    state.parameters.update(settings)
    return Dialogue(why_not(state, target, is_physical=physical))


def row(value: str | None) -> tuple[bytes, ...]:
    return (
        builders.row_description("a"),
        builders.data_row(value),
        builders.command_complete("SELECT 1"),
        builders.ready_for_query(),
    )


@pytest.mark.parametrize("physical", [False, True])
@pytest.mark.parametrize("target", TARGETS)
def test_what_servers_from_14_on_tell(target: str, physical: bool) -> None:
    for in_hot_standby, read_only, will_do in TOLD:
        dialogue = asking(
            target,
            physical=physical,
            in_hot_standby=in_hot_standby,
            default_transaction_read_only=read_only,
        )
        assert not dialogue.sent, "it asks for what it was told"
        assert (dialogue.result is None) == (target in will_do)


@pytest.mark.parametrize(
    ("target", "question", "good", "bad"),
    [
        ("read-write", b"SHOW transaction_read_only", "off", "on"),
        ("read-only", b"SHOW transaction_read_only", "on", "off"),
        ("primary", b"SELECT pg_catalog.pg_is_in_recovery()", "f", "t"),
        ("standby", b"SELECT pg_catalog.pg_is_in_recovery()", "t", "f"),
        ("prefer-standby", b"SELECT pg_catalog.pg_is_in_recovery()", "t", "f"),
    ],
)
def test_older_servers_are_asked(target: str, question: bytes, good: str, bad: str) -> None:
    for value, will_do in ((good, True), (bad, False)):
        dialogue = asking(target, server_version="13.23")
        assert [each[5:-1] for each in dialogue.sent] == [question]
        dialogue.receive(builders.notice_response(), *row(value))
        assert (dialogue.result is None) == will_do


@pytest.mark.parametrize("target", ["read-write", "read-only"])
def test_half_of_what_is_needed_is_asked_for(target: str) -> None:
    """A pooler may hand on one setting and keep the other back."""
    assert asking(target, in_hot_standby="off").sent
    assert asking(target, default_transaction_read_only="off").sent


def test_physical_connections_to_older_servers() -> None:
    """They have SHOW, and no SQL."""
    dialogue = asking("read-write", physical=True).receive(*row("off"))
    assert dialogue.result is None
    for target in ("primary", "standby", "prefer-standby"):
        with pytest.raises(UsageError, match=r"PostgreSQL 14 .* physical .*=read-write"):
            asking(target, physical=True)


def test_a_server_that_does_not_tell_will_not_do() -> None:
    error = builders.error_response("no", sqlstate="42501")
    dialogue = asking("primary").receive(error, builders.ready_for_query())
    assert dialogue.result == "the server does not tell: ERROR 42501: no"
    fatal = builders.error_response("going down", sqlstate="57P01", severity="FATAL")
    assert "57P01" in asking("read-write").receive(fatal).result


@pytest.mark.parametrize(
    "messages",
    [
        row(None),
        row("on")[:2] + row("on")[1:],
        (builders.command_complete("SHOW"), builders.ready_for_query()),
        (builders.row_description("a", "b"), builders.data_row("on", "off"), *row("on")[2:]),
        row("on")[:3] + row("on"),
        (builders.copy_both_response(),),
    ],
    ids=["null", "two rows", "no row", "two columns", "two results", "another message"],
)
def test_an_answer_of_another_shape(messages: tuple[bytes, ...]) -> None:
    with pytest.raises(ProtocolError, match="expected "):
        asking("read-only").receive(*messages)


@pytest.mark.parametrize(
    "message", [builders.notice_response(), builders.parameter_status("a", "b"), row("on")[1]]
)
def test_an_answer_without_end(message: bytes) -> None:
    dialogue = asking("read-only").receive(row("on")[0], *[message] * 98)
    with pytest.raises(ProtocolError, match="expected at most 100 messages in answer"):
        dialogue.receive(message)
