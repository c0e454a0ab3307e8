"""From the stream to the output: what is written, what is acknowledged and when, and what a signal
does to that."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import pgrepl
from pgrepl.cli.consumer import Consumer, Event, require_publications
from pgrepl.cli.delivery import Delivery
from pgrepl.cli.interruption import Interrupted, Interruption
from pgrepl.cli.output import Output
from pgrepl.codec import Row
from pgrepl.messages import Begin, Column, Commit, Insert, LogicalMessage, Relation
from tests.support.pgoutput_encoder import encode

posix = pytest.mark.skipif(os.name != "posix", reason="pipes and signals as POSIX has them")

TIME = 848653377652022
T = Relation(16389, "public", "t", "d", (Column("id", 23, -1, True),))
ROW = Insert(T, Row(T, ("1",)))


# Output


@pytest.fixture
def pipe() -> Iterator[tuple[int, Output]]:
    """The reading end of a pipe, and an output on the writing end."""
    reader, writer = os.pipe()
    yield reader, Output(writer)
    with contextlib.suppress(OSError):  # a test may have closed it
        os.close(reader)
    os.close(writer)


def test_positions_are_done_in_order_and_not_early(pipe: tuple[int, Output]) -> None:
    reader, output = pipe
    output.put(None, 1)
    assert output.pending
    assert output.write() == 1
    assert not output.pending
    long = "x" * 10000
    output.put("first")
    output.put(long, 2)
    output.put("last", 3)
    output.put(None, 4)
    done = []
    while output.pending:
        done.append(output.write())
    assert os.read(reader, 100000).decode() == f"first\n{long}\nlast\n"
    assert done == [0] * (len(done) - 1) + [4]
    assert len(done) == 1 + 10011 // getattr(select, "PIPE_BUF", 4096)


def test_cut_ends_the_line_that_has_begun(pipe: tuple[int, Output]) -> None:
    reader, output = pipe
    long = "x" * 10000
    output.put(long, 1)
    output.put("never", 2)
    assert output.write() == 0
    output.cut()
    done = []
    while output.pending:
        done.append(output.write())
    assert done[-1] == 1
    assert os.read(reader, 100000).decode() == f"{long}\n"


def test_cut_between_lines_leaves_nothing(pipe: tuple[int, Output]) -> None:
    reader, output = pipe
    output.put("whole", 1)
    assert output.write() == 1
    output.put("never", 2)
    output.cut()
    assert not output.pending
    assert os.read(reader, 100) == b"whole\n"


def test_nobody_reads(pipe: tuple[int, Output]) -> None:
    reader, output = pipe
    output.put("line", 1)
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        output.write()
    assert output.pending


# The consumer


class FakeConnection:
    """A connection whose stream brings the batches that the test lays out."""

    def __init__(self, *batches: list[Any], timeout: str = "60000", version: int = 180000):
        self.batches = list(batches)
        self.server_version = version
        self.commands: list[str] = []
        self.reports: list[tuple[int, int, int, bool]] = []
        self.ended: list[str] = []
        self.stop_fails = False
        self._timeout = timeout

    def query(self, sql: str) -> list[pgrepl.Result]:
        if "wal_sender_timeout" in sql:
            return [pgrepl.Result(("setting",), [(self._timeout,)], "SELECT 1")]
        return [pgrepl.Result(("pubname",), [("p",), ('Odd "name"',)], "SELECT 2")]

    def start_streaming(self, sql: str) -> None:
        self.commands.append(sql)

    def receive_wal_messages(self, timeout: float) -> list[Any]:
        assert timeout == 0
        if not self.batches:
            raise TimeoutError
        return self.batches.pop(0)

    def send_standby_status(
        self, written: int, flushed: int, applied: int, *, reply_requested: bool, timeout: float
    ) -> None:
        assert timeout == 0
        self.reports.append((written, flushed, applied, reply_requested))

    def stop_streaming(self, timeout: float) -> None:
        self.ended.append("stopped")
        if self.stop_fails:
            raise TimeoutError

    def disconnect(self) -> None:
        self.ended.append("disconnected")


def wal(message: LogicalMessage, position: int = 0) -> pgrepl.XLogData:
    return pgrepl.XLogData(position, position, TIME, encode(message))


def keepalive(position: int, reply_requested: bool = False) -> pgrepl.PrimaryKeepalive:
    return pgrepl.PrimaryKeepalive(position, TIME, reply_requested)


def begin(xid: int) -> Begin:
    return Begin(pgrepl.Lsn(0), TIME, xid)


def commit(end: int) -> Commit:
    return Commit(pgrepl.Lsn(end - 1), pgrepl.Lsn(end), TIME)


def consumer_of(connection: FakeConnection, **keywords: Any) -> Consumer:
    return Consumer(connection, "s", ["p"], **keywords)  # type: ignore[arg-type]


def test_start_command() -> None:
    connection = FakeConnection()
    Consumer(connection, "s", ["p", "it's"])  # type: ignore[arg-type]
    assert connection.commands == [
        'START_REPLICATION SLOT "s" LOGICAL 0/0 ("proto_version" \'1\', '
        '"publication_names" \'"p","it\'\'s"\', "messages" \'true\')'
    ]


def test_no_messages_from_a_server_that_cannot_send_them() -> None:
    connection = FakeConnection(version=130000)
    consumer_of(connection)
    assert "messages" not in connection.commands[0]


@pytest.mark.parametrize(
    ("timeout", "wanted", "interval"),
    [("60000", 10.0, 10.0), ("6000", 10.0, 2.0), ("0", 10.0, 10.0), ("6000", 0.5, 0.5)],
)
def test_interval(timeout: str, wanted: float, interval: float) -> None:
    consumer = consumer_of(FakeConnection(timeout=timeout), status_interval=wanted)
    assert consumer.interval == interval
    assert consumer.due_in() <= interval


@pytest.mark.parametrize("nonsense", ["", "1min", "-1", "٣"])
def test_nonsense_for_wal_sender_timeout(nonsense: str) -> None:
    with pytest.raises(pgrepl.Error, match="wal_sender_timeout in milliseconds"):
        consumer_of(FakeConnection(timeout=nonsense))


def test_positions_of_events() -> None:
    batches = [
        [keepalive(100), wal(begin(7)), wal(T)],
        [wal(ROW, 90), keepalive(120), wal(commit(110)), keepalive(110), keepalive(130)],
    ]
    consumer = consumer_of(FakeConnection(*batches))
    events: list[Event] = []
    while (arrived := consumer.receive()) is not None:
        events += arrived
    # A keepalive inside of a transaction carries no position, and nothing is added to any.
    assert [event.position for event in events] == [100, 0, 0, 0, 0, 110, 110, 130]
    assert [event.message for event in events] == [
        None, begin(7), T, ROW, None, commit(110), None, None,
    ]  # fmt: skip
    assert consumer.acknowledged == 0


def test_acknowledged_never_goes_back() -> None:
    consumer = consumer_of(FakeConnection())
    for position, expected in ((5, 5), (0, 5), (4, 5), (6, 6)):
        consumer.acknowledge(position)
        assert consumer.acknowledged == expected


def test_commits_are_reported_when_all_is_quiet_and_keepalives_can_wait() -> None:
    connection = FakeConnection([keepalive(100)], [wal(begin(1)), wal(commit(110))])
    consumer = consumer_of(connection)
    for expected in ([], [(110, 110, 110, False)]):
        for event in consumer.receive() or ():
            consumer.report_commits()  # not delivered yet
            consumer.acknowledge(event.position)
        for _ in range(2):
            consumer.report_commits()
            consumer.report_if_due()
        assert connection.reports == expected


def test_a_request_for_a_reply_makes_the_report_due() -> None:
    connection = FakeConnection([keepalive(100, reply_requested=True)])
    consumer = consumer_of(connection, ask_for_keepalives=True)
    assert consumer.due_in() > 0
    assert len(list(consumer.receive() or ())) == 1
    assert consumer.due_in() == 0
    consumer.report_if_due()
    consumer.report_if_due()
    assert connection.reports == [(0, 0, 0, True)]


def test_the_servers_end_of_the_stream() -> None:
    with pytest.raises(pgrepl.ConnectionFailed, match="ended the stream"):
        consumer_of(FakeConnection([])).receive()


@pytest.mark.parametrize(
    ("batch", "stop_fails", "ended"),
    [
        ([keepalive(5)], False, ["stopped"]),
        ([keepalive(5)], True, ["stopped", "disconnected"]),
        ([wal(begin(1))], False, ["disconnected"]),
        ([wal(begin(1)), wal(commit(9))], False, ["stopped"]),
    ],
)
def test_finish(batch: list[Any], stop_fails: bool, ended: list[str]) -> None:
    connection = FakeConnection(batch)
    connection.stop_fails = stop_fails
    consumer = consumer_of(connection)
    assert len(list(consumer.receive() or ())) == len(batch)
    consumer.acknowledge(5)
    consumer.finish()
    assert connection.reports == [(5, 5, 5, False)]
    assert connection.ended == ended


def test_publications_that_are_there() -> None:
    require_publications(FakeConnection(), ["p", 'Odd "name"'])  # type: ignore[arg-type]


def test_publication_that_is_not_there() -> None:
    with pytest.raises(pgrepl.UsageError, match="'q', which this database does not have"):
        require_publications(FakeConnection(), ["p", "q"])  # type: ignore[arg-type]


# Delivery


class FakeConsumer:
    """Brings events; reports are due from the start, so that each chance to report shows."""

    def __init__(self, *batches: list[Event]) -> None:
        self.batches = list(batches)
        self.acknowledged: list[int] = []
        self.reports = 0
        self.quiet = 0

    def receive(self) -> Iterator[Event] | None:
        return iter(self.batches.pop(0)) if self.batches else None

    def acknowledge(self, position: int) -> None:
        if position:
            self.acknowledged.append(position)

    def due_in(self) -> float:
        return 0.01

    def report_if_due(self) -> None:
        self.reports += 1

    def report_commits(self) -> None:
        self.quiet += 1


def deliver(
    consumer: FakeConsumer, output: Output, interruption: Interruption, until: int, **keywords: Any
) -> None:
    """Write as many letters as each event's `lsn` says, up to one position."""

    def take(event: Event) -> bool:
        output.put("x" * event.lsn, event.position)
        return event.position == until

    silent, peer = socket.socketpair()
    with silent, peer:
        connection = SimpleNamespace(fileno=silent.fileno)
        loop = Delivery(connection, consumer, output, interruption)  # type: ignore[arg-type]
        loop.run(take, **keywords)


