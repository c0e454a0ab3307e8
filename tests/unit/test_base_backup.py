"""BASE_BACKUP in both grammars, and manifests that are uploaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pgrepl.errors import ServerError, UsageError
from pgrepl.protocol import frontend
from pgrepl.protocol.backend import ServerState
from pgrepl.protocol.base_backup import base_backup_command, upload_manifest
from pgrepl.protocol.conversation import Receive
from tests.support import builders
from tests.support.dialogue import Dialogue, refused

READY = builders.ready_for_query()
OLD, NEW = "14.19", "18.4"


def state_of(version: str) -> ServerState:
    state = ServerState()
    state.parameters["server_version"] = version
    return state


# The command


def said(version: str, options: Any) -> str:
    return base_backup_command(state_of(version), options)


EVERYTHING: dict[str, Any] = {
    "label": "it's",
    "progress": True,
    "checkpoint": "fast",
    "wal": True,
    "wait": False,
    "max_rate": 32,
    "tablespace_map": True,
    "verify_checksums": False,
}


@pytest.mark.parametrize(
    ("version", "more", "expected"),
    [
        ("10.23", {"verify_checksums": None}, ""),
        ("11.22", {}, " NOVERIFY_CHECKSUMS"),
        ("12.22", {}, " NOVERIFY_CHECKSUMS"),
        (
            "13.23",
            {"manifest": "force-encode", "manifest_checksums": "SHA256"},
            " NOVERIFY_CHECKSUMS MANIFEST 'force-encode' MANIFEST_CHECKSUMS 'SHA256'",
        ),
        ("14.19", {"manifest": "yes"}, " NOVERIFY_CHECKSUMS MANIFEST 'yes'"),
    ],
)
def test_the_old_grammar_has_bare_words(version: str, more: dict[str, Any], expected: str) -> None:
    command = said(version, EVERYTHING | more)
    start = "BASE_BACKUP LABEL 'it''s' PROGRESS FAST WAL NOWAIT MAX_RATE 32 TABLESPACE_MAP"
    assert command == start + expected


@pytest.mark.parametrize(
    ("version", "more", "expected"),
    [
        ("15.14", {}, ""),
        (
            "16.10",
            {"manifest": "no", "compression": "zstd", "compression_detail": "level=3,long"},
            ", MANIFEST 'no', COMPRESSION 'zstd', COMPRESSION_DETAIL 'level=3,long'",
        ),
        (
            "17.6",
            {"target": "server", "target_detail": "/a'b", "incremental": True},
            ", TARGET 'server', TARGET_DETAIL '/a''b', INCREMENTAL true",
        ),
        ("18.4", {"manifest": "yes", "manifest_checksums": "NONE"}, None),
        ("19beta1", {"compression": "none", "target": "client", "incremental": False}, None),
    ],
)
def test_the_new_grammar_has_a_list(
    version: str, more: dict[str, Any], expected: str | None
) -> None:
    command = said(version, EVERYTHING | more)
    start = (
        "BASE_BACKUP (LABEL 'it''s', PROGRESS true, CHECKPOINT 'fast', WAL true, WAIT false, "
        "MAX_RATE 32, TABLESPACE_MAP true, VERIFY_CHECKSUMS false"
    )
    if expected is None:
        given = {name: value for name, value in more.items() if value is not False}
        expected = "".join(f", {name.upper()} '{value}'" for name, value in given.items())
    assert command == f"{start}{expected})"


@pytest.mark.parametrize("version", ["10.23", "14.19", "15.14", "18.4", ""])
def test_what_is_not_given_is_not_said(version: str) -> None:
    nothing = dict.fromkeys(EVERYTHING)
    # A server without them does without them.
    off = {"progress": False, "wal": False, "tablespace_map": False, "incremental": False}
    for options in ({}, nothing, off):
        assert said(version, options) == "BASE_BACKUP"


def test_what_an_old_server_does_anyway_takes_no_words() -> None:
    anyway: Any = {"checkpoint": "spread", "wait": True, "max_rate": 0, "verify_checksums": True}
    assert said(OLD, anyway) == "BASE_BACKUP"
    assert said(NEW, anyway) == (
        "BASE_BACKUP (CHECKPOINT 'spread', WAIT true, MAX_RATE 0, VERIFY_CHECKSUMS true)"
    )


SINCE: dict[str, tuple[Any, int]] = {
    "verify_checksums": (True, 11),
    "manifest": ("no", 13),
    "manifest_checksums": ("CRC32C", 13),
    "compression": ("none", 15),
    "compression_detail": ("1", 15),
    "target": ("client", 15),
    "target_detail": ("x", 15),
    "incremental": (True, 17),
}


@pytest.mark.parametrize("name", SINCE)
def test_a_server_may_be_too_old_for_an_option(name: str) -> None:
    value, since = SINCE[name]
    for version in range(10, 20):
        options: Any = {name: value}
        if version >= since:
            assert said(f"{version}.1", options)
            continue
        words = (
            f"base backups with {name} need PostgreSQL {since} or later, the server is {version}.1"
        )
        with pytest.raises(UsageError, match=words):
            said(f"{version}.1", options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label": "a\0b"}, "without zero bytes"),
        ({"label": 7}, "expected text for label, got 7"),
        ({"progress": "yes"}, "expected True or False for progress, got 'yes'"),
        ({"checkpoint": "FAST"}, "expected one of fast, spread for checkpoint, got 'FAST'"),
        ({"manifest": True}, "expected one of yes, no, force-encode for manifest, got True"),
        ({"manifest_checksums": "MD5"}, "CRC32C, SHA224, SHA256, SHA384, SHA512"),
        ({"compression": "gzip:9"}, "expected one of none, gzip, lz4, zstd for compression"),
        ({"max_rate": 31}, "expected 32 to 1048576 KiB a second for max_rate, or 0"),
        ({"max_rate": 1048577}, "got 1048577"),
        ({"max_rate": -1}, "got -1"),
        ({"max_rate": "32"}, "got '32'"),
        ({"target": b"server"}, "expected text for target"),
    ],
)
def test_options_that_make_no_sense(options: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        said(NEW, options)


def test_an_option_that_there_is_not() -> None:
    with pytest.raises(TypeError, match="unexpected options fast, speed"):
        said(NEW, {"speed": 1, "fast": True})


# Manifests that are uploaded

UPLOAD = frontend.query("UPLOAD_MANIFEST")
UPLOADED = (builders.command_complete("UPLOAD_MANIFEST"), READY)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"manifest", [b"manifest"]),
        (bytearray(b"manifest"), [b"manifest"]),
        (memoryview(b"manifest"), [b"manifest"]),
        ([b"mani", b"", b"fest"], [b"mani", b"fest"]),
        (iter([b"x" * 65536, b"y"]), [b"x" * 65536, b"y"]),
        (b"x" * 150000, [b"x" * 65536, b"x" * 65536, b"x" * 18928]),
        (b"", []),
        ([], []),
    ],
)
def test_a_manifest_is_uploaded_in_pieces(given: Any, expected: list[bytes]) -> None:
    dialogue = Dialogue(upload_manifest(state_of("17.6"), given))
    assert dialogue.sent == [UPLOAD]
    dialogue.receive(builders.copy_in_response())
    assert dialogue.sent[1:] == [
        *(builders.copy_data(each) for each in expected),
        builders.copy_done(),
    ]
    assert dialogue.receive(*UPLOADED).result is None


def test_pieces_are_taken_one_after_the_other() -> None:
    taken: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(3):
            taken.append(number)
            yield b"x"

    conversation = upload_manifest(state_of(NEW), pieces())
    next(conversation)
    assert isinstance(conversation.send(None), Receive)
    assert taken == []
    message = builders.copy_in_response()
    conversation.send((message[:1], message[5:]))
    for count in range(1, 4):
        assert len(taken) == count
        conversation.send(None)


@pytest.mark.parametrize("error", [OSError("disk"), UsageError("of the caller"), TimeoutError()])
def test_pieces_that_cannot_be_had(error: Exception) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x"
        raise error

    dialogue = Dialogue(upload_manifest(state_of(NEW), pieces()))
    dialogue.receive(builders.copy_in_response())
    assert dialogue.sent[-1] == frontend.copy_fail("the client could not read the manifest")
    failed = builders.error_response("COPY from stdin failed", sqlstate="57014")
    assert dialogue.receive(failed, READY).result is error


@pytest.mark.parametrize("piece", ["text", 7, None, memoryview(b"abcd")[::2]])
def test_pieces_that_are_no_bytes(piece: Any) -> None:
    dialogue = Dialogue(upload_manifest(state_of(NEW), [piece]))
    dialogue.receive(builders.copy_in_response())
    assert dialogue.sent[-1][:1] == b"f"
    failed = builders.error_response("COPY from stdin failed", sqlstate="57014")
    assert isinstance(dialogue.receive(failed, READY).result, TypeError)


def test_manifests_that_the_server_refuses() -> None:
    def uploading() -> Dialogue:
        return Dialogue(upload_manifest(state_of(NEW), b"x"))

    error = builders.error_response("not a manifest", sqlstate="XX000")
    copy = builders.copy_in_response()
    assert "XX000" in refused(uploading(), error, READY, kind=ServerError)
    assert "XX000" in refused(uploading(), copy, error, READY, kind=ServerError)
    assert "expected CopyInResponse" in refused(uploading(), *UPLOADED)
    assert "answer to a query, got message b'd'" in refused(uploading(), builders.copy_data(b"d"))
    assert "a field of 2 bytes" in refused(uploading(), builders.message(b"G", b"\0"))
    assert "answer to a query, got message b'G'" in refused(uploading(), copy, copy)
    for version in ("10.23", "16.10"):
        with pytest.raises(UsageError, match="UPLOAD_MANIFEST needs PostgreSQL 17 or later"):
            Dialogue(upload_manifest(state_of(version), b""))
