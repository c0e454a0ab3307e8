"""From the stream to the output: what is written, what is acknowledged and when, and what a signal
does to that."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pgrepl
from pgrepl.cli.delivering.delivery import Delivery
from pgrepl.cli.delivering.output import Output
from pgrepl.cli.delivering.source import DecodedSource, RawSource, Source
from pgrepl.cli.interruption import Interrupted, Interruption
from pgrepl.codec.abc import WalBatch
from tests.support import builders

posix = pytest.mark.skipif(os.name != "posix", reason="pipes and signals as POSIX has them")


@pytest.fixture
def interruption() -> Iterator[Interruption]:
    with Interruption(hangup=True) as entered:
        yield entered


class FakeStream:
    """A stream that brings what the test lays out, and remembers what was acknowledged."""

    def __init__(self, *received: Any) -> None:
        self.received = list(received)
        self.acknowledged: list[tuple[int, bool]] = []
        self.on_nothing: Callable[[], object] = lambda: None
        self._silent, self._peer = socket.socketpair()

    def fileno(self) -> int:
        return self._silent.fileno()

    def receive(self, timeout: float) -> Any:
        assert timeout == 0
        if not self.received:
            self.on_nothing()
            raise TimeoutError
        return self.received.pop(0)

    def ack(self, position: int, *, flushed: bool = True, applied: bool = True) -> None:
        assert flushed == applied
        self.acknowledged.append((position, flushed))

    def close(self) -> None:
        self._silent.close()
        self._peer.close()


@pytest.fixture
def stream() -> Iterator[FakeStream]:
    made = FakeStream()
    yield made
    made.close()


def event(lsn: int, position: int, asks: bool = False) -> pgrepl.StreamEvent:
    return pgrepl.StreamEvent(None, lsn, position, asks)


def letters(stream: FakeStream, output: Output, until: int = 0) -> Source:
    """A source that writes as many letters as each event's `lsn` says, up to one position."""

    def take(event: pgrepl.StreamEvent) -> bool:
        output.put("x" * event.lsn, event.position)
        return event.position == until

    return DecodedSource(stream, take)  # type: ignore[arg-type]


# Sources


def batch(*messages: tuple[int, bytes] | int | tuple[int, bool]) -> WalBatch:
    """Of XLogData, as (position, payload), and keepalives, as (position, whether it asks)."""
    reader = pgrepl.codec.FrameReader()
    for message in messages:
        position, content = message if isinstance(message, tuple) else (message, False)
        reader.feed(
            builders.copy_data(
                builders.xlog_data(position, position, 0, content)
                if isinstance(content, bytes)
                else builders.keepalive(position, 0, content)
            )
        )
    made: WalBatch | None = pgrepl.codec.codec.next_batch(reader)
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("end", "ended", "text", "position"),
    [
        (None, False, b"a\nb\nc\n", 50),
        (60, False, b"a\nb\nc\n", 50),
        (50, True, b"a\nb\nc\n", 50),
        # What lies exactly there still comes, what lies beyond does not.
        (30, True, b"a\nb\n", 30),
        (29, True, b"a\n", 20),
        # The server says that it has come so far; what follows is another time's.
        (20, True, b"a\n", 20),
        (10, True, b"a\n", 10),
        (9, True, b"", 0),
    ],
)
def test_a_raw_source_ends_where_it_was_asked_to(
    pipe: tuple[int, Output],
    stream: FakeStream,
    end: int | None,
    ended: bool,
    text: bytes,
    position: int,
) -> None:
    reader, output = pipe
    stream.received = [batch((10, b"a"), 20, (30, b"b"), (40, b"c"), 50)]
    source = RawSource(stream, output, None if end is None else pgrepl.Lsn(end))  # type: ignore[arg-type]
    assert source.receive() is ended
    while output.pending:
        output.write()
    output.put(".")
    output.write()
    assert os.read(reader, 100) == text + b".\n"
    assert output.written == position
    assert source.receive() is None
    assert source.taken == 0


def test_a_raw_source_ends_at_the_keepalive_alone(
    pipe: tuple[int, Output], stream: FakeStream
) -> None:
    stream.received = [batch((30, True))]
    source = RawSource(stream, pipe[1], pgrepl.Lsn(25))  # type: ignore[arg-type]
    assert source.receive() is True
    assert source.reply_requested
    pipe[1].write()
    assert pipe[1].written == 30


def test_positions_are_acknowledged_once_and_as_what_they_are(
    pipe: tuple[int, Output], stream: FakeStream
) -> None:
    source = letters(stream, pipe[1])
    for written, durable in ((0, 0), (5, 0), (5, 0), (7, 5), (7, 7), (9, 9)):
        source.acknowledge(written, durable)
    assert stream.acknowledged == [(5, False), (5, True), (7, False), (7, True), (9, True)]
    assert source.acknowledged == 9


