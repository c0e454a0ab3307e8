"""The simulated server does what real ones were seen to do with positions."""

from __future__ import annotations

import struct

import pytest

from pgrepl.codec import _pure
from pgrepl.messages import Begin, Commit, LogicalMessage, Relation
from tests.support import builders
from tests.support.simulated_server import Event, SimulatedServer, Walsender, read_status


def status(flushed: int, written: int = 0, asks: bool = False) -> bytes:
    body = b"r" + struct.pack("!QQQqB", written or flushed, flushed, flushed, 0, asks)
    return builders.copy_data(body)


def everything(sender: Walsender) -> list[tuple[int, LogicalMessage] | tuple[int, bool]]:
    """All that is sent from now on: data as position and message, keepalives as position and
    whether they ask."""
    while sender.step():
        pass
    reader, decoder = _pure.FrameReader(), _pure.Decoder(3)
    reader.feed(bytes(sender.outgoing))
    sender.outgoing.clear()
    found: list[tuple[int, LogicalMessage] | tuple[int, bool]] = []
    while (batch := _pure.next_batch(reader)) is not None:
        for message in batch:
            if isinstance(message, _pure.XLogData):
                found.append((message.wal_start, decoder.feed(message)))
            else:
                found.append((message.wal_end, message.reply_requested))
    return found


def commits(sender: Walsender) -> list[int]:
    """The ends of the transactions that are sent."""
    sent = [message for _, message in everything(sender)]
    return [message.end_lsn for message in sent if isinstance(message, Commit)]


def transaction(server: SimulatedServer, *keys: int) -> Event:
    xid = server.wal.begin()
    for key in keys:
        server.wal.insert(xid, key)
    return server.wal.commit(xid)


def test_transactions_come_in_the_order_of_their_commits() -> None:
    server = SimulatedServer()
    first, second = server.wal.begin(), server.wal.begin()
    server.wal.insert(first, 1)
    server.wal.insert(second, 2)
    late = server.wal.commit(second)
    server.wal.abort(server.wal.begin())
    last = server.wal.commit(first)
    sent = everything(server.start_replication(0, 0.0))
    positions = [position for position, _ in sent]
    assert [type(message) for _, message in sent[1:4]] == [Begin, Relation, type(sent[3][1])]
    assert positions == [
        server.slot.confirmed,  # the keepalive at the start
        late.changes[0][0],
        0,
        late.changes[0][0],
        late.end_lsn,
        last.changes[0][0],  # the description is known, and positions go back
        last.changes[0][0],
        last.end_lsn,
    ]


@pytest.mark.parametrize("adjustment", [0, 1])
def test_a_transaction_is_sent_if_its_commit_is_not_behind_the_start(adjustment: int) -> None:
    server = SimulatedServer()
    first, second = transaction(server, 1), transaction(server, 2)
    assert second.lsn > first.end_lsn
    sender = server.start_replication(0, 0.0)
    sender.receive(status(first.lsn + adjustment), 0.0)
    # By the commit's own position it comes again; by anything more it does not.
    expected = [second.end_lsn] if adjustment else [first.end_lsn, second.end_lsn]
    assert commits(server.start_replication(0, 0.0)) == expected
    assert commits(server.start_replication(first.end_lsn, 0.0)) == [second.end_lsn]
    assert commits(server.start_replication(second.end_lsn, 0.0)) == []


def test_a_keepalive_may_tell_the_position_of_the_next_commit() -> None:
    server = SimulatedServer()
    server.wal.write_noise(8)
    sender = server.start_replication(0, 0.0)
    assert commits(sender) == []
    sender.keepalive()
    ((position, _),) = everything(sender)
    event = transaction(server)
    assert position == event.lsn == sender.start + 8
    sender.receive(status(position + 1), 0.0)
    assert commits(server.start_replication(0, 0.0)) == []  # lost


