"""A password to look for, every way to give one, and servers with which connecting fails.

Law: nothing here uses pgrepl.
"""

from __future__ import annotations

import logging
import secrets
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import quote

import pytest

from tests.support import builders
from tests.support.disclosure import everything_about, traces
from tests.support.scram import MECHANISM, ScramServer
from tests.support.scripted import Peer, Script

__all__ = [
    "CANARY",
    "CLEARTEXT",
    "MD5",
    "OK",
    "PIECES",
    "READY",
    "REJECTED",
    "SASL",
    "SCRIPTS",
    "USER",
    "WAYS",
    "Look",
    "found_in",
    "no_chance",
    "scram_with",
    "sends",
    "watching",
]

CANARY: Final = "Zq7/Xk9 %é"
PIECES: Final = ("Zq7", "Xk9")
USER: Final = "ann"

OK: Final = builders.authentication(0)
READY: Final = builders.ready_for_query()
CLEARTEXT: Final = builders.authentication(3)
MD5: Final = builders.authentication(5, b"salt")
SASL: Final = builders.sasl_mechanisms(MECHANISM)
REJECTED: Final = builders.error_response("wrong password", severity="FATAL", sqlstate="28P01")

Way: TypeAlias = Callable[[str, Path, pytest.MonkeyPatch], tuple[str, dict[str, str]]]


def _variable(password: str, folder: Path, patch: pytest.MonkeyPatch) -> tuple[str, dict[str, str]]:
    patch.setenv("PGPASSWORD", password)
    return f"user={USER}", {}


def _password_file(
    password: str, folder: Path, patch: pytest.MonkeyPatch
) -> tuple[str, dict[str, str]]:
    file = folder / ".pgpass"
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    file.write_text(f"# Zq7Xk9\nother:*:*:*:Xk9Zq7\n*:*:*:*:{escaped}\n", "utf-8")
    file.chmod(0o600)
    return f"user={USER}", {"passfile": str(file)}


def _service(password: str, folder: Path, patch: pytest.MonkeyPatch) -> tuple[str, dict[str, str]]:
    file = folder / "pg_service.conf"
    file.write_text(f"[canary]\nuser={USER}\npassword={password}\n", "utf-8")
    patch.setenv("PGSERVICEFILE", str(file))
    return "service=canary", {}


# Each way to give a password, as what `connect` is called with.
WAYS: Final[dict[str, Way]] = {
    "uri": lambda p, _, __: (f"postgresql://{USER}:{quote(p, safe='')}@/shop", {}),
    "query of a uri": lambda p, _, __: (
        f"postgresql://{USER}@/?password={quote(p, safe='')}",
        {},
    ),
    "conninfo": lambda p, _, __: (f"user={USER} password='{p}' dbname=shop", {}),
    "keyword": lambda p, _, __: (f"user={USER}", {"password": p}),
    "variable": _variable,
    "password file": _password_file,
    "service": _service,
}


# Looking for it

Look: TypeAlias = Callable[[BaseException, str], None]


def found_in(text: str, password: str = CANARY) -> list[str]:
    """What a text shows of a password."""
    return [trace for trace in traces(password, USER, *PIECES) if trace in text]


