"""What the program has streamed, on its way to a file or a pipe: what is written, what is durable,
and what is left after an error."""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path
from typing import Any

import pytest

from pgrepl.cli.delivering.output import Output

posix = pytest.mark.skipif(os.name != "posix", reason="files and pipes as POSIX has them")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out"


def written_out(output: Output) -> list[int]:
    """The written position after each piece."""
    positions = []
    while output.pending:
        output.write()
        positions.append(output.written)
    return positions


# A pipe


def test_positions_are_written_in_order_and_not_early(pipe: tuple[int, Output]) -> None:
    reader, output = pipe
    output.put(None, 1)
    assert output.pending
    assert written_out(output) == [1]
    long = "x" * 10000
    output.put("first")
    output.put(long, 2)
    output.put_bytes(b"last\n", 3)
    output.put(None, 4)
    positions = written_out(output)
    assert os.read(reader, 100000).decode() == f"first\n{long}\nlast\n"
    assert positions == [1] * (len(positions) - 1) + [4]
    assert len(positions) == 1 + 10011 // getattr(select, "PIPE_BUF", 4096)


def test_what_a_pipe_has_taken_is_as_durable_as_it_gets(pipe: tuple[int, Output]) -> None:
    _, output = pipe
    output.put("line", 5)
    output.write()
    assert (output.written, output.durable, output.unsynced) == (5, 5, False)
    output.sync()


def test_positions_never_go_back(pipe: tuple[int, Output]) -> None:
    _, output = pipe
    output.put("line", 5)
    output.put("a message that lies before", 3)
    assert written_out(output) == [5]


def test_cut_ends_the_unit_that_has_begun(pipe: tuple[int, Output]) -> None:
    reader, output = pipe
    long = "x" * 10000
    output.put(long, 1)
    output.put("never", 2)
    output.write()
    output.cut()
    assert written_out(output)[-1] == 1
    assert os.read(reader, 100000).decode() == f"{long}\n"


def test_cut_knows_units_and_not_line_ends(pipe: tuple[int, Output]) -> None:
    reader, output = pipe
    unit = b"line\n" * 2000
    output.put_bytes(unit, 1)
    output.put_bytes(unit, 2)
    output.write()
    output.cut()
    assert written_out(output)[-1] == 1
    assert os.read(reader, 100000) == unit


def test_cut_between_units_leaves_nothing(pipe: tuple[int, Output]) -> None:
    reader, output = pipe
    output.put("whole", 1)
    output.write()
    output.put("never", 2)
    output.cut()
    assert not output.pending
    assert (output.written, os.read(reader, 100)) == (1, b"whole\n")


def test_nobody_reads(pipe: tuple[int, Output]) -> None:
    reader, output = pipe
    output.put("line", 1)
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        output.write()
    assert (output.pending, output.written, output.durable) == (True, 0, 0)


# A file


@posix
def test_a_new_file_is_for_its_owner_alone(path: Path) -> None:
    output = Output.of(path)
    output.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@posix
def test_what_a_file_was_given_is_durable_after_a_sync(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("before\n")
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.read_text()))
    output = Output.of(path)
    long = "x" * 100000
    output.put(long, 7)
    assert written_out(output) == [7]
    assert (output.written, output.durable, output.unsynced) == (7, 0, True)
    output.sync()
    output.sync()
    assert (output.durable, output.unsynced) == (7, False)
    assert synced == [f"before\n{long}\n"]
    output.close()


@posix
def test_without_syncs_what_is_written_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output.of(path, syncs=False)
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("nobody asked for that"))
    output.put("line", 7)
    written_out(output)
    assert (output.durable, output.unsynced) == (7, False)
    output.sync()
    output.close()


@posix
def test_a_sync_that_failed_makes_nothing_durable(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output.of(path)
    output.put("line", 7)
    written_out(output)

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        output.sync()
    assert output.durable == 0
    output.close()


@posix
def test_a_new_file_and_its_name_are_made_durable(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    Output.of(path).close()
    assert synced == [path.parent.stat().st_ino]
    Output.of(path).close()
    assert len(synced) == 1


@posix
def test_reopening_goes_on_in_the_file_that_has_the_path_now(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output.of(path)
    output.put("old", 1)
    written_out(output)
    moved = path.rename(path.with_suffix(".1"))
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(moved.read_text()))
    output.reopen()
    assert (synced[0], output.durable) == ("old\n", 1)
    output.put("new", 2)
    written_out(output)
    assert (moved.read_text(), path.read_text()) == ("old\n", "new\n")
    output.close()


@posix
def test_what_was_opened_elsewhere_is_not_opened_anew(pipe: tuple[int, Output]) -> None:
    _, output = pipe
    before = output.descriptor
    output.reopen()
    output.close()
    assert output.descriptor == before
    os.fstat(before)


@posix
def test_a_unit_that_was_begun_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output.of(path)
    output.put("whole", 1)
    written_out(output)
    output.put("x" * 10000, 2)
    write = os.write

    def full(descriptor: int, data: Any) -> int:
        if path.stat().st_size > 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, bytes(data)[:500])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        written_out(output)
    output.take_back()
    assert (output.pending, output.written) == (False, 1)
    output.close()
    assert path.read_text() == "whole\n"
    output.take_back()


@posix
def test_a_directory_that_is_not_there(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Output.of(path / "below")
