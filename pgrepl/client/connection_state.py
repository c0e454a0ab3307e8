"""What a connection is doing, and what it can be asked meanwhile. The states:

    COMMANDS    --a command goes out---------------> ANSWERING
    ANSWERING   --ReadyForQuery--------------------> COMMANDS
    ANSWERING   --CopyBothResponse-----------------> STREAMING
    STREAMING   --the server ends the stream-------> ENDED
    STREAMING   --ErrorResponse--------------------> ANSWERING    ReadyForQuery follows
    STREAMING   --CopyDone goes out----------------> STOPPING     from ENDED as well
    STOPPING    --ReadyForQuery--------------------> COMMANDS
    COMMANDS    --BASE_BACKUP goes out-------------> BASE_BACKUP
    BASE_BACKUP --ReadyForQuery--------------------> COMMANDS
    any of them --disconnect(), or a failure-------> CLOSED

A time limit, a cancellation or Ctrl-C in a wait leaves it in the state that it is in.

Source: PostgreSQL documentation, "Message Flow" and "Streaming Replication Protocol".
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from ..errors import UsageError

__all__ = ["ConnectionState", "Step", "Use", "carried", "step_before"]


class ConnectionState(enum.Enum):
    """What a connection is doing; see the top of this file."""

    COMMANDS = "commands"
    """Nothing: it takes commands."""
    ANSWERING = "answering"
    """The answer to a command is read, or was cut off and is still to be read."""
    STREAMING = "streaming"
    ENDED = "ended"
    """The server has ended the stream; it is still to be stopped from this side."""
    STOPPING = "stopping"
    BASE_BACKUP = "base backup"
    CLOSED = "closed"


class Step(enum.Enum):
    """What has to be done before a connection can be used."""

    NOTHING = enum.auto()
    FINISH = enum.auto()
    """Read the answer that was cut off to its end."""
    STOP = enum.auto()
    """Stop the stream that has ended."""


class Use(enum.Enum):
    """What a connection can be asked for."""

    COMMAND = enum.auto()
    """A command, the start of a stream or a base backup."""
    READ = enum.auto()
    """To read from the stream, or to stop it."""
    REPORT = enum.auto()
    """To report positions to the server, which waits for nothing."""


_Answer: TypeAlias = Step | str  # what has to be done first, or why it cannot be


class _Row(NamedTuple):
    command: _Answer
    read: _Answer
    report: _Answer

    def answer(self, use: Use) -> _Answer:
        if use is Use.COMMAND:
            return self.command
        return self.read if use is Use.READ else self.report


_STREAM_ON: Final = "expected no stream to be on"
_NO_STREAM: Final = "expected a stream that was started; call start_streaming() first"
_STREAM: Final = f"{_STREAM_ON}; call stop_streaming() first"
_BACKUP: Final = "expected no base backup to be on; read it to its end, or close the connection"
_CLOSED: Final = "expected an open connection, this one is closed"

_ALLOWED: Final[Mapping[ConnectionState, _Row]] = {
    ConnectionState.COMMANDS: _Row(Step.NOTHING, _NO_STREAM, _NO_STREAM),
    # What is answered may be the start of a stream.
    ConnectionState.ANSWERING: _Row(Step.FINISH, Step.FINISH, _NO_STREAM),
    ConnectionState.STREAMING: _Row(_STREAM, Step.NOTHING, Step.NOTHING),
    ConnectionState.ENDED: _Row(Step.STOP, Step.NOTHING, Step.NOTHING),
    ConnectionState.STOPPING: _Row(Step.FINISH, _NO_STREAM, _NO_STREAM),
    ConnectionState.BASE_BACKUP: _Row(_BACKUP, _NO_STREAM, _NO_STREAM),
    ConnectionState.CLOSED: _Row(_CLOSED, _CLOSED, _CLOSED),
}


def step_before(use: Use, state: ConnectionState, slot: str | None) -> Step:
    """Return what has to be done first in a state, after which this is to be asked again.

    `slot`: that of the `Stream` or `RawStream` that is on, None where there is none. Raises
    `UsageError` where the state does not allow the use.
    """
    answer = _ALLOWED[state].answer(use)
    if slot is not None and use is Use.COMMAND and state is not ConnectionState.CLOSED:
        # Also where the server has ended it, which whoever reads it is still to be told.
        answer = f"{_STREAM_ON}, {carried(slot)}, or use another connection"
    if isinstance(answer, str):
        raise UsageError(answer)
    return answer


def carried(slot: str) -> str:
    """Return what to say of a connection that has a `Stream` or `RawStream` on it."""
    return f"this connection carries the stream of slot {slot!r}: stop() it"