@contextmanager
def no_chance() -> Iterator[None]:
    """What should be random is not: a nonce might have a piece of the password by chance."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_bytes", lambda size: bytes(range(size)))
        yield


@contextmanager
def watching(caplog: pytest.LogCaptureFixture) -> Iterator[Look]:
    """Looks for a password in errors and, at the end, in all that was logged and warned of."""
    passwords = set()

    def look(error: BaseException, password: str = CANARY) -> None:
        passwords.add(password)
        shown = everything_about(error)
        assert "pgrepl" in shown, "there should be frames of the library to look at"
        assert found_in(shown, password) == []

    with (
        caplog.at_level(logging.DEBUG),
        warnings.catch_warnings(record=True) as warned,
        no_chance(),
    ):
        warnings.simplefilter("always")
        yield look
    told = caplog.text + "".join(f"{record.__dict__}" for record in caplog.records)
    told += "".join(str(each.message) for each in warned)
    assert passwords
    for password in passwords:
        assert found_in(told, password) == []


# Servers


def scram_until(step: int) -> Script:
    """A script that breaks off after so many of its messages."""

    def script(peer: Peer) -> None:
        server = ScramServer(CANARY.encode())
        peer.recv_startup()
        peer.send(SASL)
        client_first = peer.expect(b"p").partition(b"\0")[2][4:]
        if step > 1:
            peer.send(builders.authentication(11, server.first(client_first)))
            final = server.final(peer.expect(b"p"))
            if step > 2:
                peer.send(builders.authentication(12, final))

    return script


def scram_with(change: Callable[[bytes], bytes], final: bytes | None = None) -> Script:
    """A script whose first message, or final one, breaks the rules."""

    def script(peer: Peer) -> None:
        server = ScramServer(CANARY.encode())
        peer.recv_startup()
        peer.send(SASL)
        first = server.first(peer.expect(b"p").partition(b"\0")[2][4:])
        peer.send(builders.authentication(11, change(first)))
        if final is not None:
            peer.expect(b"p")
            peer.send(final)
        peer.expect_hang_up()

    return script


def sends(*messages: bytes, hears: int = 0) -> Script:
    """A script that sends messages, hears as many and hangs up."""

    def script(peer: Peer) -> None:
        peer.recv_startup()
        for message in messages:
            peer.send(message)
        for _ in range(hears):
            peer.expect(b"p")

    return script


def resets(*messages: bytes) -> Script:
    """A script that resets the connection when it hears an answer."""

    def script(peer: Peer) -> None:
        peer.recv_startup()
        for message in messages:
            peer.send(message)
        peer.expect(b"p")
        peer.reset()

    return script


SCRIPTS: Final[dict[str, Script]] = {
    "the end at once": sends(),
    "the end in a message": sends(OK[:5]),
    "the end after AuthenticationOk": sends(OK),
    "the end before ready": sends(OK, builders.backend_key_data()),
    "the end after the password": sends(CLEARTEXT, hears=1),
    "the end after MD5": sends(MD5, hears=1),
    "the end after the first step": scram_until(1),
    "the end after the second step": scram_until(2),
    "the end after the third step": scram_until(3),
    "a reset after the password": resets(CLEARTEXT),
    "a reset after MD5": resets(MD5),
    "a reset in SCRAM": resets(SASL),
    "the password rejected": sends(CLEARTEXT, REJECTED, hears=1),
    "MD5 rejected": sends(MD5, REJECTED, hears=1),
    "SCRAM rejected": scram_with(lambda first: first, REJECTED),
    "the password asked for twice": sends(CLEARTEXT, CLEARTEXT, hears=1),
    "MD5 after the password": sends(CLEARTEXT, MD5, hears=1),
    "a method that nobody knows": sends(builders.authentication(7)),
    "a mechanism that nobody knows": sends(builders.sasl_mechanisms("OTHER")),
    "a cut message": sends(builders.authentication(5, b"sal")),
    "no message at all": sends(b"HTTP/1.1 400"),
    "a length": sends(CLEARTEXT, b"R\xff\xff\xff\xff", hears=1),
    "a cut setting": sends(OK, builders.message(b"S", b"client_encoding"), READY),
    "turned away": sends(OK, builders.error_response("full", severity="FATAL", sqlstate="53300")),
    "no end of notices": sends(CLEARTEXT, builders.notice_response("n") * 1200, hears=1),
    "another nonce": scram_with(lambda first: b"r=other" + first[first.index(b",") :]),
    "a hostile count": scram_with(lambda first: first + b"000000"),
    "a bad salt": scram_with(lambda first: first.replace(b"s=", b"s=!")),
    "no SCRAM at all": scram_with(lambda first: b"\xff"),
    "a wrong signature": scram_with(lambda first: first, builders.authentication(12, b"v=AAAA")),
    "an error in SCRAM": scram_with(lambda first: first, builders.authentication(12, b"e=no")),
    "no signature": scram_with(lambda first: first, OK),
}
