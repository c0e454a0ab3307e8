"""The last line of a file that an earlier run has left unfinished."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pgrepl.cli import unfinished
from pgrepl.cli.delivering.output import Output
from pgrepl.cli.stream.formats import may_be_line

pytestmark = pytest.mark.skipif(os.name != "posix", reason="files and locks as POSIX has them")

LINE = b'{"kind": "begin", "xid": 7}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished, "_PAUSE", 0.001)


def opened(path: Path, is_ours: Callable[[bytes], bool] = may_be_line) -> tuple[Output, list[str]]:
    said: list[str] = []

    def mend(descriptor: int) -> None:
        unfinished.cut_back(descriptor, str(path), is_ours, said.append)

    return Output.of(path, mend=mend), said


def after_opening(path: Path, content: bytes, *what: Callable[[bytes], bool]) -> bytes:
    """What is left of a file."""
    path.write_bytes(content)
    output, said = opened(path, *what)
    output.close()
    left = path.read_bytes()
    cut = len(content) - len(left)
    why = "as a run that was killed leaves it"
    line = f"{path} ended in the middle of a line, {why}: {cut} bytes without an end are taken off"
    assert said == ([f"{line} again"] if cut else [])
    return left


@pytest.mark.parametrize("kept", [b"", LINE, LINE * 3, LINE * 10_000, b"any header\n"])
@pytest.mark.parametrize(
    "torn",
    [
        b"",
        b"{",
        LINE[:-1],
        b'{"kind": "insert", "new": {"x": "' + b"x" * 200_000,
        b"I",
        b"INSERT public.t x='" + b"y" * (unfinished._BLOCK * 2),
        b"COMMIT 7 0/0",
        # As a loss of power leaves what had not been synced.
        b"\0" * 100_000,
        b'{"kind"' + b"\0" * 70_000,
    ],
)
def test_a_line_without_an_end_is_cut_off(path: Path, kept: bytes, torn: bytes) -> None:
    assert after_opening(path, kept + torn) == kept


@pytest.mark.parametrize("size", range(unfinished._BLOCK - 2, unfinished._BLOCK + 3))
def test_wherever_the_last_end_lies(path: Path, size: int) -> None:
    assert after_opening(path, LINE + b'{"kind": "' + b"x" * size) == LINE


@pytest.mark.parametrize(
    "foreign", [b"SQLite format 3\0", b"my notes", LINE + b"# last", b'{"key": 1']
)
def test_what_this_program_does_not_write_is_left_alone(path: Path, foreign: bytes) -> None:
    path.write_bytes(foreign)
    with pytest.raises(OSError, match="none that this program writes"):
        opened(path)
    assert path.read_bytes() == foreign


def test_of_raw_messages_nobody_knows_what_they_look_like(path: Path) -> None:
    """What stands behind a line end is cut off; nothing before it, in whatever message it is."""
    assert after_opening(path, b"table t: 'a\nb\n'\nC\0\0\n\xff", lambda _: True) == (
        b"table t: 'a\nb\n'\nC\0\0\n"
    )


def test_through_a_link(path: Path) -> None:
    target = path.with_name("target")
    path.symlink_to(target)
    target.write_bytes(LINE + b"{")
    opened(path)[0].close()
    assert (target.read_bytes(), path.is_symlink()) == (LINE, True)


def test_what_is_no_file_is_not_looked_at(path: Path) -> None:
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    output, said = opened(path)
    output.put("line", 1)
    output.write()
    assert (os.read(reader, 100), said) == (b"line\n", [])
    output.close()
    os.close(reader)


def test_the_next_file_is_mended_too(path: Path) -> None:
    """As when it is opened anew on SIGHUP."""
    output, said = opened(path)
    output.put("{}", 1)
    output.write()
    path.rename(path.with_name("moved"))
    path.write_bytes(LINE + b'{"ki')
    output.reopen()
    output.put("{}", 2)
    output.write()
    output.close()
    assert (path.read_bytes(), len(said)) == (LINE + b"{}\n", 1)
    assert path.with_name("moved").read_bytes() == b"{}\n"


def test_the_same_file_opened_anew(path: Path) -> None:
    output, said = opened(path)
    output.put("{}", 1)
    output.write()
    output.reopen()
    output.close()
    assert (path.read_bytes(), said) == (b"{}\n", [])


def test_a_line_that_another_run_is_writing_is_left_to_it(path: Path) -> None:
    other, _ = opened(path)
    os.write(other.descriptor, b'{"kind": "in')
    with pytest.raises(OSError, match="another process is in the middle of a line"):
        opened(path)
    os.write(other.descriptor, b'sert"}\n')
    opened(path)[0].close()
    other.close()
    assert path.read_bytes() == b'{"kind": "insert"}\n'


def test_a_file_that_grows_is_not_cut(path: Path) -> None:
    """Whoever writes to it has no lock that would tell."""
    path.write_bytes(LINE + b'{"kind"')

    def grows(_: bytes) -> bool:
        with path.open("ab") as file:
            file.write(b'{"kind"')
        return True

    with pytest.raises(OSError, match="another process is in the middle of a line"):
        opened(path, grows)
    assert path.read_bytes() == LINE + b'{"kind"' * (unfinished._TRIES + 1)


def test_a_file_that_cannot_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(LINE + b"{")
    real = os.open

    def writing_alone(name: str | Path, flags: int, *mode: int) -> int:
        if not flags & os.O_WRONLY:
            raise PermissionError
        return real(name, flags, *mode)

    monkeypatch.setattr(os, "open", writing_alone)
    output, said = opened(path)
    output.close()
    assert said == [f"{path} cannot be read, so nobody knows whether its last line is whole"]
    assert path.read_bytes() == LINE + b"{"


def test_what_somebody_else_wrote_is_not_taken_back(path: Path) -> None:
    """After a failed write the end of the file may not be ours any more."""
    output, _ = opened(path)
    output.put("x" * 100, 1)
    os.write(output.descriptor, b"x" * 50)
    output._count = 50
    with path.open("ab") as file:
        file.write(b"theirs\n")
    output.take_back()
    output.close()
    assert path.read_bytes() == b"x" * 50 + b"theirs\n"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="a descriptor cannot be read here")
@pytest.mark.parametrize(("mode", "left"), [("a", LINE), ("r+", LINE + b"{")])
def test_standard_output_of_a_shell(path: Path, mode: str, left: bytes) -> None:
    """By >> it is appended to; by another way, whoever opened it is somewhere in it."""
    path.write_bytes(LINE + b"{")
    program = (
        "import pgrepl.cli.stream.run as s; s._open_output(s.StreamOptions('s', format='json'))"
    )
    with path.open(mode) as file:
        run = subprocess.run(
            [sys.executable, "-c", program], stdout=file, stderr=subprocess.PIPE, check=True
        )
    assert path.read_bytes() == left
    assert (b"standard output ended in the middle" in run.stderr) == (mode == "a")