# The loop


def test_delivers_to_the_end_asked_for(
    pipe: tuple[int, Output], stream: FakeStream, interruption: Interruption
) -> None:
    reader, output = pipe
    stream.received = [[event(1, 10), event(2, 20)], [event(3, 30), event(4, 40)]]
    Delivery(letters(stream, output, until=30), output, interruption).run()
    assert os.read(reader, 100) == b"x\nxx\nxxx\n"
    assert stream.acknowledged == [(20, True), (30, True)]


def test_the_pulse_ends_the_loop(
    pipe: tuple[int, Output], stream: FakeStream, interruption: Interruption
) -> None:
    stream.received = [[event(1, 10)]]
    wishes = iter([0.0, 0.0, None])
    Delivery(letters(stream, pipe[1]), pipe[1], interruption).run(lambda: next(wishes))
    assert stream.acknowledged == [(10, True)]


def test_what_came_before_an_error_is_written_and_nobody_is_told(
    pipe: tuple[int, Output], stream: FakeStream, interruption: Interruption
) -> None:
    reader, output = pipe

    def events() -> Iterator[pgrepl.StreamEvent]:
        yield event(1, 10)
        raise pgrepl.ConnectionFailed("it is gone")

    stream.received = [events()]
    delivery = Delivery(letters(stream, output), output, interruption)
    with pytest.raises(pgrepl.ConnectionFailed):
        delivery.run()
    delivery.write_out()
    delivery.finish()
    assert os.read(reader, 100) == b"x\n"
    assert (output.durable, stream.acknowledged) == (10, [])


@posix
@pytest.mark.parametrize(("interval", "durable"), [(3600.0, []), (1e-9, [10])])
def test_a_file_is_synced_when_it_is_time(
    tmp_path: Path,
    stream: FakeStream,
    interruption: Interruption,
    interval: float,
    durable: list[int],
) -> None:
    output = Output.of(tmp_path / "out")
    stream.received = [[event(1, 10)]]
    wishes = iter([0.0, 0.0, None])
    delivery = Delivery(letters(stream, output), output, interruption, interval)
    delivery.run(lambda: next(wishes))
    assert [position for position, flushed in stream.acknowledged if flushed] == durable
    assert (10, False) in stream.acknowledged
    delivery.finish()
    assert stream.acknowledged[-1] == (10, True)
    output.close()


@posix
@pytest.mark.parametrize(("until", "asks"), [(10, False), (0, True)])
def test_a_file_is_synced_at_the_end_and_when_the_server_asks(
    tmp_path: Path, stream: FakeStream, interruption: Interruption, until: int, asks: bool
) -> None:
    output = Output.of(tmp_path / "out")
    stream.received = [[event(1, 10, asks)]]
    Delivery(letters(stream, output, until), output, interruption, 3600.0).run(lambda: None)
    assert stream.acknowledged[-1] == (10, True)
    output.close()


