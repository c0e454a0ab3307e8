"""The trace of a connection, for whoever wants to see what is said on it: logger `pgrepl.wire`.

A line for each message, and for each batch of WAL messages, with its tag, its name, its size, and
what of it is a number, a code, or a word of a list here: the positions of a replication stream, the
server's process, SQLSTATE, what begins a command.

Law: no payload is in any line, no SQL, no name and no text of the server's; of what answers an
authentication request not even the size, which would tell how long a password is. No line is the
longer the more has come.

Whether there is a trace is asked when a connection is made, and never again: a connection without
one has a transport that knows nothing of it.

Source: PostgreSQL documentation, "Message Formats".
"""

from __future__ import annotations

import itertools
import logging
import re
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
    b"R": "Authentication",  # which one, is in its body
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
_AUTHENTICATION: Final = {
    0: "Ok",
    2: "KerberosV5",
    3: "CleartextPassword",
    5: "MD5Password",
    7: "GSS",
    8: "GSSContinue",
    9: "SSPI",
    10: "SASL",
    11: "SASLContinue",
    12: "SASLFinal",
}
_ABOUT_TLS: Final = {b"S": "S: TLS", b"N": "N: no TLS", b"E": "E: an error"}
_ANSWER: Final = b"p"  # a password, or a message of SASL or GSSAPI
# What has no tag begins with its length and one of these.
_UNTAGGED: Final = {80877102: "CancelRequest", 80877103: "SSLRequest", 80877104: "GSSENCRequest"}
_STATUS_LENGTH: Final = 39  # of a whole frame

_SQLSTATE: Final = re.compile(rb"(?:\A|\0)C([0-9A-Z]{5})\0")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What a command may be said to begin with; of all others nothing is said.
_BEGINNING: Final = re.compile(rb"\s*([A-Za-z_]+)(?:\s+([A-Za-z]+))?")
_LOOKED_AT: Final = 100  # bytes of a command
_COMMANDS: Final = _words(
    """
    ALTER_REPLICATION_SLOT BASE_BACKUP CREATE_REPLICATION_SLOT DROP_REPLICATION_SLOT IDENTIFY_SYSTEM
    READ_REPLICATION_SLOT START_REPLICATION TIMELINE_HISTORY UPLOAD_MANIFEST
    ABORT ALTER ANALYZE BEGIN CALL CHECKPOINT CLUSTER COMMENT COMMIT COPY CREATE DELETE DISCARD DO
    DROP END EXECUTE EXPLAIN GRANT INSERT LISTEN LOAD LOCK MERGE NOTIFY PREPARE REFRESH REINDEX
    RELEASE RESET REVOKE ROLLBACK SAVEPOINT SECURITY SELECT SET SHOW START TABLE TRUNCATE UNLISTEN
    UPDATE VACUUM VALUES WITH
    """
)
_OBJECTS: Final = _words(
    """
    DATABASE EVENT EXTENSION FUNCTION INDEX MATERIALIZED POLICY PROCEDURE PUBLICATION ROLE SCHEMA
    SEQUENCE SUBSCRIPTION SYSTEM TABLE TRIGGER TYPE UNIQUE USER VIEW
    """
)
_ON_OBJECTS: Final = frozenset({"ALTER", "CREATE", "DROP"})


class WireTrace:
    """The lines about one connection, which has a number in them.

    Each record has it as `connection`, and as `server_process` the process id that the server has
    told, 0 before that.
    """

    def __init__(self, where: str) -> None:
        number = next(_numbers)
        self._label = f"#{number}"
        self._attributes = {"connection": number, "server_process": 0}
        self._log(f"connected to {where}")

    @classmethod
    def if_wanted(cls, where: str) -> WireTrace | None:
        """Begin a trace of a connection to that address; None: nobody wants one."""
        return cls(where) if _log.isEnabledFor(logging.DEBUG) else None

    # From the server

    def received(self, frame: Frame) -> None:
        """Tell of a message that was taken."""
        tag, body = frame
        what = _named(tag, _FROM_SERVER)
        if tag == b"K" and len(body) >= 8:
            process = int.from_bytes(body[:4], "big", signed=True)
            self._attributes["server_process"] = process
            what += f", process {process}"
        elif tag == b"R":
            code = int.from_bytes(body[:4], "big") if len(body) >= 4 else -1
            what += _AUTHENTICATION.get(code, ", unknown")
        elif tag in (b"E", b"N") and (found := _SQLSTATE.search(body)):
            what += f", SQLSTATE {found[1].decode('ascii')}"
        self._log_message("<", what, len(body) + 5)

    def received_byte(self, answer: bytes) -> None:
        """Tell of the byte that answers a request for TLS."""
        self._log(f"< {_ABOUT_TLS.get(answer, 'unknown')}, in answer to that")

    def received_batch(self, batch: WalBatch) -> None:
        """Tell of all WAL messages that one read brought; of none where the stream has ended."""
        starts, ends = batch.wal_start, batch.wal_end
        told = []
        if count := len(starts):
            where = _from_to(starts[0], starts[count - 1], count)
            told.append(
                f"{count} XLogData, wal_start {where}, wal_end {encode_lsn(ends[count - 1])}"
            )
        if count < len(batch):
            told.append(_keepalives(batch))
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
            self._log_message(">", _untagged(message), size)
        elif tag == _ANSWER:
            self._log("> p, an answer to that")
        elif is_reply and tag == b"d":
            self._log_message(">", f"d {_reply(message)}", size)
        elif tag == b"Q":
            self._log_message(">", f"Q Query{_beginning(message)}", size)
        else:
            self._log_message(">", _named(tag, _TO_SERVER), size)

    def _log_message(self, direction: str, what: str, size: int) -> None:
        self._log(f"{direction} {what}, {size} bytes")

    def _log(self, what: str) -> None:
        _log.debug("%s %s", self._label, what, extra=self._attributes)


def _from_to(first: int, last: int, count: int) -> str:
    return encode_lsn(first) if count == 1 else f"{encode_lsn(first)} to {encode_lsn(last)}"


def _keepalives(batch: WalBatch) -> str:
    """Describe those of a batch, of which it has one at least."""
    # Neither twin's class is known here: XLogData asks for no reply.
    found = [message for message in batch if hasattr(message, "reply_requested")]
    count, asking = len(found), sum(message.reply_requested for message in found)
    where = _from_to(found[0].wal_end, found[-1].wal_end, count)
    asks = ""
    if asking:
        asks = ", reply requested" if count == 1 else f", reply requested by {asking}"
    return f"{count} PrimaryKeepalive, wal_end {where}{asks}"


def _untagged(message: memoryview) -> str:
    """Describe what has no tag. Of a CancelRequest the key is not told."""
    name = _UNTAGGED.get(int.from_bytes(message[4:8], "big"), "StartupMessage")
    if name == "CancelRequest" and len(message) >= 12:
        return f"{name}, process {int.from_bytes(message[8:12], 'big', signed=True)}"
    return name


def _beginning(message: memoryview) -> str:
    """Return the word or two that a Query begins with, as far as they are in the lists here."""
    found = _BEGINNING.match(bytes(message[5 : 5 + _LOOKED_AT]))
    if found is None or (command := found[1].decode("ascii").upper()) not in _COMMANDS:
        return ""
    if command in _ON_OBJECTS and found[2] is not None:
        kind = found[2].decode("ascii").upper()
        if kind in _OBJECTS:
            return f", {command} {kind}"
    return f", {command}"


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
    return f"tag 0x{tag.hex()}, unknown" if name is None else f"{tag.decode('ascii')} {name}"
