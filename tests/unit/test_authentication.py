"""Who is who: every method that we know, and a server that does not keep to its rules."""

from __future__ import annotations

import base64
import functools
import struct
from collections.abc import Callable

import pytest
from scramp import ScramClient

from pgrepl.errors import AuthenticationError, AuthenticationRejected, ProtocolError
from pgrepl.protocol import authentication
from pgrepl.protocol.backend import ServerState
from pgrepl.secret import Secret
from tests.support import builders
from tests.support.dialogue import Dialogue, refused
from tests.support.scram import MECHANISM, ScramServer, WrongProof, keys

OK = builders.authentication(0)
SASL = builders.sasl_mechanisms(MECHANISM)
CLEARTEXT = builders.authentication(3)
MD5 = builders.authentication(5, b"\1\2\3\4")


def authenticating(password: str | None = "pencil", user: str = "ann") -> Dialogue:
    secret = None if password is None else Secret(password)
    return Dialogue(authentication.authenticate(ServerState(), user, secret))


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


@pytest.mark.parametrize("request_", [CLEARTEXT, MD5, SASL])
def test_a_password_is_asked_for_and_there_is_none(request_: bytes) -> None:
    dialogue = authenticating(None)
    said = refused(dialogue, request_, kind=AuthenticationError)
    assert "none was given; pass password=, or set PGPASSWORD" in said
    assert dialogue.sent == []


@pytest.mark.parametrize(
    ("code", "name"),
    [(1, "Kerberos 4"), (2, "Kerberos 5"), (4, "crypt"), (6, "SCM credentials"), (7, "GSSAPI")]
    + [(9, "SSPI"), (8, "number 8"), (11, "number 11"), (12, "number 12"), (99, "number 99")]
    + [(-1, "number -1"), (2**31 - 1, "number 2147483647")],
)
def test_a_method_that_is_not_supported(code: int, name: str) -> None:
    for password in (None, "pencil"):
        dialogue = authenticating(password)
        said = refused(dialogue, builders.authentication(code), kind=AuthenticationError)
        assert f"got method {name}, which pgrepl does not support" in said
        assert dialogue.sent == []


@pytest.mark.parametrize("request_", [CLEARTEXT, MD5])
def test_the_server_rejects_the_password(request_: bytes) -> None:
    wrong = builders.error_response("wrong password", severity="FATAL", sqlstate="28P01")
    said = refused(authenticating(), request_, wrong, kind=AuthenticationRejected)
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


def test_the_second_opinion_agrees_with_known_numbers() -> None:
    nonce = b"fyko+d2lbbFgONRv9qkxdawL"
    server = ScramServer(b"pencil")
    first = server.first(b"n,,n=,r=" + nonce)
    assert first == b"r=" + nonce + b"3rfcNHYJY1ZVvWVs7j,s=AAECAwQFBgcICQoLDA0ODw==,i=4096"
    final = b"c=biws,r=" + nonce + b"3rfcNHYJY1ZVvWVs7j,p="
    signature = server.final(final + b"BF71PfZ6nj3U/iEToghBeRs17IpD8qK3gd+S/HiN4hM=")
    assert signature == b"v=l7GfuRZ1rBzU/zQvO/OrVVNJQSpX5JEwqIi6uajtqNE="
    with pytest.raises(WrongProof):
        server.final(final + b"AF71PfZ6nj3U/iEToghBeRs17IpD8qK3gd+S/HiN4hM=")
    stored_key, server_key = keys(b"pencil", bytes(range(16)), 4096)
    assert base64.b64encode(stored_key) == b"zHCdol2044/ZyWzPLi7oxApCkamKw9Z+E4U/QApd/5Y="
    assert base64.b64encode(server_key) == b"dd5peBOitVnLNFu7VmwP+HiDaaw4OUCv396eVCWhYiE="


def client_first(dialogue: Dialogue) -> bytes:
    """The client's first message, out of its SASLInitialResponse."""
    message = dialogue.sent[0]
    assert message[:1] == b"p"
    mechanism, _, rest = message[5:].partition(b"\0")
    assert mechanism == MECHANISM.encode()
    assert struct.unpack("!i", rest[:4]) == (len(rest) - 4,)
    return rest[4:]


def proceed(dialogue: Dialogue, server_first: bytes) -> Dialogue:
    return dialogue.receive(builders.authentication(11, server_first))


@pytest.mark.parametrize("iterations", [4096, 100_000])
@pytest.mark.parametrize(
    "password",
    ["pencil", "p" * 200, "pässword", "\u2168", "a\u00adb", "\u00a0x"],
    ids=["ascii", "long", "latin", "NFKC", "soft hyphen", "no-break space"],
)
def test_scram(password: str, iterations: int) -> None:
    prepared = {"\u2168": "IX", "a\u00adb": "ab", "\u00a0x": " x"}.get(password, password)
    server = ScramServer(prepared.encode(), iterations=iterations)
    dialogue = authenticating(password).receive(builders.sasl_mechanisms("OTHER", MECHANISM))
    proceed(dialogue, server.first(client_first(dialogue)))
    final = dialogue.sent[1]
    assert (final[:1], final[1:5]) == (b"p", struct.pack("!i", len(final) - 1))
    assert not dialogue.receive(builders.authentication(12, server.final(final[5:]))).ended
    assert dialogue.receive(OK).ended
    assert len(dialogue.sent) == 2