@pytest.fixture
def interruption() -> Iterator[Interruption]:
    with Interruption() as entered:
        yield entered


def test_delivers_to_the_end_asked_for(
    pipe: tuple[int, Output], interruption: Interruption
) -> None:
    reader, output = pipe
    consumer = FakeConsumer(
        [Event(None, 1, 10), Event(None, 2, 20)], [Event(None, 3, 30), Event(None, 4, 40)]
    )
    deliver(consumer, output, interruption, until=30)
    assert os.read(reader, 100) == b"x\nxx\nxxx\n"
    assert consumer.acknowledged == [20, 30]
    assert consumer.quiet == 0


def test_the_pulse_ends_the_loop(pipe: tuple[int, Output], interruption: Interruption) -> None:
    consumer = FakeConsumer([Event(None, 1, 10)])
    wishes = iter([0.0, 0.0, None])
    deliver(consumer, pipe[1], interruption, until=0, pulse=lambda: next(wishes))
    assert consumer.acknowledged == [10]
    assert consumer.quiet == 1


@posix
def test_reports_go_on_while_the_output_is_blocked(
    pipe: tuple[int, Output], interruption: Interruption
) -> None:
    reader, output = pipe
    consumer = FakeConsumer([Event(None, 200000, 10), Event(None, 2, 20)])
    reading: list[bytes] = []
    report = consumer.report_if_due

    def report_and_read() -> None:
        report()
        if consumer.reports >= 50:
            assert consumer.acknowledged == [] or not output.pending
            reading.append(os.read(reader, 4096))

    consumer.report_if_due = report_and_read  # type: ignore[method-assign]
    deliver(consumer, output, interruption, until=20)
    # More than a pipe holds: most of it had to wait until somebody read.
    assert sum(map(len, reading)) > 200000 - (1 << 17)
    assert consumer.acknowledged == [20]


