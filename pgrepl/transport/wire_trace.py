"""The trace of a connection, for whoever wants to see what is said on it: logger `pgrepl.wire`.

A line for each message, and for each batch of WAL messages, with its tag, its name, its size, and
of messages of a replication stream the positions.

Law: no payload is in any line, no SQL, no name and no text of the server's; of what answers an
authentication request not even the size, which would tell how long a password is.

Whether there is a trace is asked when a connection is made, and never again: a connection without
one has a transport that knows nothing of it.

Source: PostgreSQL documentation, "Message Formats".
"""

from __future__ import annotations

import itertools
import logging
from typing import Final

from ..codec.abc import WalBatch
from ..lsn import encode_lsn
from ..protocol.conversation import Frame

__all__ = ["WireTrace"]

_log: Final = logging.getLogger("pgrepl.wire")
_numbers: Final = itertools.count(1)

_FROM_SERVER: Final = {
    b"A": "NotificationResponse",
    b"C": "CommandComplete",
    b"D": "DataRow",
    b"E": "ErrorResponse",
    b"G": "CopyInResponse",
    b"H": "CopyOutResponse",
    b"I": "EmptyQueryResponse",
    b"K": "BackendKeyData",
    b"N": "NoticeResponse",
    b"R": "Authentication",
    b"S": "ParameterStatus",
    b"T": "RowDescription",
    b"W": "CopyBothResponse",
    b"Z": "ReadyForQuery",
    b"c": "CopyDone",
    b"d": "CopyData",
    b"v": "NegotiateProtocolVersion",
}
_TO_SERVER: Final = {
    b"Q": "Query",
    b"X": "Terminate",
    b"c": "CopyDone",
    b"d": "CopyData",
    b"f": "CopyFail",
}
_ANSWER: Final = b"p"  # a password, or a message of SASL or GSSAPI
# What has no tag begins with its length and one of these.
_UNTAGGED: Final = {80877102: "CancelRequest", 80877103: "SSLRequest", 80877104: "GSSENCRequest"}
_STATUS_LENGTH: Final = 39  # of a whole frame


class WireTrace:
    """The lines about one connection, which has a number in them."""

    def __init__(self, where: str) -> None:
        self._label = f"#{next(_numbers)}"
        _log.debug("%s connected to %s", self._label, where)

    @classmethod
    def if_wanted(cls, where: str) -> WireTrace | None:
        """Begin a trace of a connection to that address; None: nobody wants one."""
        return cls(where) if _log.isEnabledFor(logging.DEBUG) else None

    # From the server

    def received(self, frame: Frame) -> None:
        """Tell of a message that was taken."""
        tag, body = frame
        self._log_message("<", _named(tag, _FROM_SERVER), len(body) + 5)

    def received_byte(self, answer: bytes) -> None:
        """Tell of the byte that answers a request for TLS."""
        _log.debug("%s < %r, in answer to that", self._label, answer)

    def received_batch(self, batch: WalBatch) -> None:
        """Tell of all WAL messages that one read brought; of none where the stream has ended."""
        starts, ends = batch.wal_start, batch.wal_end
        told = []
        if count := len(starts):
            first, last = encode_lsn(starts[0]), encode_lsn(starts[count - 1])
            where = first if count == 1 else f"{first} to {last}"
            told.append(
                f"{count} XLogData, wal_start {where}, wal_end {encode_lsn(ends[count - 1])}"
            )
        if count < len(batch):
            told += [
                f"PrimaryKeepalive, wal_end {encode_lsn(message.wal_end)}"
                + (", reply requested" if message.reply_requested else "")
                for message in batch
                # Neither twin's class is known here: XLogData asks for no reply.
                if hasattr(message, "reply_requested")
            ]
        if told:
            self._log_message("<", f"d {'; '.join(told)}", batch.nbytes)

    # To the server

    def sent(self, data: bytes, is_reply: bool) -> None:
        """Tell of messages that are given to be sent. `is_reply`: they belong to a stream, and not
        to a command or its data."""
        at = 0
        while at < len(data):
            # A tag is never 0, the first byte of a length that has none before it always.
            has_tag = data[at] != 0
            start = at + has_tag
            length = int.from_bytes(data[start : start + 4], "big") + has_tag
            if length < 5:
                break
            self._sent_one(memoryview(data)[at : at + length], has_tag, is_reply)
            at += length

    def _sent_one(self, message: memoryview, has_tag: bool, is_reply: bool) -> None:
        size = len(message)
        tag = bytes(message[:1])
        if not has_tag:
            code = int.from_bytes(message[4:8], "big")
            self._log_message(">", _UNTAGGED.get(code, "StartupMessage"), size)
        elif tag == _ANSWER:
            _log.debug("%s > p, an answer to that", self._label)
        elif is_reply and tag == b"d":
            self._log_message(">", f"d {_reply(message)}", size)
        else:
            self._log_message(">", _named(tag, _TO_SERVER), size)

    def _log_message(self, direction: str, what: str, size: int) -> None:
        _log.debug("%s %s %s, %d bytes", self._label, direction, what, size)


def _reply(message: memoryview) -> str:
    """Describe what a client sends within a replication stream."""
    kind = bytes(message[5:6])
    if kind == b"r" and len(message) == _STATUS_LENGTH:
        written, flushed, applied = (
            encode_lsn(int.from_bytes(message[at : at + 8], "big")) for at in (6, 14, 22)
        )
        asks = ", reply requested" if message[38] else ""
        return f"StandbyStatusUpdate, written {written}, flushed {flushed}, applied {applied}{asks}"
    return "HotStandbyFeedback" if kind == b"h" else "CopyData"


def _named(tag: bytes, names: dict[bytes, str]) -> str:
    name = names.get(tag)
    return f"{tag!r}, unknown" if name is None else f"{tag.decode('ascii')} {name}"
