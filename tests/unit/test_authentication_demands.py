"""What this side demands before it sends anything that is made of a secret.

No password in the clear, a method that is good enough, an exchange that is bound to the TLS
connection.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import pytest

from pgrepl.conninfo.parameters import AUTHENTICATION_METHODS
from pgrepl.errors import AuthenticationError
from tests.support import builders
from tests.support.authenticating import (
    CLEARTEXT,
    GSS,
    MD5,
    OK,
    SASL,
    SASL_PLUS,
    SSPI,
    authenticating,
    client_first,
    finish,
    proceed,
)
from tests.support.dialogue import Dialogue, refused
from tests.support.scram import MECHANISM_PLUS, ScramServer

# All that matters of a certificate here: that it is signed by ECDSA with SHA-256, or by Ed25519.
CERTIFICATE = bytes.fromhex("30123000300a06082a8648ce3d0403020302002a")
ED25519 = bytes.fromhex("300d3000300506032b65700302002a")


# A password does not leave in the clear


def test_v19_the_password_itself_goes_to_this_host_or_through_tls_only() -> None:
    sent = [builders.message(b"p", b"pencil\0")]
    assert authenticating(is_local=True).receive(CLEARTEXT).sent == sent
    assert authenticating(certificate=b"", is_local=False).receive(CLEARTEXT).sent == sent
    dialogue = authenticating(is_local=False)
    said = refused(dialogue, CLEARTEXT, kind=AuthenticationError)
    assert "allow_cleartext_password=1 sends it all the same" in said
    assert "connection without TLS" in said
    assert dialogue.sent == []


def test_the_password_itself_goes_anywhere_when_that_is_allowed() -> None:
    dialogue = authenticating(is_local=False, allow_cleartext_password=True).receive(CLEARTEXT)
    assert dialogue.sent == [builders.message(b"p", b"pencil\0")]
    # MD5 and SCRAM hash it.
    assert authenticating(is_local=False).receive(MD5).sent
    assert authenticating(is_local=False).receive(SASL).sent


def test_nobody_is_asked_for_a_password_that_would_not_be_sent() -> None:
    said = refused(authenticating(None, is_local=False), CLEARTEXT, kind=AuthenticationError)
    assert "allow_cleartext_password" in said


# require_auth

REQUESTS = {"none": OK, "password": CLEARTEXT, "md5": MD5, "scram-sha-256": SASL, "gss": GSS}


def succeeds(word: str, dialogue: Dialogue) -> bool:
    """Go through a whole exchange of a method."""
    dialogue.receive(REQUESTS[word])
    if word == "scram-sha-256":
        finish(dialogue, ScramServer(b"pencil"))
    return dialogue.ended if word == "none" else dialogue.receive(OK).ended


@pytest.mark.parametrize("word", ["none", "password", "md5", "scram-sha-256"])
def test_v19_the_method_must_be_one_of_require_auth(word: str) -> None:
    everything = frozenset(AUTHENTICATION_METHODS)
    for allowed in (None, everything, frozenset({word}), frozenset({word, "oauth"})):
        assert succeeds(word, authenticating(require_auth=allowed))
    for allowed in (everything - {word}, frozenset({"sspi"}), frozenset()):
        dialogue = authenticating(require_auth=allowed)
        said = refused(dialogue, REQUESTS[word], kind=AuthenticationError)
        assert "expected one of the methods of require_auth" in said
        assert "; nothing was sent" in said
        assert ("without asking for anything" if word == "none" else f"asks for {word};") in said
        assert dialogue.sent == []


def test_v19_kerberos_must_be_one_of_require_auth() -> None:
    dialogue = authenticating(host="db", require_auth=frozenset({"scram-sha-256"}))
    assert "asks for gss" in refused(dialogue, GSS, kind=AuthenticationError)


def test_v19_a_server_may_not_leave_out_the_exchange_that_require_auth_demands() -> None:
    for word in ("password", "md5", "scram-sha-256", "gss", "oauth"):
        dialogue = authenticating(require_auth=frozenset({word}))
        said = refused(dialogue, OK, kind=AuthenticationError)
        assert f"require_auth, {word}, but the server lets us in without asking" in said


def test_sspi_is_refused_even_where_require_auth_has_it() -> None:
    dialogue = authenticating(require_auth=frozenset({"sspi"}))
    assert "method SSPI, which pgrepl does not" in refused(dialogue, SSPI, kind=AuthenticationError)


# Channel binding

END_POINT = hashlib.sha256(CERTIFICATE).digest()


@pytest.mark.parametrize("channel_binding", ["prefer", "require"])
def test_v3_the_exchange_is_bound_to_the_servers_certificate(channel_binding: str) -> None:
    dialogue = authenticating(certificate=CERTIFICATE, channel_binding=channel_binding)
    dialogue.receive(SASL_PLUS)
    server = ScramServer(b"pencil", end_point=END_POINT)
    assert finish(dialogue, server, MECHANISM_PLUS).receive(OK).ended


def test_v3_a_relay_with_a_certificate_of_its_own_is_found_out() -> None:
    dialogue = authenticating(certificate=CERTIFICATE, channel_binding="require")
    dialogue.receive(SASL_PLUS)
    server = ScramServer(b"pencil", end_point=hashlib.sha256(b"of the real server").digest())
    with pytest.raises(AssertionError):
        finish(dialogue, server, MECHANISM_PLUS)


@pytest.mark.parametrize(
    ("channel_binding", "certificate", "offer", "header"),
    [
        ("disable", None, SASL, b"n,,"),
        ("disable", CERTIFICATE, SASL, b"n,,"),
        ("disable", CERTIFICATE, SASL_PLUS, b"n,,"),
        ("prefer", None, SASL, b"n,,"),
        # A server that offered it in truth sees by this that the offer was taken away.
        ("prefer", CERTIFICATE, SASL, b"y,,"),
        ("prefer", ED25519, SASL, b"y,,"),
        ("prefer", ED25519, SASL_PLUS, b"n,,"),
    ],
)
def test_v18_what_is_said_of_channel_binding_where_there_is_none(
    channel_binding: str, certificate: bytes | None, offer: bytes, header: bytes
) -> None:
    dialogue = authenticating(certificate=certificate, channel_binding=channel_binding)
    dialogue.receive(offer)
    assert client_first(dialogue).startswith(header + b"n=,r=")
    assert finish(dialogue, ScramServer(b"pencil")).receive(OK).ended


def test_v3_a_certificate_that_cannot_be_bound_to(caplog: pytest.LogCaptureFixture) -> None:
    dialogue = authenticating(certificate=ED25519, channel_binding="require")
    said = refused(dialogue, SASL_PLUS, kind=AuthenticationError)
    assert "signed by 'ed25519'" in said
    assert "channel_binding=disable" in said
    assert dialogue.sent == []
    assert caplog.records == []
    with caplog.at_level(logging.WARNING, "pgrepl.authentication"):
        authenticating(certificate=ED25519).receive(SASL_PLUS)
    assert "not bound to the TLS connection" in caplog.text
    assert "'ed25519'" in caplog.text
    only_plus = builders.sasl_mechanisms(MECHANISM_PLUS)
    said = refused(authenticating(certificate=ED25519), only_plus, kind=AuthenticationError)
    assert "expected the server to offer SCRAM-SHA-256, got ['SCRAM-SHA-256-PLUS']" in said


@pytest.mark.parametrize("channel_binding", ["disable", "prefer", "require"])
def test_v3_channel_binding_offered_without_tls(channel_binding: str) -> None:
    for offer in (SASL_PLUS, builders.sasl_mechanisms(MECHANISM_PLUS)):
        dialogue = authenticating(channel_binding=channel_binding)
        said = refused(dialogue, offer, kind=AuthenticationError)
        assert "without TLS" in said or "no TLS" in said
        assert dialogue.sent == []


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (OK, "it lets us in without any"),
        (CLEARTEXT, "it asks for password"),
        (MD5, "it asks for md5"),
        (GSS, "it asks for gss"),
        (SASL, "it offers ['SCRAM-SHA-256']"),
        (builders.sasl_mechanisms("OTHER"), "it offers ['OTHER']"),
    ],
    ids=["trust", "password", "md5", "gss", "scram without plus", "other"],
)
def test_v3_channel_binding_required_is_channel_binding_done(request_: bytes, reason: str) -> None:
    dialogue = authenticating(certificate=CERTIFICATE, channel_binding="require")
    said = refused(dialogue, request_, kind=AuthenticationError)
    assert "as channel_binding=require demands" in said
    assert reason in said
    assert dialogue.sent == []
    # Nor is it without TLS, whatever the server asks for.
    dialogue = authenticating(channel_binding="require")
    said = refused(dialogue, request_, kind=AuthenticationError)
    assert "no TLS to bind to" in said
    assert dialogue.sent == []


@pytest.mark.parametrize("steps", [1, 2])
def test_v3_v22_ok_in_the_middle_of_a_bound_exchange_is_none(steps: int) -> None:
    dialogue = authenticating(certificate=CERTIFICATE, channel_binding="require")
    dialogue.receive(SASL_PLUS)
    server = ScramServer(b"pencil", end_point=END_POINT)
    if steps == 2:
        proceed(dialogue, server.first(client_first(dialogue, MECHANISM_PLUS)))
    said = refused(dialogue, OK, kind=AuthenticationError)
    assert "must prove that it knows the password before it is trusted" in said


def test_an_unprintable_offer_is_shown_escaped_and_in_part() -> None:
    offer = builders.sasl_mechanisms(*(["\x1b[2J" + "x" * 100] * 9))
    cases: list[dict[str, Any]] = [{}, {"channel_binding": "require"}]
    for settings in cases:
        dialogue = authenticating(certificate=CERTIFICATE, **settings)
        said = refused(dialogue, offer, kind=AuthenticationError)
        assert said.isprintable()
        assert len(said) < 600