@posix
def test_a_failed_sync_is_not_acknowledged_and_not_tried_again(
    tmp_path: Path,
    stream: FakeStream,
    interruption: Interruption,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = Output.of(tmp_path / "out")
    stream.received = [[event(1, 10)]]
    calls = []

    def fail(_: int) -> None:
        calls.append(1)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        Delivery(letters(stream, output, until=10), output, interruption).run()
    assert (len(calls), [each for each in stream.acknowledged if each[1]]) == (1, [])
    output.close()


@posix
def test_sighup_opens_the_file_anew(
    tmp_path: Path, stream: FakeStream, interruption: Interruption
) -> None:
    path, moved = tmp_path / "out", tmp_path / "out.1"
    output = Output.of(path)
    stream.received = [[event(1, 10)]]

    def rotate() -> None:
        if not moved.exists():
            path.rename(moved)
            signal.raise_signal(signal.SIGHUP)
        elif path.exists():
            stream.received = [[event(2, 20)]]
            stream.on_nothing = lambda: None

    stream.on_nothing = rotate
    Delivery(letters(stream, output, until=20), output, interruption, 3600.0).run()
    output.close()
    assert (moved.read_text(), path.read_text()) == ("x\n", "xx\n")
    assert (10, True) in stream.acknowledged
    assert interruption.signum == 0


@posix
def test_a_blocked_output_loses_nothing(
    pipe: tuple[int, Output], stream: FakeStream, interruption: Interruption
) -> None:
    reader, output = pipe
    stream.received = [[event(200000, 10), event(2, 20)]]
    reading: list[bytes] = []

    def read_slowly() -> None:
        while sum(map(len, reading)) < 200004:
            time.sleep(0.001)
            reading.append(os.read(reader, 4096))

    thread = threading.Thread(target=read_slowly)
    thread.start()
    Delivery(letters(stream, output, until=20), output, interruption).run()
    thread.join()
    # More than a pipe holds: most of it had to wait until somebody read.
    assert b"".join(reading) == b"x" * 200000 + b"\nxx\n"
    assert stream.acknowledged[-1] == (20, True)


def test_acknowledgements_are_few_while_much_comes(
    pipe: tuple[int, Output], stream: FakeStream, interruption: Interruption
) -> None:
    stream.received = [[event(1, position)] for position in range(1, 1001)]
    Delivery(letters(stream, pipe[1], until=1000), pipe[1], interruption).run()
    positions = [position for position, _ in stream.acknowledged]
    assert positions == sorted(set(positions))
    assert positions[-1] == 1000
    assert len(positions) < 1000


def test_what_is_left_is_acknowledged_though_nothing_more_comes(
    pipe: tuple[int, Output], stream: FakeStream, interruption: Interruption
) -> None:
    stream.received = [[event(1, 10)], [event(1, 20)]]
    looks = iter(range(1000))

    def pulse() -> float | None:
        return None if (20, True) in stream.acknowledged or next(looks) > 900 else 0.5

    Delivery(letters(stream, pipe[1]), pipe[1], interruption).run(pulse)
    assert stream.acknowledged == [(10, True), (20, True)]


@posix
def test_a_signal_ends_a_wait_for_the_output(
    pipe: tuple[int, Output], stream: FakeStream, interruption: Interruption
) -> None:
    output = pipe[1]
    stream.received = [[event(1, 10)]]
    while select.select([], [output.descriptor], [], 0)[1]:
        os.write(output.descriptor, b"x" * select.PIPE_BUF)
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        Delivery(letters(stream, output), output, interruption).run()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interruption.exit_status == 143
    assert stream.acknowledged == []
    assert not output.pending


@posix
def test_a_reader_that_goes_away_is_noticed_without_a_write(
    pipe: tuple[int, Output], stream: FakeStream, interruption: Interruption
) -> None:
    os.close(pipe[0])
    with pytest.raises(BrokenPipeError):
        Delivery(letters(stream, pipe[1]), pipe[1], interruption).run()


def test_without_poll(
    pipe: tuple[int, Output],
    stream: FakeStream,
    interruption: Interruption,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(select, "poll", raising=False)
    stream.received = [[event(1, 10)]]
    wishes = iter([0.0, 0.01, None])
    Delivery(letters(stream, pipe[1]), pipe[1], interruption).run(lambda: next(wishes))
    assert os.read(pipe[0], 100) == b"x\n"
    assert stream.acknowledged == [(10, True)]


# Signals


def test_a_signal_is_noted(interruption: Interruption) -> None:
    assert interruption.exit_status == 0
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert interruption.signum == signal.SIGTERM
    assert interruption.exit_status == 143
    assert select.select([interruption.fileno()], [], [], 5)[0]


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interruption():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_raises_once_and_only_where_it_may(interruption: Interruption) -> None:
    undone = False
    with pytest.raises(Interrupted), interruption.raising():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            undone = True
    assert undone
    signal.raise_signal(signal.SIGINT)
    assert interruption.exit_status == 130


def test_a_signal_that_came_before_raises_too(interruption: Interruption) -> None:
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(Interrupted), interruption.raising():
        pytest.fail("the block must not be entered")


@posix
def test_a_signal_waits_for_what_must_not_be_left_half_done(interruption: Interruption) -> None:
    done = []

    def critical() -> None:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.05)  # longer than the first look again
        done.append(True)

    with (
        pytest.raises(Interrupted),
        interruption.raising(lambda frame: frame.f_code is critical.__code__),
    ):
        critical()
        assert done
        signal.pause()
    assert done


# SIGHUP


@posix
def test_sighup_is_noted_once_and_ends_nothing(interruption: Interruption) -> None:
    assert not interruption.take_hangup()
    signal.raise_signal(signal.SIGHUP)
    assert select.select([interruption.fileno()], [], [], 5)[0]
    interruption.drain()
    assert not select.select([interruption.fileno()], [], [], 0)[0]
    assert interruption.take_hangup()
    assert not interruption.take_hangup()
    assert interruption.exit_status == 0


@posix
def test_a_pause_ends_with_a_signal_that_ends_the_program(interruption: Interruption) -> None:
    assert not interruption.pause(0.001)
    signal.raise_signal(signal.SIGHUP)
    assert not interruption.pause(0.001)
    signal.raise_signal(signal.SIGTERM)
    assert interruption.pause(3600)
    interruption.drain()
    assert select.select([interruption.fileno()], [], [], 0)[0]


@posix
def test_sighup_is_left_alone_unless_asked_for() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with Interruption():
        assert signal.getsignal(signal.SIGHUP) == before