def test_any_position_is_believed_and_0_says_nothing() -> None:
    server = SimulatedServer()
    sender = server.start_replication(0, 0.0)
    before = server.slot.confirmed
    sender.receive(status(0), 0.0)
    assert server.slot.confirmed == before
    sender.receive(status(1 << 40), 0.0)
    assert server.slot.confirmed == 1 << 40
    transaction(server, 1)
    assert commits(server.start_replication(0, 0.0)) == []


@pytest.mark.parametrize("monotonic", [True, False])
def test_only_old_servers_let_a_slot_go_back(monotonic: bool) -> None:
    server = SimulatedServer(monotonic=monotonic)
    start, event = server.slot.confirmed, transaction(server, 1)
    sender = server.start_replication(0, 0.0)
    sender.receive(status(event.end_lsn) + status(start), 0.0)
    assert server.slot.confirmed == (event.end_lsn if monotonic else start)


def test_after_a_crash_the_slot_is_what_it_was_on_disk() -> None:
    server = SimulatedServer()
    first, second = transaction(server, 1), transaction(server, 2)
    sender = server.start_replication(0, 0.0)
    sender.receive(status(first.end_lsn), 0.0)
    server.slot.checkpoint()
    sender.receive(status(second.end_lsn), 0.0)
    open_xid = server.wal.begin()
    server.crash()
    assert open_xid not in server.wal.open
    assert commits(server.start_replication(0, 0.0)) == [second.end_lsn]


def test_a_silent_client_is_asked_at_half_and_left_at_the_whole() -> None:
    sender = SimulatedServer(wal_sender_timeout=6.0).start_replication(0, 100.0)
    everything(sender)
    sender.tick(102.9)
    assert everything(sender) == []
    assert sender.wakes_at == 103.0
    sender.tick(103.0)
    assert everything(sender) == [(sender.sent_ptr, True)]
    sender.tick(105.9)
    sender.receive(status(0), 105.9)
    sender.tick(106.0)
    assert not sender.is_closed
    sender.tick(108.9)
    sender.tick(111.9)
    assert sender.is_closed
    assert not sender.step()


def test_a_shutdown_waits_for_the_last_position() -> None:
    server = SimulatedServer()
    event = transaction(server, 1)
    sender = server.start_replication(0, 0.0)
    everything(sender)
    server.begin_shutdown()
    assert everything(sender) == [(server.wal.end, True)]
    assert everything(sender) == []  # one request until it is answered
    sender.receive(status(event.end_lsn), 0.0)
    assert everything(sender) == [(server.wal.end, True)]
    # Without a flushed position the written one counts.
    sender.receive(status(0, written=server.wal.end), 0.0)
    assert not sender.step()
    assert sender.is_closed
    assert bytes(sender.outgoing) == builders.command_complete("COPY 0")


def test_after_copy_done_the_transaction_goes_on_to_its_end() -> None:
    server = SimulatedServer()
    event = transaction(server, 1, 2, 3)
    transaction(server, 4)
    sender = server.start_replication(0, 0.0)
    while not sender.before:
        sender.step()
    sender.receive(builders.copy_done(), 0.0)
    assert commits(sender) == [event.end_lsn]
    assert not sender.step()


def test_a_status_is_read_in_whatever_pieces_it_comes() -> None:
    sender = SimulatedServer().start_replication(0, 0.0)
    everything(sender)
    for byte in status(77, asks=True):
        assert not sender.statuses
        sender.receive(bytes([byte]), 0.0)
    assert sender.statuses == [(77, 77, 77, 0, True)]
    assert everything(sender) == [(sender.sent_ptr, False)]


@pytest.mark.parametrize(
    "frame",
    [
        status(1)[:-1] + b"\2",
        builders.copy_data(b"h" + status(1)[6:]),
        builders.message(b"Q", status(1)[5:]),
        builders.message(b"d", status(1)[5:], length=40),
    ],
)
def test_anything_else_is_no_status(frame: bytes) -> None:
    with pytest.raises(ValueError, match="expected a frame with a standby status update"):
        read_status(frame)
