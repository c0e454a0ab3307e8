"""``pgrepl demo`` as its users run it: what it shows, what it says at the end, what it leaves."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from pgrepl.testing import TemporaryServerError
from pgrepl.testing.programs import embedded_bin_directory
from tests.live.streams import PATIENCE, eventually

pytest.importorskip("click")
pytest.importorskip("rich")
fcntl = pytest.importorskip("fcntl", reason="the demo runs on POSIX systems alone")
pty = pytest.importorskip("pty")
termios = pytest.importorskip("termios")
pytestmark = pytest.mark.live

INTERRUPTED: Final = "pgrepl: interrupted; the server and its folder are gone again\n"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the demo puts its server: a folder of its own that is to others what /tmp is."""
    try:
        embedded_bin_directory()
    except TemporaryServerError as error:
        pytest.skip(str(error))
    made = Path(tempfile.mkdtemp(prefix="pgrepl-test-", dir="/tmp"))
    made.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(made))
    yield made
    shutil.rmtree(made)


def left_behind(folder: Path) -> list[str]:
    """What is in the folder, and the processes that were started for it."""
    listed = subprocess.run(
        ["ps", "axww", "-o", "args="], capture_output=True, text=True, check=True
    )
    processes = [line for line in listed.stdout.splitlines() if str(folder) in line]
    return [*map(str, folder.iterdir()), *processes]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pgrepl", "demo", *arguments]


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def is_full(process: subprocess.Popen[str]) -> bool:
    """Whether much of the output waits to be read, and nothing is added to it."""
    assert process.stdout is not None
    sizes: list[int] = []
    for _ in range(2):
        sizes += struct.unpack("i", fcntl.ioctl(process.stdout, termios.FIONREAD, b"\0" * 4))
        time.sleep(0.2)
    return 4096 < sizes[0] == sizes[1]


def assert_success(summary: str) -> None:
    """The summary tells of changes of every kind, and that none of them is missing."""
    numbers = {
        name: [int(number.replace(",", "")) for number in rest.split()]
        for name, rest in re.findall(r"\b(customers|orders|carts) ([\d, ]+)", summary)
    }
    assert numbers["customers"][0] >= 5000
    assert numbers["customers"][1] >= 5000
    assert numbers["orders"][1] > 0
    assert numbers["carts"][1] > 0
    assert numbers["carts"][3] == 2
    changes = sum(map(sum, numbers.values()))
    assert re.search(r"the largest with 5,\d\d\d changes", summary)
    assert re.search(r"acknowledged +[0-9A-F]+/[0-9A-F]+, and the slot says the same", summary)
    messages = re.search(r"with (\d+) logical messages", summary)
    assert messages is not None
    total = f"{changes + int(messages[1]):,}"
    assert re.search(
        rf"delivered = committed yes: [\d,]+ transactions, {total} changes, each once", summary
    )
    assert re.search(r"replica = tables +yes: [\d,]+ rows", summary)


def test_in_a_pipe(folder: Path) -> None:
    ended = subprocess.run(
        command("--seconds", "3"),
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert left_behind(folder) == []
    lines, _, summary = ended.stdout.partition("\n\n")
    start, title, *changes = lines.splitlines()
    assert start == "starting PostgreSQL 18 …"
    assert re.fullmatch(r"PostgreSQL 18\.\d+ on port \d+, streamed by pgrepl \S+, codec \w+", title)
    words = [line.split()[0] for line in changes]
    assert {"BEGIN", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "MESSAGE", "COMMIT", "…"} == set(
        words
    )
    assert any(re.match(r"UPDATE public\.carts key\(token='[-0-9a-f]{36}'\) ", c) for c in changes)
    assert any(c.endswith(" confirmation=UNCHANGED") for c in changes)
    # Thousands of changes, of which a large transaction shows a few.
    assert "… and 4,997 more" in changes
    assert len(changes) < 3000
    assert_success(summary)


def test_on_a_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "40")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command("--seconds", "3"), stdout=theirs, stderr=subprocess.PIPE)
    with process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # which is how Linux says that the terminal was closed
            while piece := os.read(ours, 65536):
                shown += piece
        os.close(ours)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert left_behind(folder) == []
    screen, _, summary = shown.decode().rpartition("\x1b[?1049l")
    for word in ("latest changes", "acknowledged", "INSERT public.", "changes", "of 3 s"):
        assert word in screen
    assert_success(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|│", "", summary))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["folder", "data", "postmaster.pid", "PostgreSQL", "COMMIT"])
def test_interrupted(folder: Path, moment: str, number: int) -> None:
    with running("--seconds", "60") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("starting PostgreSQL")
        if moment == "folder":
            eventually(lambda: list(folder.glob("*")), "there is a folder")
        elif moment in ("data", "postmaster.pid"):
            eventually(lambda: list(folder.glob(f"*/**/{moment}")), f"there is {moment}")
        else:
            while not process.stdout.readline().startswith(moment):
                assert process.poll() is None
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (128 + number, INTERRUPTED)
    assert left_behind(folder) == []


def test_interrupted_while_nobody_reads(folder: Path) -> None:
    with running("--seconds", "60", "--rows-per-second", "5000") as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("COMMIT"):
            pass
        eventually(lambda: is_full(process), "the pipe is full")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    assert left_behind(folder) == []


def test_a_reader_that_has_had_enough(folder: Path) -> None:
    with running("--seconds", "60") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while not process.stdout.readline().startswith("COMMIT"):
            pass
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr.read() == ""
    assert left_behind(folder) == []


def test_the_server_dies(folder: Path) -> None:
    with running("--seconds", "60") as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("COMMIT"):
            pass
        [pid_file] = folder.glob("*/data/postmaster.pid")
        os.kill(int(pid_file.read_text().split()[0]), signal.SIGQUIT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert re.fullmatch(r"pgrepl: [^\n]+\n", err)
    assert left_behind(folder) == []