def test_every_exchange_has_a_nonce_of_its_own() -> None:
    nonces = {client_first(authenticating().receive(SASL)) for _ in range(20)}
    assert len(nonces) == 20


def test_a_given_nonce_gives_a_given_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = functools.partial(ScramClient, c_nonce="fyko+d2lbbFgONRv9qkxdawL")
    monkeypatch.setattr(authentication, "ScramClient", fixed)
    dialogue = authenticating().receive(SASL)
    assert client_first(dialogue) == b"n,,n=*,r=fyko+d2lbbFgONRv9qkxdawL"
    server = ScramServer(b"pencil")
    proceed(dialogue, server.first(client_first(dialogue)))
    assert server.final(dialogue.sent[1][5:]).startswith(b"v=")


def test_a_wrong_password_is_the_servers_to_reject() -> None:
    server = ScramServer(b"pencil")
    dialogue = authenticating("pen").receive(SASL)
    proceed(dialogue, server.first(client_first(dialogue)))
    with pytest.raises(WrongProof):
        server.final(dialogue.sent[1][5:])
    wrong = builders.error_response("wrong password", severity="FATAL", sqlstate="28P01")
    assert "28P01" in refused(dialogue, wrong, kind=AuthenticationRejected)


@pytest.mark.parametrize(
    "mechanisms",
    [[], ["SCRAM-SHA-256-PLUS"], ["SCRAM-SHA-1", "OAUTHBEARER"], ["scram-sha-256"], ["\x1b[2J"]],
)
def test_no_mechanism_that_we_know(mechanisms: list[str]) -> None:
    dialogue = authenticating()
    message = builders.sasl_mechanisms(*mechanisms)
    said = refused(dialogue, message, kind=AuthenticationError)
    assert f"expected the server to offer SCRAM-SHA-256, got {mechanisms}" in said
    assert said.isprintable()
    assert dialogue.sent == []


NONCE = "abc"  # stands for the nonce of both sides
GOOD = f"r={NONCE},s=AAECAwQFBgcICQoLDA0ODw==,i=4096"

SERVER_FIRST = {
    "empty": "",
    "words": "hello",
    "zero byte": "\0",
    "a nonce of its own": "r=other,s=AAECAwQFBgcICQoLDA0ODw==,i=4096",
    "a nonce not extended": GOOD.replace(NONCE, "CLIENT"),
    "a nonce cut short": GOOD.replace(NONCE, "SHORT"),
    "a nonce with something before it": GOOD.replace(NONCE, "xBOTH"),
    "no nonce": "s=AAECAwQFBgcICQoLDA0ODw==,i=4096",
    "an empty nonce": GOOD.replace(NONCE, ""),
    "a zero byte in the nonce": GOOD.replace(NONCE, "BOTH\0"),
    "a space in the nonce": GOOD.replace(NONCE, "BOTH x"),
    "a comma in the nonce": GOOD.replace(NONCE, "BOTH,x"),
    "a nonce twice": GOOD.replace("s=", f"r={NONCE},s="),
    "a nonce in capitals": GOOD.replace("r=", "R="),
    "no salt": f"r={NONCE},i=4096",
    "an empty salt": f"r={NONCE},s=,i=4096",
    "salt that is no base64": f"r={NONCE},s=!!!!,i=4096",
    "salt that is half base64": f"r={NONCE},s=AAECAwQFBgcICQoLDA0ODw,i=4096",
    "salt twice": GOOD.replace("i=", "s=AAECAwQFBgcICQoLDA0ODw==,i="),
    "another order": f"s=AAECAwQFBgcICQoLDA0ODw==,r={NONCE},i=4096",
    "the count first": f"i=4096,r={NONCE},s=AAECAwQFBgcICQoLDA0ODw==",
    "a mandatory extension": "m=ext," + GOOD,
    "a mandatory extension at the end": GOOD + ",m=ext",
    "a comma ahead": "," + GOOD,
    "a comma behind": GOOD + ",",
    "no equals sign": GOOD.replace("s=", "s"),
    "an error": "e=other-error",
    "an error that nobody knows": "e=\x1b[2J",
    "an error and more": "e=other-error," + GOOD,
    "the final message": "v=AAAA",
} | {
    f"count {count!r}": GOOD.replace("4096", count)
    for count in ("0", "-1", "+1", "+4096", "4096x", " 4096", "4096 ", "04096", "4_096", "0x1000")
    + ("", "4096.0", "1e4", "100001", "2147483647", "2147483648", "10000000000", "9" * 5000)
}


