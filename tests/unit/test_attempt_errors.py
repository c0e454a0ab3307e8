"""What a search for a server says where nothing works, and what one attempt says to the server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pgrepl.conninfo import ConnectionParameters, Host
from pgrepl.conninfo.parameters import AuthenticationSettings
from pgrepl.errors import AuthenticationError, ConnectionFailed, Error
from pgrepl.protocol.backend import ServerState
from pgrepl.protocol.conversation import Steps
from pgrepl.secret import Secret
from pgrepl.transport.attempts import Attempt, LookUp, Opened, search
from tests.support import builders
from tests.support.dialogue import Dialogue
from tests.support.searching import REFUSED, Driver, parameters, says, with_tls

# Where nothing works


def failure(driver: Driver) -> Error:
    with pytest.raises(Error) as caught:
        driver.run()
    return caught.value


def test_one_failure_is_told_as_it_came() -> None:
    for error in (REFUSED, says("57P03", "the database system is starting up")):
        caught = failure(Driver(parameters("b"), error))
        assert caught is error
        assert caught.retryable


def test_several_failures_are_told_once_each() -> None:
    starting = says("57P03", "the database system\nis starting up")
    driver = Driver(parameters("a,b,b,nowhere"), REFUSED, REFUSED, starting, starting)
    error = failure(driver)
    assert type(error) is ConnectionFailed
    assert error.retryable
    assert str(error).splitlines() == [
        "could not connect to any server; tried were",
        "- a:5432 (10.0.0.1): refused",
        "- a:5432 (10.0.0.2): refused",
        "- b:5432 (10.0.0.3): FATAL 57P03: the database system is starting up",
        "- nowhere:5432: could not find the address of host 'nowhere': unknown",
    ]


def test_the_list_of_failures_is_bounded() -> None:
    long = says("57P03", "x" * 60_000)
    wanted = replace(parameters(), hosts=tuple(Host("b", None, port) for port in range(1, 101)))
    error = failure(Driver(wanted, *[long] * 100))
    lines = str(error).splitlines()
    assert len(lines) == 12
    assert lines[-1] == "- and 90 more"
    assert len(str(error)) < 4000


def test_what_ends_the_search_tells_of_what_failed_before() -> None:
    end = says("28P01")
    assert failure(Driver(parameters("a"), REFUSED, end)) is end
    assert end.__notes__ == ["Before that failed:\n- a:5432 (10.0.0.1): refused"]


def test_an_error_of_the_program_is_no_failure_to_connect() -> None:
    steps: Steps[LookUp | Attempt, Opened[Any]] = Steps(search(parameters("b,c")))
    steps.answer([(2, ("10.0.0.3", 5432))])
    with pytest.raises(ZeroDivisionError):
        steps.answer_by(lambda: 1 // 0)
    assert steps.request is None


# What an attempt says


@pytest.mark.parametrize(
    ("is_encrypted", "is_local", "asks_for"), [(True, False, b"p"), (False, True, b"p")]
)
def test_v19_credentials_say_by_which_way_they_go(
    is_encrypted: bool, is_local: bool, asks_for: bytes
) -> None:
    attempt = only_attempt(
        replace(parameters(), hosts=(Host("b", None, 5432, Secret("open sesame")),))
    )
    state = ServerState()
    dialogue = Dialogue(attempt.session(state, is_encrypted=is_encrypted, is_local=is_local))
    dialogue.receive(builders.authentication(3))
    assert dialogue.sent[-1][:1] == asks_for
    dialogue = Dialogue(attempt.session(ServerState(), is_encrypted=False, is_local=False))
    with pytest.raises(AuthenticationError, match="allow_cleartext_password"):
        dialogue.receive(builders.authentication(3))


def test_settings_of_authentication_and_versions_are_passed_on() -> None:
    settings = AuthenticationSettings(require_auth=frozenset({"scram-sha-256", "none"}))
    attempt = only_attempt(parameters("b", authentication=settings, max_protocol_version=0x30002))
    dialogue = Dialogue(attempt.session(ServerState(), is_encrypted=True, is_local=False))
    assert dialogue.sent[0][4:8] == b"\0\3\0\2"
    with pytest.raises(AuthenticationError, match="require_auth"):
        dialogue.receive(builders.authentication(3))


def only_attempt(wanted: ConnectionParameters) -> Attempt:
    driver = Driver(wanted, "primary")
    driver.run()
    [attempt] = driver.attempts
    return attempt


@pytest.mark.parametrize(
    ("sslmode", "negotiation", "answer", "again"),
    [
        ("require", "postgres", b"S", "required"),
        ("require", "direct", b"", "direct"),
        ("prefer", "postgres", b"S", "required"),
        ("prefer", "postgres", b"N", "no"),
        ("disable", "postgres", b"", "no"),
    ],
)
def test_how_tls_begins(sslmode: str, negotiation: str, answer: bytes, again: str) -> None:
    """To cancel is to come again in the same way, and to insist on TLS where there was TLS."""
    attempt = only_attempt(with_tls("b", sslmode, sslnegotiation=negotiation))
    dialogue = Dialogue(attempt.encryption())
    if answer:
        assert dialogue.sent == [REQUEST]
        dialogue.receive_byte(answer)
    if again != "no":
        dialogue.start_tls()
    assert dialogue.sent == [REQUEST] * bool(answer)
    assert dialogue.result is (again != "no")
    assert attempt.made_with(tls=dialogue.result).tls == again


REQUEST = b"\0\0\0\10\4\xd2\x16\x2f"
