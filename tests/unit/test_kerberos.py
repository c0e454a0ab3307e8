"""Kerberos, with a stand-in for the package that speaks it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pgrepl.conninfo.parameters import AuthenticationSettings
from pgrepl.errors import AuthenticationError, ProtocolError
from pgrepl.protocol.authentication import Credentials, authenticate
from pgrepl.protocol.backend import ServerState
from pgrepl.secret import Secret
from tests.support import builders
from tests.support.dialogue import Dialogue, refused

OK = builders.authentication(0)
GSS = builders.authentication(7)
MUTUAL, DELEGATE = "mutual", "delegate"


def goes_on(token: bytes) -> bytes:
    return builders.authentication(8, token)


class StandIn:
    """The few names of the package `gssapi` that are used.

    `steps` are the answers to what comes: bytes, None, or an exception to raise; after the last
    one the context is complete. `flags` is what was agreed upon then.
    """

    def __init__(self) -> None:
        self.steps: list[bytes | Exception | None] = [b"ticket", None]
        self.flags = {MUTUAL}
        self.names: list[tuple[str, str]] = []
        self.contexts: list[SimpleNamespace] = []
        self.taken: list[bytes | None] = []
        self.RequirementFlag = SimpleNamespace(
            mutual_authentication=MUTUAL, delegate_to_peer=DELEGATE
        )
        self.NameType = SimpleNamespace(hostbased_service="service@host")

    def Name(self, base: str, name_type: str) -> tuple[str, str]:
        self.names.append((base, name_type))
        return base, name_type

    def SecurityContext(self, *, name: Any, flags: list[str], usage: str) -> SimpleNamespace:
        assert name == self.names[-1]
        context = SimpleNamespace(
            complete=False, actual_flags=self.flags, asked=set(flags), usage=usage
        )
        context.step = lambda token: self._step(context, token)
        self.contexts.append(context)
        return context

    def _step(self, context: SimpleNamespace, token: bytes | None) -> bytes | None:
        self.taken.append(token)
        answer = self.steps.pop(0)
        if isinstance(answer, Exception):
            raise answer
        context.complete = not self.steps
        return answer


@pytest.fixture
def gssapi(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The package, as long as the test lasts."""
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "gssapi", stand_in)
    yield stand_in


def authenticating(host: str = "db.example.org", **settings: Any) -> Dialogue:
    credentials = Credentials("ann", None, AuthenticationSettings(**settings), host=host)
    return Dialogue(authenticate(ServerState(), credentials))


def test_a_ticket_in_place_of_a_password(gssapi: StandIn) -> None:
    dialogue = authenticating().receive(GSS)
    assert dialogue.sent == [builders.message(b"p", b"ticket")], "raw, with no zero byte behind it"
    assert dialogue.receive(goes_on(b"\0reply")).sent == [builders.message(b"p", b"ticket")]
    assert gssapi.taken == [None, b"\0reply"]
    assert dialogue.computed == 2, "each step may wait for somebody else, so the driver takes it"
    assert not dialogue.ended
    assert dialogue.receive(OK).ended
    assert gssapi.names == [("postgres@db.example.org", "service@host")]
    assert (gssapi.contexts[0].asked, gssapi.contexts[0].usage) == ({MUTUAL}, "initiate")


def test_the_service_may_have_another_name(gssapi: StandIn) -> None:
    authenticating(krbsrvname="pg").receive(GSS)
    assert gssapi.names == [("pg@db.example.org", "service@host")]


def test_the_ticket_is_handed_on_only_when_that_is_wanted(gssapi: StandIn) -> None:
    authenticating(gssdelegation=True).receive(GSS)
    assert gssapi.contexts[0].asked == {MUTUAL, DELEGATE}


def test_several_steps_and_a_last_word(gssapi: StandIn) -> None:
    gssapi.steps = [b"1", b"2", b"3"]
    dialogue = authenticating().receive(GSS, goes_on(b"a"), goes_on(b"b"))
    assert dialogue.sent == [builders.message(b"p", each) for each in (b"1", b"2", b"3")]
    assert dialogue.receive(OK).ended


def test_it_is_gss_to_require_auth(gssapi: StandIn) -> None:
    dialogue = authenticating(require_auth=frozenset({"gss"}))
    assert dialogue.receive(GSS, goes_on(b"reply"), OK).ended


@pytest.mark.parametrize(
    "early",
    [OK, GSS, builders.authentication(3), builders.authentication(11, b"r=x")],
    ids=["ok", "gss", "cleartext", "scram"],
)
def test_the_server_must_prove_itself_before_ok_counts(gssapi: StandIn, early: bytes) -> None:
    dialogue = authenticating().receive(GSS)
    said = refused(dialogue, early, kind=AuthenticationError)
    assert "expected the next step of Kerberos, got authentication request" in said
    assert len(dialogue.sent) == 1


def test_after_the_last_step_comes_ok(gssapi: StandIn) -> None:
    dialogue = authenticating().receive(GSS, goes_on(b"reply"))
    assert "expected AuthenticationOk, got request 8" in refused(dialogue, goes_on(b"more"))


def test_authentication_of_one_side_is_not_enough(gssapi: StandIn) -> None:
    gssapi.flags = set()
    dialogue = authenticating().receive(GSS)
    said = refused(dialogue, goes_on(b"reply"), kind=AuthenticationError)
    assert "expected the server to prove that it is postgres@db.example.org" in said


def test_neither_on_nor_done(gssapi: StandIn) -> None:
    gssapi.steps = [b"ticket", None, b"x"]
    dialogue = authenticating().receive(GSS)
    said = refused(dialogue, goes_on(b"reply"), kind=AuthenticationError)
    assert "expected Kerberos to go on or to be done, got neither" in said


@pytest.mark.parametrize("step", [0, 1])
def test_what_the_library_raises_is_an_authentication_error(gssapi: StandIn, step: int) -> None:
    gssapi.steps[step] = RuntimeError("no\x1b[2J ticket" + "!" * 1000)
    dialogue = authenticating()
    messages = [GSS, goes_on(b"reply")][: step + 1]
    dialogue.receive(*messages[:-1])
    with pytest.raises(AuthenticationError) as caught:
        dialogue.receive(messages[-1])
    said = str(caught.value)
    assert "Kerberos authentication with postgres@db.example.org failed: no [2J ticket!" in said
    assert "kinit gets one" in said
    assert said.isprintable()
    assert len(said) < 800
    assert caught.value.__context__ is None


def test_the_package_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gssapi", None)
    dialogue = authenticating()
    said = refused(dialogue, GSS, kind=AuthenticationError)
    assert "its extra [kerberos]" in said
    assert dialogue.sent == []


def test_a_server_without_a_name_has_no_ticket(gssapi: StandIn) -> None:
    dialogue = authenticating(host="")
    assert "give host= as well as hostaddr=" in refused(dialogue, GSS, kind=AuthenticationError)
    assert gssapi.contexts == []


def test_a_password_is_not_sent_in_place_of_a_ticket(gssapi: StandIn) -> None:
    gssapi.steps = [RuntimeError("no ticket")]
    credentials = Credentials("ann", Secret("pencil"), host="db", is_local=True)
    dialogue = Dialogue(authenticate(ServerState(), credentials))
    refused(dialogue, GSS, kind=AuthenticationError)
    assert dialogue.sent == []


def test_a_request_with_something_behind_it(gssapi: StandIn) -> None:
    said = refused(authenticating(), builders.authentication(7, b"x"), kind=ProtocolError)
    assert "the end of message b'R', got 1 more bytes" in said
