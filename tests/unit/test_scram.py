"""SCRAM-SHA-256 and -PLUS by themselves: known numbers, and every message that breaks the rules."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from pgrepl.errors import AuthenticationError, UsageError
from pgrepl.protocol.saslprep import prepared
from pgrepl.protocol.scram import (
    NO_BINDING,
    SERVER_CANNOT_BIND,
    ChannelBinding,
    Keys,
    ScramExchange,
    given_keys,
    keys_of_password,
)
from pgrepl.secret import Secret
from tests.support.scram import ScramServer, WrongProof, keys

NONCE = "fyko+d2lbbFgONRv9qkxdawL"
SALT = bytes(range(16))
PENCIL = Secret("pencil")
SERVER_FIRST = f"r={NONCE}3rfcNHYJY1ZVvWVs7j,s=AAECAwQFBgcICQoLDA0ODw==,i=4096"
SERVER_FINAL = "v=l7GfuRZ1rBzU/zQvO/OrVVNJQSpX5JEwqIi6uajtqNE="
LIMIT = 100_000


def exchange(binding: ChannelBinding = NO_BINDING) -> ScramExchange:
    return ScramExchange(binding, NONCE)


# Known numbers


def test_the_second_opinion_agrees_with_known_numbers() -> None:
    nonce = NONCE.encode()
    server = ScramServer(b"pencil")
    first = server.first(b"n,,n=,r=" + nonce)
    assert first == SERVER_FIRST.encode()
    final = b"c=biws,r=" + nonce + b"3rfcNHYJY1ZVvWVs7j,p="
    signature = server.final(final + b"BF71PfZ6nj3U/iEToghBeRs17IpD8qK3gd+S/HiN4hM=")
    assert signature == SERVER_FINAL.encode()
    with pytest.raises(WrongProof):
        server.final(final + b"AF71PfZ6nj3U/iEToghBeRs17IpD8qK3gd+S/HiN4hM=")
    stored_key, server_key = keys(b"pencil", SALT, 4096)
    assert base64.b64encode(stored_key) == b"zHCdol2044/ZyWzPLi7oxApCkamKw9Z+E4U/QApd/5Y="
    assert base64.b64encode(server_key) == b"dd5peBOitVnLNFu7VmwP+HiDaaw4OUCv396eVCWhYiE="


def test_the_example_of_rfc_7677() -> None:
    made = keys_of_password(PENCIL, base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    nonces = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    spoken = (
        f"n=user,r=rOprNGfwEbeRWgbNEkqO,{nonces},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,{nonces}"
    ).encode()
    assert made.proof(spoken) == base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    signature = base64.b64decode("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    assert made.signature(spoken) == signature


def test_an_exchange_without_channel_binding() -> None:
    client = exchange()
    assert client.first() == f"n,,n=,r={NONCE}".encode()
    client.take_server_first(SERVER_FIRST.encode(), LIMIT)
    assert (client.salt, client.iterations) == (SALT, 4096)
    final = client.final(keys_of_password(PENCIL, client.salt, client.iterations))
    proof = b"p=BF71PfZ6nj3U/iEToghBeRs17IpD8qK3gd+S/HiN4hM="
    assert final == f"c=biws,r={NONCE}3rfcNHYJY1ZVvWVs7j,".encode() + proof
    client.take_server_final(SERVER_FINAL.encode())


def test_an_exchange_with_channel_binding() -> None:
    client = exchange(ChannelBinding.tls_server_end_point(bytes(range(32))))
    assert client.first() == f"p=tls-server-end-point,,n=,r={NONCE}".encode()
    client.take_server_first(SERVER_FIRST.encode(), LIMIT)
    assert client.final(keys_of_password(PENCIL, SALT, 4096)) == (
        b"c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
        b",r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j"
        b",p=40wcEvEdMBZpjNwsVhDLOqrwuhiIV8rXUwh3ri/fbpw="
    )
    with pytest.raises(AuthenticationError, match="expected a signature in the SCRAM exchange"):
        client.take_server_final(SERVER_FINAL.encode())
    client.take_server_final(b"v=NO+AxisZDOnwVVvywV0Vv2YQJohESTCuytAEZ7osDpU=")


def test_a_server_that_cannot_bind_is_told_that_the_client_could() -> None:
    client = exchange(SERVER_CANNOT_BIND)
    server = ScramServer(b"pencil")
    assert client.first().startswith(b"y,,n=,r=")
    client.take_server_first(server.first(client.first()), LIMIT)
    final = client.final(keys_of_password(PENCIL, client.salt, client.iterations))
    assert final.startswith(b"c=eSws,")
    client.take_server_final(server.final(final))


def test_keys_in_place_of_a_password() -> None:
    made = keys_of_password(PENCIL, SALT, 4096)
    server_key = "dd5peBOitVnLNFu7VmwP+HiDaaw4OUCv396eVCWhYiE="
    assert made.server.reveal() == server_key
    given = given_keys(Secret(made.client.reveal()), Secret(server_key))
    assert (given.proof(b"x"), given.signature(b"x")) == (made.proof(b"x"), made.signature(b"x"))
    assert repr(made) == "Keys(client=***, server=***)"


@pytest.mark.parametrize(
    "bad", ["", "x", "é", "A" * 42 + "==", "A" * 43, "A" * 44, "AAAA", "!" * 44], ids=ascii
)
def test_keys_that_are_none(bad: str) -> None:
    good = Secret(base64.b64encode(bytes(32)).decode())
    for client, server, name in ((bad, None, "client"), (None, bad, "server")):
        pair = [good if text is None else Secret(text) for text in (client, server)]
        with pytest.raises(UsageError, match=f"32 bytes in base64 as scram_{name}_key") as caught:
            given_keys(*pair)
        assert caught.value.__context__ is None


def test_v13_v22_every_exchange_has_a_nonce_of_its_own() -> None:
    nonces = {ScramExchange(NO_BINDING).first()[8:] for _ in range(50)}
    assert len(nonces) == 50
    assert all(len(base64.b64decode(nonce, validate=True)) == 18 for nonce in nonces)


# What a server may not say. NONCE stands for the nonce of the client, BOTH for that of both.

GOOD = "r=BOTH,s=AAECAwQFBgcICQoLDA0ODw==,i=4096"
BAD_SERVER_FIRST = {
    "empty": "",
    "words": "hello",
    "zero byte": "\0",
    "zero byte behind": GOOD + "\0",
    "newline behind": GOOD + "\n",
    "no ASCII": GOOD.replace("BOTH", "BOTHé"),
    "a nonce of its own": GOOD.replace("BOTH", "other"),
    "a nonce not extended": GOOD.replace("BOTH", "NONCE"),
    "a nonce cut short": GOOD.replace("BOTH", NONCE[:-1]),
    "a nonce with something before it": GOOD.replace("BOTH", "xBOTH"),
    "a nonce in other letters": GOOD.replace("BOTH", f"{NONCE}3rfc".swapcase()),
    "the nonce behind that of the server": GOOD.replace("BOTH", "3rfcNONCE"),
    "no nonce": GOOD.partition(",")[2],
    "an empty nonce": GOOD.replace("BOTH", ""),
    "a zero byte in the nonce": GOOD.replace("BOTH", "BOTH\0"),
    "DEL in the nonce": GOOD.replace("BOTH", "BOTH\x7f"),
    "a space in the nonce": GOOD.replace("BOTH", "BOTH x"),
    "a comma in the nonce": GOOD.replace("BOTH", "BOTH,x"),
    "a nonce twice": GOOD.replace("s=", "r=BOTH,s="),
    "the letter of the nonce in capitals": GOOD.replace("r=", "R="),
    "no salt": "r=BOTH,i=4096",
    "an empty salt": "r=BOTH,s=,i=4096",
    "salt that is no base64": "r=BOTH,s=!!!!,i=4096",
    "salt of which a byte is no base64": GOOD.replace("AECA", "AE\x1b["),
    "salt without its end": GOOD.replace("==", ""),
    "salt with half of its end": GOOD.replace("==", "="),
    "salt with too much of an end": GOOD.replace("==", "==="),
    "salt with bits behind its end": GOOD.replace("Dw==", "Dx=="),
    "salt in the alphabet for URLs": "r=BOTH,s=_-8=,i=4096",
    "salt with a space": GOOD.replace("AAEC", "AA EC"),
    "salt with a newline": GOOD.replace("AAEC", "AAEC\n"),
    "salt twice": GOOD.replace("i=", "s=AAECAwQFBgcICQoLDA0ODw==,i="),
    "another order": "s=AAECAwQFBgcICQoLDA0ODw==,r=BOTH,i=4096",
    "the count first": "i=4096,r=BOTH,s=AAECAwQFBgcICQoLDA0ODw==",
    "the count before the salt": "r=BOTH,i=4096,s=AAECAwQFBgcICQoLDA0ODw==",
    "no count": "r=BOTH,s=AAECAwQFBgcICQoLDA0ODw==",
    "the count twice": GOOD + ",i=4096",
    "a mandatory extension": "m=ext," + GOOD,
    "a mandatory extension in between": GOOD.replace("s=", "m=ext,s="),
    "a mandatory extension at the end": GOOD + ",m=ext",
    "an extension at the end": GOOD + ",x=ext",
    "a comma ahead": "," + GOOD,
    "a comma behind": GOOD + ",",
    "a space ahead": " " + GOOD,
    "no equals sign": GOOD.replace("s=", "s"),
    "two equals signs": GOOD.replace("i=", "i=="),
    "an error": "e=other-error",
    "an error that nobody knows": "e=\x1b[2J",
    "an error and more": "e=other-error," + GOOD,
    "the final message": SERVER_FINAL,
    "the client's own message": "n=,r=NONCE",
} | {
    f"count {count!r}": GOOD.replace("4096", count)
    for count in ("0", "-1", "+1", "+4096", "4096x", " 4096", "4096 ", "04096", "4_096", "0x1000")
    + ("", "4096.0", "1e4", "100001", "2147483647", "2147483648", "10000000000", "9" * 5000)
    + ("00000000001", "4096\0", "4096\n", "4\x00096")
}


@pytest.mark.parametrize("mutant", BAD_SERVER_FIRST.values(), ids=BAD_SERVER_FIRST)
def test_v4_v22_a_first_message_that_breaks_the_rules(mutant: str) -> None:
    text = mutant.replace("BOTH", f"{NONCE}3rfc").replace("NONCE", NONCE)
    client = exchange()
    with pytest.raises(AuthenticationError) as caught:
        client.take_server_first(text.encode(), LIMIT)
    said = str(caught.value)
    assert "SCRAM" in said
    assert said.isprintable()
    assert len(said) < 400
    assert caught.value.__context__ is None


def test_the_message_that_the_others_were_made_of() -> None:
    client = exchange()
    client.take_server_first(GOOD.replace("BOTH", f"{NONCE}3rfc").encode(), LIMIT)
    assert client.iterations == 4096


@pytest.mark.parametrize("salt", [b"\0", b"x" * 4, b"x" * 1000])
def test_salt_may_be_short_or_long(salt: bytes) -> None:
    client = exchange()
    text = GOOD.replace("BOTH", f"{NONCE}x").replace(
        "AAECAwQFBgcICQoLDA0ODw==", base64.b64encode(salt).decode()
    )
    client.take_server_first(text.encode(), LIMIT)
    assert client.salt == salt


def test_v4_the_iteration_count_is_bounded_by_a_setting_and_not_from_below() -> None:
    for count, limit in ((1, LIMIT), (256, LIMIT), (LIMIT, LIMIT), (1, 1), (999_999, 1_000_000)):
        client = exchange()
        text = GOOD.replace("BOTH", f"{NONCE}x").replace("4096", str(count))
        client.take_server_first(text.encode(), limit)
        assert client.iterations == count
        with pytest.raises(AuthenticationError) as caught:
            exchange().take_server_first(text.encode(), count - 1)
        assert f"expected a SCRAM iteration count between 1 and {count - 1}, got '{count}'" in str(
            caught.value
        )
        assert "raise scram_max_iterations" in str(caught.value)


BAD_SERVER_FINAL: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda good: b"",
    "no signature": lambda good: b"v=",
    "another signature": lambda good: b"v=" + base64.b64encode(bytes(32)),
    "a signature of nothing": lambda good: b"v=AA==",
    "a signature cut short": lambda good: b"v=" + base64.b64encode(base64.b64decode(good[2:])[:31]),
    "a longer signature": lambda good: b"v=" + base64.b64encode(base64.b64decode(good[2:]) + b"x"),
    "another letter": lambda good: b"V" + good[1:],
    "another attribute": lambda good: b"p" + good[1:],
    "no base64": lambda good: b"v=!!!!",
    "without its end": lambda good: good.rstrip(b"="),
    "bits behind its end": lambda good: good[:-2] + b"F=",
    "a newline behind": lambda good: good + b"\n",
    "a zero byte behind": lambda good: good + b"\0",
    "a comma behind": lambda good: good + b",",
    "an extension behind": lambda good: good + b",x=y",
    "twice": lambda good: good + b"," + good,
    "a space ahead": lambda good: b" " + good,
    "an error": lambda good: b"e=invalid-proof",
    "an error that nobody knows": lambda good: b"e=nobody-knows",
    "an error that steers a terminal": lambda good: b"e=\x1b[2J",
    "an empty error": lambda good: b"e=",
    "an error and a signature": lambda good: b"e=other-error," + good,
    "a signature and an error": lambda good: good + b",e=other-error",
    "a long error": lambda good: b"e=" + b"x" * 1900,
    "something mandatory": lambda good: b"m=ext," + good,
    "the first message": lambda good: SERVER_FIRST.encode(),
    "no ASCII": lambda good: good + b"\xff",
}


@pytest.mark.parametrize("mutate", BAD_SERVER_FINAL.values(), ids=BAD_SERVER_FINAL)
def test_v22_a_final_message_that_proves_nothing(mutate: Callable[[bytes], bytes]) -> None:
    client = exchange()
    client.take_server_first(SERVER_FIRST.encode(), LIMIT)
    client.final(keys_of_password(PENCIL, SALT, 4096))
    with pytest.raises(AuthenticationError) as caught:
        client.take_server_final(mutate(SERVER_FINAL.encode()))
    said = str(caught.value)
    assert "SCRAM" in said
    assert said.isprintable()
    assert len(said) < 400


def test_the_error_of_a_server_is_named() -> None:
    with pytest.raises(AuthenticationError, match=r"with the error 'other-error'"):
        exchange().take_server_final(b"e=other-error")


def test_v22_a_signature_before_there_is_a_proof_is_none() -> None:
    client = exchange()
    client.take_server_first(SERVER_FIRST.encode(), LIMIT)
    with pytest.raises(AuthenticationError, match="proves that the server knows the password"):
        client.take_server_final(SERVER_FINAL.encode())


def test_v22_a_server_that_does_not_know_the_password_is_not_believed() -> None:
    client = exchange()
    client.take_server_first(SERVER_FIRST.encode(), LIMIT)
    client.final(keys_of_password(Secret("pen"), SALT, 4096))
    with pytest.raises(AuthenticationError, match="got another one: this is not the server"):
        client.take_server_final(SERVER_FINAL.encode())


def test_keys_do_not_show() -> None:
    made = keys_of_password(PENCIL, SALT, 1)
    for each in (made, Keys(PENCIL, PENCIL)):
        assert "***" in f"{each!r}"
        assert "pencil" not in f"{each!r} {each}"
        assert made.client.reveal() not in repr(each)


def test_an_openssl_that_does_not_hash_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(name: str, password: bytes, salt: bytes, iterations: int) -> bytes:
        raise ValueError("[digital envelope routines] invalid salt length")

    monkeypatch.setattr("pgrepl.protocol.scram.hashlib", SimpleNamespace(pbkdf2_hmac=refuses))
    with pytest.raises(AuthenticationError) as caught:
        keys_of_password(PENCIL, b"salt", 1)
    assert "with 4 bytes of salt and 1 iterations" in str(caught.value)
    assert "invalid salt length" in str(caught.value)
    assert caught.value.__context__ is None


# Passwords


@pytest.mark.parametrize(
    ("password", "hashed"),
    [
        # RFC 4013, section 3
        ("I\u00adX", b"IX"),
        ("user", b"user"),
        ("USER", b"USER"),
        ("\u00aa", b"a"),
        ("\u2168", b"IX"),
        # Prohibited, and written in both directions: PostgreSQL takes them as they are.
        ("\u0007\u00e9", "\u0007\u00e9".encode()),
        ("\u0627\u00a01", "\u0627\u00a01".encode()),
        ("\u0627\u00a0x\u0627", "\u0627\u00a0x\u0627".encode()),
        ("1\u00a0\u0627", "1\u00a0\u0627".encode()),
        ("\u0627\u00a01\u0627", "\u0627 1\u0627".encode()),
        # ASCII, control characters and all
        ("\x07\x7f", b"\x07\x7f"),
        ("", b""),
        ("a b", b"a b"),
        # Spaces, and what is mapped to nothing
        ("a\u00a0\u3000b", b"a  b"),
        ("\u200b", b" "),
        ("a\ufe0f\u2060b", b"ab"),
        ("\u00ad", "\u00ad".encode()),
        # Not assigned in Unicode 3.2, private, no characters, tags
        ("pass\U0001f600\u2168", "pass\U0001f600\u2168".encode()),
        ("\U0001f130\u2168", "\U0001f130\u2168".encode()),
        ("\ue000\u2168", "\ue000\u2168".encode()),
        ("\ufdd0\u2168", "\ufdd0\u2168".encode()),
        ("\U000e0001\u2168", "\U000e0001\u2168".encode()),
        ("\ufffd\u2168", "\ufffd\u2168".encode()),
        ("\u2ff0\u2168", "\u2ff0\u2168".encode()),
        ("\u0340\u2168", "\u0340\u2168".encode()),
        # Bytes that are no UTF-8, as os.environ gives them
        ("\udcff\u2168", b"\xff\xe2\x85\xa8"),
        ("\udcc3\udca9", b"\xc3\xa9"),
        # Composed and decomposed
        ("\u0065\u0301", "\u00e9".encode()),
        ("\u212b", "\u00c5".encode()),
    ],
    ids=ascii,
)
def test_what_is_hashed(password: str, hashed: bytes) -> None:
    assert prepared(Secret(password)) == hashed


@pytest.mark.parametrize("password", ["\ud800", "\u2168\udfff", "Zq7\ud83d"], ids=ascii)
def test_a_password_that_is_no_text(password: str) -> None:
    with pytest.raises(UsageError, match="lone surrogates") as caught:
        prepared(Secret(password))
    assert caught.value.__context__ is None


def test_ctrl_c_while_a_password_is_prepared_shows_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(form: str, text: str) -> str:
        raise KeyboardInterrupt

    broken = SimpleNamespace(normalize=interrupted)
    monkeypatch.setattr("pgrepl.protocol.saslprep.unicodedata", broken)
    with pytest.raises(KeyboardInterrupt) as caught:
        prepared(Secret("Zq7é"))
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)][1:]
    assert [frame.f_code.co_name for frame in frames][-1] == "prepared"
    assert all("Zq7" not in repr(frame.f_locals) for frame in frames)
