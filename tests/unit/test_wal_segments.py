"""Names and arithmetic of WAL segments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrepl.errors import ProtocolError
from pgrepl.physical.segments import (
    FileKind,
    Segment,
    SegmentSize,
    WalFileName,
    history_name,
    history_timeline,
)
from pgrepl.physical.settings import file_mode, seconds

MEBIBYTE = 1 << 20
SIXTEEN = SegmentSize(16 * MEBIBYTE)


# What pg_walfile_name() says on servers with segments of these sizes.
@pytest.mark.parametrize(
    ("mebibytes", "timeline", "position", "name"),
    [
        (16, 1, 0x0000000001000000, "000000010000000000000001"),
        (16, 1, 0x0000000001FFFFFF, "000000010000000000000001"),
        (16, 1, 0x00000000FF000000, "0000000100000000000000FF"),
        (16, 1, 0x0000000100000000, "000000010000000100000000"),
        (16, 0xA2, 0x16B374D848, "000000A200000016000000B3"),
        (16, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, "FFFFFFFFFFFFFFFF000000FF"),
        (1, 3, 0x00000001ABCDEF01, "000000030000000100000ABC"),
        (1, 3, 0x00000001FFFFFFFF, "000000030000000100000FFF"),
        (64, 3, 0x00000001ABCDEF01, "00000003000000010000002A"),
        (1024, 2, 0x00000005FFFFFFFF, "000000020000000500000003"),
    ],
)
def test_names(mebibytes: int, timeline: int, position: int, name: str) -> None:
    size = SegmentSize(mebibytes * MEBIBYTE)
    segment = size.segment_at(timeline, position)
    assert segment.name == name
    assert segment.start <= position < segment.start + size.size
    assert WalFileName.parse(name, size) == WalFileName(segment, "", FileKind.COMPLETE)


@given(st.integers(20, 30), st.integers(1, 2**32 - 1), st.integers(0, 2**64 - (1 << 30) - 1))
def test_every_name_is_read_back(exponent: int, timeline: int, position: int) -> None:
    size = SegmentSize(1 << exponent)
    segment = size.segment_at(timeline, position)
    assert segment.start == size.start_of(position)
    assert segment.end == segment.start + size.size
    for compressed in ("", ".gz", ".lz4", ".zst"):
        for kind, suffix in ((FileKind.COMPLETE, ""), (FileKind.PARTIAL, ".partial")):
            name = segment.name + compressed + suffix
            assert WalFileName.parse(name, size) == WalFileName(segment, compressed, kind)


def test_unfinished_copies_have_names() -> None:
    found = WalFileName.parse("000000010000000000000001.gz.tmp", SIXTEEN)
    assert found == WalFileName(Segment(1, 1, SIXTEEN), ".gz", FileKind.UNFINISHED)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "00000001000000000000000",
        "0000000100000000000000010",
        "000000010000000000000001\n",
        "\n000000010000000000000001",
        "00000001000000000000000a",
        "٠00000010000000000000001",
        "00000000000000000000000001"[:24],
        "000000000000000000000001",
        "000000010000000000000100",
        "000000010000000000000001.",
        "000000010000000000000001.tmp",
        "000000010000000000000001.partial.gz",
        "000000010000000000000001.partial.partial",
        "000000010000000000000001.PARTIAL",
        "000000010000000000000001.bz2",
        "000000010000000000000001.00000028.backup",
        "../00000010000000000000001",
        "00000001.history",
    ],
)
def test_v14_other_names_are_nobodys_business(name: str) -> None:
    assert WalFileName.parse(name, SIXTEEN) is None


@given(st.text(alphabet="01AF.gzpartilzs4tmp/\n", max_size=40))
def test_what_is_read_is_what_would_be_written(name: str) -> None:
    found = WalFileName.parse(name, SIXTEEN)
    if found is not None:
        states = {FileKind.COMPLETE: "", FileKind.PARTIAL: ".partial", FileKind.UNFINISHED: ".tmp"}
        assert name == found.segment.name + found.compressed + states[found.kind]


def test_v14_histories() -> None:
    assert history_name(2) == "00000002.history"
    assert history_name(0xABCDEF01) == "ABCDEF01.history"
    assert history_timeline("ABCDEF01.history") == 0xABCDEF01
    for name in ("00000000.history", "2.history", "abcdef01.history", "00000002.history.tmp"):
        assert history_timeline(name) is None
    for timeline in (0, -1, 1 << 32):
        with pytest.raises(ValueError, match="timeline between 1 and"):
            history_name(timeline)


@pytest.mark.parametrize(
    ("text", "size"), [("16MB", 16), ("1MB", 1), ("512MB", 512), ("1GB", 1024)]
)
def test_size_of_the_setting(text: str, size: int) -> None:
    assert SegmentSize.of_setting(text).size == size * MEBIBYTE


@pytest.mark.parametrize(
    "text", ["", "16", "16 MB", "16mb", "17MB", "0MB", "2GB", "2048MB", "16kB", "-1MB", "016MB"]
)
def test_size_that_makes_no_sense(text: str) -> None:
    with pytest.raises(ProtocolError, match=r"wal_segment_size makes no sense.*says"):
        SegmentSize.of_setting(text)


@pytest.mark.parametrize(
    ("text", "duration"),
    [("1min", 60), ("10s", 10), ("250ms", 0.25), ("0", 0), ("-1", 0), ("2h", 7200), ("1d", 86400)],
)
def test_durations(text: str, duration: float) -> None:
    assert seconds("wal_sender_timeout", text) == duration


@pytest.mark.parametrize("text", ["", "1", "1 min", "1.5s", "s", "1m", "1MIN"])
def test_durations_that_make_no_sense(text: str) -> None:
    with pytest.raises(ProtocolError, match="wal_sender_timeout to be a number"):
        seconds("wal_sender_timeout", text)


def test_modes() -> None:
    assert [oct(file_mode(mode)) for mode in ("0700", "700", "0750")] == ["0o600", "0o600", "0o640"]
    for mode in ("", "rwx", "0800", "07000"):
        with pytest.raises(ProtocolError, match="octal"):
            file_mode(mode)
