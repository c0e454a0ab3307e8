"""The simple query: one text, any number of results, always read to the end.

Source: PostgreSQL documentation, "Simple Query".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..errors import ProtocolError, ServerError, UsageError, server_error
from ..public import imported_from
from . import frontend
from .backend import BodyReader, ServerState, error_fields, unexpected
from .conversation import Conversation, Frame, Send
from .session_settings import command

__all__ = ["MOST_BYTES", "Answer", "Result", "drain", "simple_query"]

MOST_BYTES: Final = 4 << 20
"""Of rows in answer to a command that has few of them, whoever the server is."""


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class Result:
    """What one statement returned: names of its columns, rows of text or None, command tag.

    A statement that returns no rows has no columns; an empty query has the tag ``""``.
    """

    columns: tuple[str, ...]
    rows: list[tuple[str | None, ...]]
    tag: str


class Answer:
    """Collects the results of a query from the server's messages, up to ReadyForQuery.

    `most_bytes`: what all of them may take; None: whatever comes, since it was asked for.
    """

    def __init__(self, state: ServerState, most_bytes: int | None = MOST_BYTES) -> None:
        self.results: list[Result] = []
        self.error: ServerError | None = None
        self._state = state
        self._most_bytes = most_bytes
        self._bytes = 0
        self._columns: tuple[str, ...] | None = None
        self._rows: list[tuple[str | None, ...]] = []

    def take(self, frame: Frame) -> bool:
        """Take a message in; True when it was ReadyForQuery."""
        tag = frame[0]
        self._count(len(frame[1]))
        if tag == b"T":
            self._columns = _row_description(frame)
        elif tag == b"D":
            self._rows.append(self._data_row(frame))
        elif tag in (b"C", b"I"):
            reader = BodyReader(frame)
            self._finish_result(reader.string() if tag == b"C" else "")
            reader.finish()
        elif tag == b"E":
            self._columns, self._rows = None, []
            error = server_error(error_fields(frame))
            if error.severity != "ERROR":
                # The server ends the session with it, so that no ReadyForQuery follows.
                raise error
            # The first one is the cause; what follows in the same answer are consequences.
            self.error = self.error or error
        elif tag == b"Z":
            self._state.ready(frame)
            return True
        else:
            raise unexpected(frame, "the answer to a query")
        return False

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._most_bytes is not None and self._bytes > self._most_bytes:
            raise ProtocolError(
                f"expected at most {self._most_bytes} bytes in answer to this command, got more"
            )

    def _finish_result(self, tag: str) -> None:
        self.results.append(Result(self._columns or (), self._rows, tag))
        self._columns, self._rows = None, []

    def _data_row(self, frame: Frame) -> tuple[str | None, ...]:
        if self._columns is None:
            raise unexpected(frame, "RowDescription before the first row")
        reader = BodyReader(frame)
        count = reader.int16()
        if count != len(self._columns):
            raise ProtocolError(
                f"expected a row of {len(self._columns)} columns as described, got {count}",
                tag=b"D",
                offset=0,
            )
        row = tuple(_value(reader) for _ in range(count))
        reader.finish()
        return row


def simple_query(
    state: ServerState, sql: str, most_bytes: int | None = None
) -> Conversation[list[Result]]:
    """Run a query; returns a `Result` for each statement, all of them in `most_bytes`.

    Raises `ServerError` after the whole answer was read, so that the next command works. A COPY in
    either direction is refused with `UsageError`, likewise read to its end.
    """
    yield from command(state, sql)
    answer = Answer(state, most_bytes)
    refused = ""
    while True:
        frame: Frame = yield from state.receive()
        tag = frame[0]
        if tag == b"G":
            refused = "COPY FROM STDIN"
            yield Send(frontend.copy_fail("pgrepl does not send data in query()"))
        elif tag == b"W":
            refused = "START_REPLICATION; use start_streaming()"
            state.has_stopped_stream = True
            yield Send(frontend.COPY_DONE)
        elif tag == b"H":
            refused = "COPY TO STDOUT"
        elif refused and tag in (b"d", b"c"):
            pass
        elif answer.take(frame):
            break
    if refused:
        raise UsageError(f"expected a command that query() can run, got {refused}")
    if answer.error is not None:
        raise answer.error
    return answer.results


def drain(state: ServerState) -> Conversation[None]:
    """Read on to ReadyForQuery after an error in a stream; what comes before it has no meaning.

    Raises `ServerError` where the server ends the session instead.
    """
    while True:
        frame: Frame = yield from state.receive()
        if frame[0] == b"Z":
            state.ready(frame)
            return
        if frame[0] == b"E" and (error := server_error(error_fields(frame))).severity != "ERROR":
            raise error


def _row_description(frame: Frame) -> tuple[str, ...]:
    reader = BodyReader(frame)
    count = reader.int16()
    if count < 0:
        raise ProtocolError(f"expected a number of columns, got {count}", tag=b"T", offset=0)
    names = []
    for _ in range(count):
        names.append(reader.string())
        reader.take(18)  # table, attribute, type, its size and modifier, format: not needed here
    reader.finish()
    return tuple(names)


def _value(reader: BodyReader) -> str | None:
    size = reader.int32()
    if size == -1:
        return None
    if size < 0:
        raise ProtocolError(
            f"expected a column length of 0 or more, or -1 for NULL, got {size}",
            tag=b"D",
            offset=reader.at - 4,
        )
    return reader.take(size).decode("utf-8", "surrogateescape")
