"""``pgrepl stream``: the changes of a slot, a line each, on standard output."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final, Literal

from ..connection import Connection, connect
from ..errors import ServerError, SlotNotFound
from ..lsn import Lsn
from .consumer import Consumer, Event, require_publications
from .delivery import Delivery
from .failure import CommandFailed
from .formats import Format, JsonFormat, TextFormat
from .interruption import Interrupted, Interruption
from .output import Output

__all__ = ["BROKEN_PIPE", "StreamOptions", "stream"]

BROKEN_PIPE: Final = 141
"""The exit status when nobody reads the output any more: 128 + SIGPIPE, which Python ignores."""

_DUPLICATE_OBJECT = "42710"


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What to stream, and how to show it. `until`: end at the first position that reaches it."""

    slot: str
    publications: tuple[str, ...]
    create_slot: bool = False
    temporary: bool = False
    format: Literal["text", "json"] = "text"
    until: Lsn | None = None
    status_interval: float = 10.0


def stream(conninfo: str, options: StreamOptions) -> int:
    """Stream to standard output; return the exit status.

    Raises `CommandFailed`, `pgrepl.Error`, and `OSError` of the output.
    """
    if sys.stdout is None:
        raise CommandFailed("expected an open standard output, it is closed")
    output = Output(sys.stdout.fileno())
    with Interruption() as interruption:
        try:
            with interruption.raising():
                connection = connect(conninfo)
        except Interrupted:
            return interruption.exit_status
        with connection:
            try:
                with interruption.raising():
                    consumer = _start(connection, options)
            except Interrupted:
                return interruption.exit_status
            delivery = Delivery(connection, consumer, output, interruption)
            try:
                _deliver(delivery, consumer, output, options)
            except BrokenPipeError:
                return BROKEN_PIPE
        return interruption.exit_status


def _start(connection: Connection, options: StreamOptions) -> Consumer:
    # Before the slot is made, which would stay behind when the publication turns out to be missing.
    require_publications(connection, options.publications)
    try:
        if options.create_slot or options.temporary:
            connection.create_logical_slot(options.slot, temporary=options.temporary)
        return Consumer(
            connection,
            options.slot,
            options.publications,
            status_interval=options.status_interval,
            ask_for_keepalives=options.until is not None,
        )
    except SlotNotFound as error:
        raise CommandFailed(f"{error}; --create-slot makes it") from None
    except ServerError as error:
        if error.sqlstate != _DUPLICATE_OBJECT:
            raise
        raise CommandFailed(f"{error}; leave out --create-slot to stream from it") from None


def _deliver(
    delivery: Delivery, consumer: Consumer, output: Output, options: StreamOptions
) -> None:
    form: Format = JsonFormat() if options.format == "json" else TextFormat()

    def take(event: Event) -> bool:
        line = None if event.message is None else form.line(event.message, event.lsn)
        output.put(line, event.position)
        return options.until is not None and event.position >= options.until

    try:
        delivery.run(take)
    except OSError:
        consumer.finish()  # the output has failed; what it took before that still counts
        raise
    consumer.finish()