@pytest.mark.parametrize("mutant", SERVER_FIRST.values(), ids=SERVER_FIRST)
def test_a_first_message_that_breaks_the_rules(mutant: str) -> None:
    dialogue = authenticating().receive(SASL)
    nonce = client_first(dialogue).decode().split(",r=")[1]
    for word, stands_for in (
        ("CLIENT", nonce),
        ("SHORT", nonce[:-1]),
        ("BOTH", nonce + "3rfc"),
        (NONCE, nonce + "3rfc"),
    ):
        mutant = mutant.replace(word, stands_for)
    message = builders.authentication(11, mutant.encode())
    said = refused(dialogue, message, kind=AuthenticationError)
    assert "SCRAM" in said
    assert said.isprintable()
    assert len(said) < 500
    assert len(dialogue.sent) == 1, "nothing that comes of the password may leave"


def test_the_iteration_count_is_named() -> None:
    dialogue = authenticating().receive(SASL)
    nonce = client_first(dialogue).decode().split(",r=")[1]
    mutant = GOOD.replace(NONCE, nonce + "3rfc").replace("4096", "100001")
    said = refused(dialogue, builders.authentication(11, mutant.encode()), kind=AuthenticationError)
    assert "expected a SCRAM iteration count between 1 and 100000, got '100001'" in said


def test_bytes_that_are_no_ascii() -> None:
    dialogue = authenticating().receive(SASL)
    message = builders.authentication(11, b"r=\xc3\xa9")
    said = refused(dialogue, message, kind=AuthenticationError)
    assert "expected a SCRAM message in ASCII" in said


SERVER_FINAL: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda good: b"",
    "no signature": lambda good: b"v=",
    "another signature": lambda good: b"v=" + base64.b64encode(bytes(32)),
    "a signature cut short": lambda good: b"v=" + base64.b64encode(base64.b64decode(good[2:])[:31]),
    "a longer signature": lambda good: b"v=" + base64.b64encode(base64.b64decode(good[2:]) + b"x"),
    "another letter": lambda good: b"V" + good[1:],
    "another attribute": lambda good: b"p" + good[1:],
    "no base64": lambda good: b"v=!!!!",
    "without its end": lambda good: good.rstrip(b"="),
    "a zero byte behind": lambda good: good + b"\0",
    "a comma behind": lambda good: good + b",",
    "twice": lambda good: good + b"," + good,
    "an error": lambda good: b"e=invalid-proof",
    "an error that nobody knows": lambda good: b"e=nobody-knows",
    "an error and a signature": lambda good: b"e=other-error," + good,
    "something mandatory": lambda good: b"m=ext," + good,
    "no ASCII": lambda good: good + b"\xff",
}


@pytest.mark.parametrize("mutate", SERVER_FINAL.values(), ids=SERVER_FINAL)
def test_a_final_message_that_proves_nothing(mutate: Callable[[bytes], bytes]) -> None:
    server = ScramServer(b"pencil")
    dialogue = authenticating().receive(SASL)
    proceed(dialogue, server.first(client_first(dialogue)))
    message = builders.authentication(12, mutate(server.final(dialogue.sent[1][5:])))
    assert "SCRAM" in refused(dialogue, message, kind=AuthenticationError)


@pytest.mark.parametrize("early", [OK, SASL, CLEARTEXT, MD5, builders.authentication(12, b"v=x")])
def test_no_step_can_be_left_out_before_the_first_message(early: bytes) -> None:
    dialogue = authenticating().receive(SASL)
    said = refused(dialogue, early, kind=AuthenticationError)
    assert "expected step 11 of the SCRAM exchange" in said
    assert "must prove that it knows the password" in said
    assert len(dialogue.sent) == 1


@pytest.mark.parametrize("early", [OK, SASL, CLEARTEXT, MD5, builders.authentication(11, b"r=x")])
def test_no_step_can_be_left_out_before_the_final_message(early: bytes) -> None:
    server = ScramServer(b"pencil")
    dialogue = authenticating().receive(SASL)
    proceed(dialogue, server.first(client_first(dialogue)))
    said = refused(dialogue, early, kind=AuthenticationError)
    assert "expected step 12 of the SCRAM exchange" in said


def test_after_the_final_message_comes_ok() -> None:
    for late in (SASL, CLEARTEXT, builders.authentication(12, b"v=x")):
        server = ScramServer(b"pencil")
        dialogue = authenticating().receive(SASL)
        proceed(dialogue, server.first(client_first(dialogue)))
        dialogue.receive(builders.authentication(12, server.final(dialogue.sent[1][5:])))
        assert "expected AuthenticationOk, got request" in refused(dialogue, late)


def test_whatever_the_library_raises_is_an_authentication_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        def __init__(self, mechanisms: object, user: object, password: str) -> None:
            raise ValueError(f"I do not like {password}")

    monkeypatch.setattr(authentication, "ScramClient", Broken)
    with pytest.raises(AuthenticationError, match="a message that cannot be read") as caught:
        authenticating("Zq7Xk9").receive(SASL)
    assert "Zq7Xk9" not in str(caught.value)
    assert caught.value.__context__ is None
    assert ProtocolError not in type(caught.value).__mro__