@posix
def test_a_signal_ends_a_wait_for_the_output(
    pipe: tuple[int, Output], interruption: Interruption
) -> None:
    consumer = FakeConsumer([Event(None, 1, 10)])
    while select.select([], [pipe[1].descriptor], [], 0)[1]:
        os.write(pipe[1].descriptor, b"x" * select.PIPE_BUF)

    def interrupt() -> None:
        consumer.reports += 1
        if consumer.reports == 3:
            signal.raise_signal(signal.SIGTERM)

    consumer.report_if_due = interrupt  # type: ignore[method-assign]
    deliver(consumer, pipe[1], interruption, until=0)
    assert interruption.exit_status == 143
    assert consumer.acknowledged == []
    assert not pipe[1].pending


@posix
def test_a_reader_that_goes_away_is_noticed_without_a_write(
    pipe: tuple[int, Output], interruption: Interruption
) -> None:
    os.close(pipe[0])
    with pytest.raises(BrokenPipeError):
        deliver(FakeConsumer(), pipe[1], interruption, until=0)


def test_without_poll(
    pipe: tuple[int, Output], interruption: Interruption, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(select, "poll", raising=False)
    consumer = FakeConsumer([Event(None, 1, 10)])
    wishes = iter([0.0, 0.01, None])
    deliver(consumer, pipe[1], interruption, until=0, pulse=lambda: next(wishes))
    assert os.read(pipe[0], 100) == b"x\n"
    assert consumer.acknowledged == [10]


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
