"""Who is who: every method that we know, and a server that does not keep to its rules."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable
from typing import Any

import pytest

from pgrepl.errors import AuthenticationError, AuthenticationRejected, ProtocolError, UsageError
from pgrepl.secret import Secret
from tests.support import builders
from tests.support.authenticating import (
    CLEARTEXT,
    GSS,
    MD5,
    OK,
    REJECTED,
    SASL,
    authenticating,
    client_first,
    finish,
    proceed,
)
from tests.support.dialogue import refused
from tests.support.scram import MECHANISM, ScramServer, WrongProof, keys

# No password, the password itself, MD5


def test_trust() -> None:
    assert authenticating(None).receive(OK).sent == []


def test_cleartext() -> None:
    dialogue = authenticating("pässword").receive(CLEARTEXT)
    assert dialogue.sent == [builders.message(b"p", "pässword".encode() + b"\0")]
    assert dialogue.receive(builders.notice_response("welcome"), OK).ended


def test_md5() -> None:
    dialogue = authenticating("s3cret", "alice").receive(MD5)
    assert dialogue.sent == [builders.message(b"p", b"md5b79948bbeb35dee03ab8fe15a839030b\0")]
    assert dialogue.receive(OK).ended


def test_bytes_that_are_no_text_are_sent_as_they_came() -> None:
    # That is what os.environ makes of PGPASSWORD=\xff.
    assert authenticating("\udcff").receive(CLEARTEXT).sent == [builders.message(b"p", b"\xff\0")]
    assert len(authenticating("\udcff").receive(MD5).sent[0]) == 5 + 36


@pytest.mark.parametrize("request_", [CLEARTEXT, MD5, SASL], ids=["cleartext", "md5", "scram"])
def test_a_password_is_asked_for_and_there_is_none(request_: bytes) -> None:
    dialogue = authenticating(None)
    said = refused(dialogue, request_, kind=AuthenticationError)
    assert "none was given; pass password=, or set PGPASSWORD" in said
    assert dialogue.sent == []


@pytest.mark.parametrize(
    ("code", "name"),
    [(1, "Kerberos 4"), (2, "Kerberos 5"), (4, "crypt"), (6, "SCM credentials"), (9, "SSPI")]
    + [(8, "number 8"), (11, "number 11"), (12, "number 12"), (99, "number 99")]
    + [(-1, "number -1"), (2**31 - 1, "number 2147483647")],
)
def test_v12_a_method_that_is_not_supported(code: int, name: str) -> None:
    for password in (None, "pencil"):
        dialogue = authenticating(password)
        said = refused(dialogue, builders.authentication(code), kind=AuthenticationError)
        assert f"got method {name}, which pgrepl does not support" in said
        assert dialogue.sent == []


@pytest.mark.parametrize("request_", [CLEARTEXT, MD5], ids=["cleartext", "md5"])
def test_the_server_rejects_the_password(request_: bytes) -> None:
    said = refused(authenticating(), request_, REJECTED, kind=AuthenticationRejected)
    assert "FATAL 28P01: wrong password" in said


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (
            (builders.authentication(0, b"x"),),
            "the end of message b'R', got 1 more bytes (offset 4)",
        ),
        (
            (builders.authentication(3, b"x"),),
            "the end of message b'R', got 1 more bytes (offset 4)",
        ),
        ((builders.authentication(5, b"123"),), "expected a field of 4 bytes in message b'R'"),
        ((builders.authentication(5, b"12345"),), "the end of message b'R', got 1 more bytes"),
        ((builders.authentication(7, b"x"),), "the end of message b'R', got 1 more bytes"),
        ((builders.authentication(10),), "a zero-terminated string in message b'R'"),
        (
            (builders.authentication(10, b"SCRAM-SHA-256"),),
            "a zero-terminated string in message b'R'",
        ),
        ((builders.authentication(10, b"SCRAM-SHA-256\0"),), "a zero-terminated string"),
        (
            (builders.authentication(10, b"SCRAM-SHA-256\0\0x"),),
            "the end of message b'R', got 1 more",
        ),
        ((CLEARTEXT, CLEARTEXT), "expected AuthenticationOk, got request 3"),
        ((CLEARTEXT, SASL), "expected AuthenticationOk, got request 10"),
        ((MD5, MD5), "expected AuthenticationOk, got request 5"),
        ((MD5, builders.authentication(0, b"x")), "the end of message b'R', got 1 more bytes"),
        ((CLEARTEXT, builders.ready_for_query()), "an Authentication message, got message b'Z'"),
    ],
)
def test_what_has_no_place_in_authentication(messages: tuple[bytes, ...], words: str) -> None:
    assert words in refused(authenticating(), *messages)


# SCRAM


PASSWORDS = {
    "ascii": "pencil",
    "long": "p" * 200,
    "latin": "pässword",
    "NFKC": "\u2168",
    "soft hyphen": "a\u00adb",
    "no-break space": "\u00a0x",
    "what SASLprep refuses": "\u0007\u2168",
    "bytes that are no text": "\udcff",
}
SALTS = {"a byte": b"\0", "16 bytes": bytes(range(16)), "100 bytes": bytes(100)}


@pytest.mark.parametrize(
    ("password", "salt", "iterations"),
    [
        *((password, "16 bytes", 4096) for password in PASSWORDS),
        *(("ascii", salt, 4096) for salt in ("a byte", "100 bytes")),
        *(("latin", "16 bytes", iterations) for iterations in (1, 256, 100_000)),
    ],
)
def test_scram(password: str, salt: str, iterations: int) -> None:
    given = PASSWORDS[password]
    prepared = {"NFKC": "IX", "soft hyphen": "ab", "no-break space": " x"}.get(password, given)
    server = ScramServer(prepared.encode("utf-8", "surrogateescape"), SALTS[salt], iterations)
    dialogue = authenticating(given).receive(builders.sasl_mechanisms("OTHER", MECHANISM))
    assert client_first(dialogue).startswith(b"n,,n=,r=")
    proceed(dialogue, server.first(client_first(dialogue)))
    final = dialogue.sent[1]
    assert (final[:1], final[1:5]) == (b"p", struct.pack("!i", len(final) - 1))
    assert dialogue.computed == 1, "what takes long is left to the driver"
    assert not dialogue.receive(builders.authentication(12, server.final(final[5:]))).ended
    assert dialogue.receive(OK).ended
    assert len(dialogue.sent) == 2


def test_a_wrong_password_is_the_servers_to_reject() -> None:
    server = ScramServer(b"pencil")
    dialogue = authenticating("pen").receive(SASL)
    proceed(dialogue, server.first(client_first(dialogue)))
    with pytest.raises(WrongProof):
        server.final(dialogue.sent[1][5:])
    assert "28P01" in refused(dialogue, REJECTED, kind=AuthenticationRejected)


@pytest.mark.parametrize(
    "mechanisms", [[], ["SCRAM-SHA-1", "OAUTHBEARER"], ["scram-sha-256"], ["\x1b[2J"]], ids=ascii
)
def test_no_mechanism_that_we_know(mechanisms: list[str]) -> None:
    dialogue = authenticating()
    message = builders.sasl_mechanisms(*mechanisms)
    said = refused(dialogue, message, kind=AuthenticationError)
    assert f"expected the server to offer SCRAM-SHA-256, got {mechanisms}" in said
    assert said.isprintable()
    assert dialogue.sent == []


def test_v4_nothing_that_comes_of_the_password_is_sent_before_the_cost_is_known() -> None:
    for count in ("0", "-1", "+1", "4096x", "2147483647", "10000000000", "100001", ""):
        dialogue = authenticating().receive(SASL)
        nonce = client_first(dialogue).decode().split(",r=")[1]
        mutant = f"r={nonce}3rfc,s=AAECAwQFBgcICQoLDA0ODw==,i={count}"
        message = builders.authentication(11, mutant.encode())
        said = refused(dialogue, message, kind=AuthenticationError)
        assert f"iteration count between 1 and 100000, got {count!r}" in said
        assert (len(dialogue.sent), dialogue.computed) == (1, 0)


def test_v4_hashing_is_left_to_the_driver() -> None:
    """Which has it done where it holds up nobody else."""
    dialogue = authenticating().receive(SASL)
    proceed(dialogue, ScramServer(b"pencil").first(client_first(dialogue)))
    assert (len(dialogue.sent), dialogue.computed) == (2, 1)


def test_the_cost_may_be_limited_further_or_less() -> None:
    server = ScramServer(b"pencil", iterations=100_001)
    dialogue = authenticating(scram_max_iterations=100_001).receive(SASL)
    assert finish(dialogue, server).receive(OK).ended
    dialogue = authenticating(scram_max_iterations=4095).receive(SASL)
    first = ScramServer(b"pencil").first(client_first(dialogue))
    said = refused(dialogue, builders.authentication(11, first), kind=AuthenticationError)
    assert "between 1 and 4095, got '4096'" in said


@pytest.mark.parametrize(
    "change",
    [
        lambda first: b"m=ext," + first,
        lambda first: first + b",x=y",
        lambda first: b"r=other" + first[first.index(b",") :],
        lambda first: first.replace(b"s=", b"s=!"),
        lambda first: first.replace(b",s=", b"\0,s="),
        lambda first: b"e=other-error",
        lambda first: b"\xff",
        lambda first: b"",
    ],
    ids=["m=", "extension", "nonce", "salt", "zero byte", "error", "no ASCII", "empty"],
)
def test_v22_no_further_byte_is_sent_after_a_bad_message(change: Callable[[bytes], bytes]) -> None:
    dialogue = authenticating().receive(SASL)
    first = ScramServer(b"pencil").first(client_first(dialogue))
    message = builders.authentication(11, change(first))
    assert "SCRAM" in refused(dialogue, message, kind=AuthenticationError)
    assert (len(dialogue.sent), dialogue.computed) == (1, 0)


@pytest.mark.parametrize(
    "early",
    [OK, SASL, CLEARTEXT, MD5, GSS, builders.authentication(12, b"v=x")],
    ids=["ok", "sasl", "cleartext", "md5", "gss", "final"],
)
def test_v22_no_step_can_be_left_out_before_the_first_message(early: bytes) -> None:
    dialogue = authenticating().receive(SASL)
    said = refused(dialogue, early, kind=AuthenticationError)
    assert "expected step 11 of the SCRAM exchange" in said
    assert "must prove that it knows the password" in said
    assert len(dialogue.sent) == 1


@pytest.mark.parametrize(
    "early",
    [OK, SASL, CLEARTEXT, MD5, GSS, builders.authentication(11, b"r=x")],
    ids=["ok", "sasl", "cleartext", "md5", "gss", "first"],
)
def test_v22_no_step_can_be_left_out_before_the_final_message(early: bytes) -> None:
    server = ScramServer(b"pencil")
    dialogue = authenticating().receive(SASL)
    proceed(dialogue, server.first(client_first(dialogue)))
    said = refused(dialogue, early, kind=AuthenticationError)
    assert "expected step 12 of the SCRAM exchange" in said


def test_v22_a_signature_that_is_not_the_servers() -> None:
    server = ScramServer(b"pencil")
    dialogue = authenticating().receive(SASL)
    proceed(dialogue, server.first(client_first(dialogue)))
    forged = builders.authentication(12, b"v=" + base64.b64encode(bytes(32)))
    said = refused(dialogue, forged, kind=AuthenticationError)
    assert "expected a signature in the SCRAM exchange that proves that the server knows" in said


def test_v22_after_the_final_message_comes_ok() -> None:
    for late in (SASL, CLEARTEXT, builders.authentication(12, b"v=x")):
        dialogue = finish(authenticating().receive(SASL), ScramServer(b"pencil"))
        assert "expected AuthenticationOk, got request" in refused(dialogue, late)


# Keys in place of a password


def scram_keys(password: bytes = b"pencil") -> dict[str, Any]:
    salted = hashlib.pbkdf2_hmac("sha256", password, bytes(range(16)), 4096)
    made = {}
    for name in ("client", "server"):
        key = hashlib.new("sha256")  # HMAC, from RFC 2104
        key.update(bytes(b ^ 0x36 for b in salted.ljust(64, b"\0")))
        key.update(f"{name.title()} Key".encode())
        outer = bytes(b ^ 0x5C for b in salted.ljust(64, b"\0")) + key.digest()
        made[name] = base64.b64encode(hashlib.sha256(outer).digest()).decode()
    return {f"scram_{name}_key": Secret(text) for name, text in made.items()}


def test_keys_stand_for_a_password() -> None:
    given = scram_keys()
    stored, server_key = keys(b"pencil", bytes(range(16)), 4096)
    assert base64.b64decode(given["scram_server_key"].reveal()) == server_key
    client_key = base64.b64decode(given["scram_client_key"].reveal())
    assert hashlib.sha256(client_key).digest() == stored
    for password in (None, "another"):
        dialogue = authenticating(password, **given).receive(SASL)
        assert finish(dialogue, ScramServer(b"pencil")).receive(OK).ended
        assert dialogue.computed == 0


def test_keys_are_for_scram_alone() -> None:
    assert "none was given" in refused(
        authenticating(None, **scram_keys()), MD5, kind=AuthenticationError
    )


def test_keys_of_another_password() -> None:
    dialogue = authenticating(None, **scram_keys(b"pen")).receive(SASL)
    with pytest.raises(WrongProof):
        finish(dialogue, ScramServer(b"pencil"))
    mixed = scram_keys() | {"scram_server_key": scram_keys(b"pen")["scram_server_key"]}
    dialogue = authenticating(None, **mixed).receive(SASL)
    with pytest.raises(AuthenticationError, match="expected a signature"):
        finish(dialogue, ScramServer(b"pencil"))


def test_keys_that_are_none_are_refused_before_anything_is_sent() -> None:
    for name, text in scram_keys().items():
        alone: dict[str, Any] = {name: text}
        dialogue = authenticating(**alone)
        said = refused(dialogue, SASL, kind=UsageError)
        assert "both scram_client_key and scram_server_key, got one of them" in said
        dialogue = authenticating(**(scram_keys() | {name: Secret("AAAA")}))
        assert f"32 bytes in base64 as {name}" in refused(dialogue, SASL, kind=UsageError)
        assert dialogue.sent == []


def test_what_went_wrong_carries_no_other_error() -> None:
    for message in (builders.authentication(11, b"r=x"), builders.authentication(11, b"\xff")):
        dialogue = authenticating().receive(SASL)
        with pytest.raises(AuthenticationError) as caught:
            dialogue.receive(message)
        assert caught.value.__context__ is None
        assert ProtocolError not in type(caught.value).__mro__
