"""The answer to BASE_BACKUP as events: the same ones from servers old and new."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrepl import Lsn
from pgrepl.basebackup import (
    ArchiveData,
    ArchiveStart,
    BackupEnd,
    BackupStart,
    ManifestData,
    ManifestStart,
    Progress,
    Tablespace,
)
from pgrepl.errors import ProtocolError, ServerError, ServerShutdown
from pgrepl.protocol.backend import ServerState
from pgrepl.protocol.backup_stream import BackupStream
from pgrepl.protocol.base_backup import BackupOptions
from tests.support import builders
from tests.support.dialogue import Dialogue, refused

READY = builders.ready_for_query()
OLD, NEW = "14.19", "18.4"
COPY, DONE = builders.copy_out_response(), builders.copy_done()


def state_of(version: str) -> ServerState:
    state = ServerState()
    state.parameters["server_version"] = version
    return state


TWO_TABLESPACES = ((None, None, "30"), ("16385", "/srv/ts", "1"))
MAIN = ((None, None, None),)


def result(*rows: tuple[str | None, ...], columns: int = 2, tag: str = "SELECT") -> list[bytes]:
    described = builders.row_description(*(f"c{i}" for i in range(columns)))
    return [described, *(builders.data_row(*row) for row in rows), builders.command_complete(tag)]


def header(*tablespaces: tuple[str | None, ...]) -> list[bytes]:
    return [*result(("0/2000028", "1")), *result(*tablespaces, columns=3)]


def trailer(version: str = NEW) -> list[bytes]:
    tag = "BASE_BACKUP" if int(version[:2]) > 12 else "SELECT"
    return [*result(("0/2000100", "1")), builders.command_complete(tag), READY]


def new_archive(name: str, path: str = "") -> bytes:
    return builders.copy_data(b"n" + name.encode() + b"\0" + path.encode() + b"\0")


def piece(data: bytes) -> bytes:
    return builders.copy_data(b"d" + data)


MANIFEST = builders.copy_data(b"m")


def progress(done: int) -> bytes:
    return builders.copy_data(b"p" + struct.pack("!q", done))


def asked(version: str, **options: Any) -> tuple[BackupStream, Dialogue]:
    """A backup, and the conversation about its first event, which has sent the command."""
    wanted: BackupOptions = options  # type: ignore[assignment]
    stream = BackupStream(state_of(version), wanted)
    assert not stream.is_under_way
    dialogue = Dialogue(stream.next_event())
    [command] = dialogue.sent
    assert command.startswith(b"Q")
    return stream, dialogue


def events(version: str, *messages: bytes, **options: Any) -> Iterator[Any]:
    """The events that these messages make, each as soon as it can be."""
    stream, dialogue = asked(version, **options)
    for message in messages:
        dialogue.receive(message)
        while dialogue.ended and dialogue.result is not None:
            yield dialogue.result
            assert stream.is_under_way != isinstance(dialogue.result, BackupEnd)
            dialogue = Dialogue(stream.next_event())
            assert dialogue.sent == []
    assert dialogue.ended
    assert stream.ended
    assert Dialogue(stream.next_event()).result is None


def refuses(
    version: str, *messages: bytes, kind: type[Exception] = ProtocolError, **options: Any
) -> str:
    """What is said to the last of these messages."""
    stream, dialogue = asked(version, **options)
    for message in messages[:-1]:
        dialogue.receive(message)
        if dialogue.ended:
            dialogue = Dialogue(stream.next_event())
    said = refused(dialogue, messages[-1], kind=kind)
    assert stream.ended
    return said


def test_events_of_a_new_server() -> None:
    messages = [
        *header(*TWO_TABLESPACES),
        COPY,
        new_archive("16385.tar.gz", "/srv/ts"),
        progress(0),
        piece(b"one"),
        piece(b""),
        new_archive("base.tar.gz"),
        piece(b"two"),
        progress(2**40),
        MANIFEST,
        piece(b'{"Pos'),
        piece(b'tgreSQL"}'),
        progress(2**63 - 1),
        DONE,
        *trailer(),
    ]
    assert list(events(NEW, *messages, manifest="yes")) == [
        BackupStart(
            Lsn("0/2000028"),
            1,
            (Tablespace(None, None, 30 * 1024), Tablespace(16385, "/srv/ts", 1024)),
        ),
        ArchiveStart("16385.tar.gz", "/srv/ts", 16385),
        Progress(0),
        ArchiveData(memoryview(b"one")),
        ArchiveData(memoryview(b"")),
        ArchiveStart("base.tar.gz", None, None),
        ArchiveData(memoryview(b"two")),
        Progress(2**40),
        ManifestStart(),
        ManifestData(memoryview(b'{"Pos')),
        ManifestData(memoryview(b'tgreSQL"}')),
        Progress(2**63 - 1),
        BackupEnd(Lsn("0/2000100"), 1),
    ]


@pytest.mark.parametrize("version", ["10.23", "12.22", "13.23", "14.19"])
@pytest.mark.parametrize("manifest", ["no", "yes"])
def test_events_of_an_old_server(version: str, manifest: str) -> None:
    has_manifest = manifest == "yes" and version >= "13"
    options = {"manifest": manifest} if version >= "13" else {}
    data = [builders.copy_data(b"dn"), builders.copy_data(b"p")]
    messages = [
        *header(("16385", "/srv/ts", None), (None, None, "7")),
        *(COPY, *data, DONE),
        *(COPY, builders.copy_data(b"x" * 512), DONE),
        *((COPY, builders.copy_data(b"{}"), DONE) if has_manifest else ()),
        *trailer(version),
    ]
    end_of_tar = ArchiveData(memoryview(bytes(1024)))
    assert list(events(version, *messages, **options)) == [
        BackupStart(
            Lsn("0/2000028"),
            1,
            (Tablespace(16385, "/srv/ts", None), Tablespace(None, None, 7 * 1024)),
        ),
        ArchiveStart("16385.tar", "/srv/ts", 16385),
        ArchiveData(memoryview(b"dn")),
        ArchiveData(memoryview(b"p")),
        end_of_tar,
        ArchiveStart("base.tar", None, None),
        ArchiveData(memoryview(b"x" * 512)),
        end_of_tar,
        *([ManifestStart(), ManifestData(memoryview(b"{}"))] if has_manifest else []),
        BackupEnd(Lsn("0/2000100"), 1),
    ]


def test_data_is_not_copied_and_cannot_be_changed() -> None:
    [*_, data, _] = events(
        NEW, *header(*MAIN), COPY, new_archive("base.tar"), piece(b"x" * 100), DONE, *trailer()
    )
    assert data.data.readonly
    assert isinstance(data.data.obj, bytes)
    assert len(data.data.obj) == 101


def test_names_of_archives_are_the_servers() -> None:
    for name in ("../../etc/passwd", "", "a\nb", "/x", "base.tar\x1b[2J", "é🐘"):
        [_, start, _] = events(NEW, *header(*MAIN), COPY, new_archive(name), DONE, *trailer())
        assert start == ArchiveStart(name, None, None)


def test_an_error_after_everything_has_come() -> None:
    wrong = builders.error_response("checksum verification failure", sqlstate="XX001")
    for version, archive in (
        (NEW, (COPY, new_archive("base.tar"), DONE)),
        (OLD, (COPY, DONE)),
    ):
        messages = [*header(*MAIN), *archive, *trailer()[:3], wrong, READY]
        assert "XX001" in refuses(version, *messages, kind=ServerError)


@pytest.mark.parametrize("version", [OLD, NEW])
def test_errors_on_the_way(version: str) -> None:
    error = builders.error_response("no", sqlstate="22023")
    fatal = builders.error_response("bye", severity="FATAL", sqlstate="57P01")
    on_the_way = [*header(*MAIN), COPY]
    if version == NEW:
        on_the_way += [new_archive("base.tar"), piece(b"x")]
    for upto in range(len(on_the_way) + 1):
        before = on_the_way[:upto]
        assert "22023" in refuses(version, *before, error, READY, kind=ServerError)
        assert "57P01" in refuses(version, *before, fatal, kind=ServerShutdown)
        # What comes behind an error, and is not the end, has no meaning.
        for more in (COPY, DONE, builders.copy_data(b"dx")):
            assert "a base backup that failed" in refuses(version, *before, error, more)


LATE = (DONE, *trailer())
ARCHIVE = new_archive("base.tar")

HOSTILE_NEW: list[tuple[list[bytes], str]] = [
    ([READY], "expected the archives of a base backup before its end"),
    ([DONE], "expected a COPY before its end"),
    ([COPY], "expected no COPY at this point"),
    ([piece(b"x")], "expected an archive before its data"),
    (header(), "expected one main data directory"),
    ([*header(*MAIN, *MAIN)], "expected one main data directory"),
    ([*header(*MAIN, ("1", "/a", None), ("1", "/b", None))], "expected each tablespace"),
    ([*header(*MAIN, ("1", "/a", None), ("2", "/a", None))], "expected each tablespace"),
    ([*header(*MAIN, ("1", "", None))], "once, with a location"),
    ([*header(*MAIN, ("1", None, None))], "with an OID and a location"),
    ([*header(*MAIN, (None, "/a", None))], "with an OID and a location"),
    ([*header(*MAIN, ("0", "/a", None))], "expected the OID of a tablespace, got '0'"),
    ([*header(*MAIN, ("4294967296", "/a", None))], "expected the OID of a tablespace"),
    ([*header(*MAIN, ("x", "/a", None))], "expected a number"),
    ([*header((None, None, "-1"))], "expected a number"),
    ([*result(("0/1", "1")), *result(("x",), columns=1)], "3 columns for a tablespace, got 1"),
    ([*result(("0/1",), columns=1), *result(*MAIN, columns=3)], "one row of 2 columns"),
    ([*result(), *result(*MAIN, columns=3)], "got 0 rows"),
    ([*result(("0:1", "1")), *result(*MAIN, columns=3)], "expected an LSN"),
    ([*result(("0/1", "0")), *result(*MAIN, columns=3)], "expected a timeline"),
    ([*header(*MAIN), READY], "expected the archives of a base backup before its end"),
    ([*header(*MAIN), *result(("0/1", "1"))], "expected an archive of a base backup"),
    ([*header(*MAIN), piece(b"x")], "expected an archive before its data"),
    ([*header(*MAIN), DONE], "expected a COPY before its end"),
    ([*header(*MAIN), builders.message(b"H", b"\0")], "a field of 2 bytes in message b'H'"),
    ([*header(*MAIN), builders.message(b"H", b"\0\0\0x")], "the end of message b'H'"),
    ([*header(*MAIN), COPY, COPY], "expected no COPY at this point"),
    ([*header(*MAIN), COPY, piece(b"x")], "expected an archive before its data"),
    ([*header(*MAIN), COPY, builders.copy_data(b"")], "a field of 1 bytes"),
    ([*header(*MAIN), COPY, builders.copy_data(b"q")], "type n, d, p or m"),
    ([*header(*MAIN), COPY, builders.copy_data(b"nbase.tar\0")], "a zero-terminated string"),
    ([*header(*MAIN), COPY, builders.copy_data(b"nbase.tar\0\0x")], "the end of message"),
    ([*header(*MAIN), COPY, builders.copy_data(b"p\0\0\0\0\0\0\0")], "a field of 8 bytes"),
    ([*header(*MAIN), COPY, builders.copy_data(b"p" + bytes(9))], "the end of message"),
    ([*header(*MAIN), COPY, progress(-1)], "expected a number of bytes of 0 or more, got -1"),
    ([*header(*MAIN), COPY, new_archive("x.tar", "/x")], "a tablespace that was announced, once"),
    ([*header(*MAIN), COPY, ARCHIVE, ARCHIVE], "a tablespace that was announced, once"),
    ([*header(*MAIN), COPY, DONE], "expected 1 more archives before the end"),
    ([*header(*MAIN), COPY, ARCHIVE, READY], "expected the archives of a base backup"),
    ([*header(*MAIN), COPY, ARCHIVE, MANIFEST], "expected the end of a base backup"),
    ([*header(*MAIN), COPY, ARCHIVE, *result(("0/1", "1"))], "expected an archive"),
    ([*header(*MAIN), COPY, ARCHIVE, builders.message(b"c", b"x")], "the end of message b'c'"),
    ([*header(*MAIN), COPY, ARCHIVE, DONE, READY], "expected one row of 2 columns"),
    ([*header(*MAIN), COPY, ARCHIVE, DONE, COPY], "expected no COPY at this point"),
    ([*header(*MAIN), COPY, ARCHIVE, DONE, piece(b"x")], "expected an archive before its data"),
    ([*header(*MAIN), COPY, ARCHIVE, DONE, *result(("0/x", "1")), READY], "expected an LSN"),
    ([*header(*MAIN), COPY, ARCHIVE, DONE, *result(("0/1", "1")) * 2, READY], "got 2 rows"),
    ([*header(*MAIN), builders.copy_both_response()], "answer to a query, got message b'W'"),
    ([builders.copy_in_response()], "answer to a query, got message b'G'"),
]


@pytest.mark.parametrize(
    ("messages", "words"), HOSTILE_NEW, ids=[str(i) for i in range(len(HOSTILE_NEW))]
)
def test_new_servers_that_break_the_order(messages: list[bytes], words: str) -> None:
    said = refuses(NEW, *messages)
    assert words in said
    assert len(said) < 300


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([*header(*MAIN), COPY, DONE, DONE], "expected a COPY before its end"),
        ([*header(*MAIN), COPY, DONE, COPY], "expected the end of a base backup"),
        ([*header(*MAIN), COPY, COPY], "expected no COPY at this point"),
        ([*header(*MAIN), COPY, *result(("0/1", "1"))], "expected an archive"),
        ([*header(*TWO_TABLESPACES), COPY, DONE, *result(("0/1", "1"))], "expected an archive"),
        ([*header(*MAIN), COPY, DONE, piece(b"x")], "expected an archive before its data"),
        ([*header(*MAIN), COPY, DONE, READY], "expected the archives of a base backup"),
    ],
)
def test_old_servers_that_break_the_order(messages: list[bytes], words: str) -> None:
    assert words in refuses(OLD, *messages)


@pytest.mark.parametrize("version", [OLD, NEW])
def test_manifests_come_once_if_they_were_asked_for(version: str) -> None:
    archive = [COPY, DONE] if version == OLD else [COPY, ARCHIVE]
    manifest = [COPY, DONE] if version == OLD else [MANIFEST]
    before = [*header(*MAIN), *archive]
    end = result(("0/1", "1")) if version == OLD else [DONE]
    missing = "expected an archive" if version == OLD else "expected a manifest before the end"
    assert missing in refuses(version, *before, *end, manifest="yes")
    twice = [*before, *manifest, *manifest[:1]]
    assert "expected the end of a base backup" in refuses(version, *twice, manifest="yes")
    early = [*header(*MAIN), COPY, *manifest[:1]]
    assert refuses(version, *early, manifest="yes")
    if version == NEW:
        late = [*before, MANIFEST, ARCHIVE]
        assert "that was announced, once" in refuses(NEW, *late, manifest="yes")


def in_order(version: str, manifest: bool) -> list[bytes]:
    """All that a server sends for two tablespaces."""
    before = header(*TWO_TABLESPACES)
    if version == OLD:
        archives = [COPY, builders.copy_data(b"x"), DONE] * (2 + manifest)
    else:
        archives = [COPY, new_archive("1.tar", "/srv/ts"), piece(b"x"), ARCHIVE, progress(1)]
        archives += [MANIFEST, piece(b"{}")] * manifest + [DONE]
    return [*before, *archives, *trailer()]


STRAY = st.sampled_from(
    [
        *(
            COPY,
            DONE,
            READY,
            MANIFEST,
            ARCHIVE,
            progress(1),
            piece(b"x"),
            builders.error_response(),
        ),
        *(builders.notice_response(), builders.empty_query_response(), *header(*MAIN)),
    ]
) | st.binary(max_size=9).map(builders.copy_data)

#: Where, as a fraction of all, how many messages are taken out there, and what comes instead.
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 2), st.lists(STRAY, max_size=2)), max_size=3
)


@given(st.sampled_from([OLD, NEW]), st.booleans(), EDITS)
def test_whatever_comes_is_in_order_or_refused(
    version: str, manifest: bool, edits: list[tuple[float, int, list[bytes]]]
) -> None:
    messages = in_order(version, manifest)
    for place, taken, put in edits:
        at = int(place * len(messages))
        messages[at : at + taken] = put
    stream, dialogue = asked(version, manifest="yes" if manifest else "no")
    kinds: list[type] = []
    told: list[Any] = []
    try:
        for message in messages:
            dialogue.receive(message)
            if dialogue.ended:
                told.append(dialogue.result)
                kinds.append(type(told[-1]))
                if stream.ended:
                    break
                dialogue = Dialogue(stream.next_event())
    except (ProtocolError, ServerError):
        assert stream.ended
        assert BackupEnd not in kinds
    if BackupEnd in kinds:
        assert (kinds[0], kinds[-1]) == (BackupStart, BackupEnd)
        counts = [kinds.count(kind) for kind in (BackupStart, ArchiveStart, BackupEnd)]
        # What announces an archive may be gone together with it.
        assert counts == [1, len(told[0].tablespaces), 1]
        assert kinds.count(ManifestStart) == manifest
    assert edits or BackupEnd in kinds


def test_one_event_at_a_time() -> None:
    stream, dialogue = asked(NEW)
    dialogue.receive(*header(*MAIN))
    dialogue = Dialogue(stream.next_event()).receive(COPY, builders.notice_response())
    assert not dialogue.ended
    assert dialogue.receive(ARCHIVE).result == ArchiveStart("base.tar", None, None)
