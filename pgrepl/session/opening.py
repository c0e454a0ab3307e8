"""How a logical stream begins: what is asked before, and START_REPLICATION; one conversation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ..codec.abc import Codec, Decoder
from ..codec.overrides import unanswered
from ..codec.spool import LEAST_LIMIT, Spool
from ..errors import UnknownTypeWarning, UsageError
from ..lsn import Lsn
from ..protocol.backend import ServerState
from ..protocol.catalogue import read_types
from ..protocol.conversation import Conversation
from ..protocol.preflight import OnMissing, Preflight, preflight
from ..protocol.replication import start_logical_command, wal_end
from ..resume import ResumeToken
from ..typedefs import TypeDefinition
from .options import StreamOptions

__all__ = ["Opened", "Opening", "Overrides", "RawOpening"]

Overrides: TypeAlias = Mapping[int | str, Callable[[Any], Any] | int]


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream that has begun: what was found before, what decodes it, where it puts aside what is
    streamed before it ends, if it is, and what is given as a whole; how many changes of its first
    transaction are dealt with, and where the iteration over it is to end."""

    checked: Preflight
    decoder: Decoder
    spool: Spool
    streams: bool
    handled: int
    until: Lsn | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """What to stream, and from where."""

    slot: str
    options: StreamOptions
    start: Lsn | ResumeToken | None
    types: Overrides | None
    memory_limit: int
    typed: bool = True
    on_missing_publication: OnMissing = "raise"
    until: Lsn | Literal["now"] | None = None

    @classmethod
    def of(
        cls,
        slot: str,
        publications: Iterable[str],
        start: int | ResumeToken | None,
        types: Overrides | None,
        memory_limit: int,
        typed: bool = True,
        on_missing_publication: OnMissing = "raise",
        until: int | Literal["now"] | None = None,
        **options: object,
    ) -> Opening:
        """Make one of what a caller gave. Raises `UsageError` for what makes no sense."""
        if types and not typed:
            raise UsageError("expected types or typed=False, which leaves all values as sent")
        start = _checked_start(start)
        if memory_limit < LEAST_LIMIT:
            raise UsageError(
                f"expected a memory_limit of at least {LEAST_LIMIT} bytes, got {memory_limit!r}"
            )
        if on_missing_publication not in ("raise", "warn"):
            raise UsageError(
                "expected on_missing_publication 'raise' or 'warn', got "
                f"{on_missing_publication!r:.40}"
            )
        chosen = StreamOptions.of(publications, **options)
        end = _checked_until(until)
        return cls(slot, chosen, start, types, memory_limit, typed, on_missing_publication, end)

    def conversation(
        self,
        state: ServerState,
        codec: Codec,
        start_streaming: Callable[[str], Conversation[None]],
    ) -> Conversation[Opened]:
        """Ask, check and begin.

        Raises `UsageError` for an option that the server is too old for, what `preflight` raises,
        and what `start_streaming` raises, which runs the command.
        """
        options = self.options
        plugin_options = options.plugin_options(state.version)
        if options.binary and state.codec != "utf-8":
            raise UsageError(
                "expected binary=False where text comes as the database stores it, which "
                f"client_encoding asks for and {state.codec} reads"
            )
        decoder = codec.Decoder(
            options.version,
            options.streaming,
            self.types,
            self.typed,
            ordered=True,
            encoding=state.codec,
        )
        checked = yield from preflight(
            state,
            self.slot,
            options.publications,
            self.start,
            on_missing=self.on_missing_publication,
        )
        if self.typed:
            definitions = yield from read_types(state)
            _warn_of_unanswered(self.types or {}, definitions)
            decoder.define(definitions)
        until = (yield from wal_end(state)) if isinstance(self.until, str) else self.until
        command = start_logical_command(self.slot, checked.start, plugin_options)
        yield from start_streaming(command)
        spool, streams = Spool(self.memory_limit), options.streaming != "off"
        handled = self.start.index if isinstance(self.start, ResumeToken) else 0
        return Opened(checked, decoder, spool, streams, handled, until)


@dataclass(frozen=True, slots=True)
class RawOpening:
    """Which slot to stream undecoded, whatever its plugin, with which of the plugin's options."""

    slot: str
    options: Mapping[str, str | None]
    start: Lsn | ResumeToken | None

    @classmethod
    def of(
        cls, slot: str, options: Mapping[str, str | None] | None, start: int | ResumeToken | None
    ) -> RawOpening:
        """Make one of what a caller gave. Raises `UsageError` for what makes no sense."""
        given: dict[Any, Any] = dict(options or {})
        for name, value in given.items():
            if not isinstance(name, str) or not isinstance(value, str | None):
                raise UsageError(
                    "expected names and values of the plugin's options as text, got "
                    f"{name!r:.40} with {type(value).__name__}"
                )
        return cls(slot, given, _checked_start(start))

    def conversation(
        self, state: ServerState, start_streaming: Callable[[str], Conversation[None]]
    ) -> Conversation[Preflight]:
        """Check and begin. Raises what `preflight` and `start_streaming` raise."""
        checked = yield from preflight(state, self.slot, (), self.start, plugin=None)
        command = start_logical_command(self.slot, checked.start, self.options)
        yield from start_streaming(command)
        return checked


def _warn_of_unanswered(types: Overrides, definitions: Iterable[TypeDefinition]) -> None:
    """Tell of rules that no type answers to. One that is made later may, so it is no error."""
    for key, similar in unanswered(types, definitions).items():
        meant = f"; did you mean {' or '.join(map(repr, similar))}?" if similar else ""
        warnings.warn(
            f"expected a type for each rule of `types`, but nothing that a column of this database "
            f"can be of is called {key!r:.200}{meant}",
            UnknownTypeWarning,
            stacklevel=2,
        )


def _checked_until(until: int | str | None) -> Lsn | Literal["now"] | None:
    if until is None or until == "now":
        return until  # type: ignore[return-value]
    if not isinstance(until, int) or isinstance(until, bool):
        raise UsageError(
            f"expected an Lsn or 'now' for until, got {until!r:.60}; Lsn() reads the text of one"
        )
    return Lsn(until)


def _checked_start(start: int | ResumeToken | None) -> Lsn | ResumeToken | None:
    if start is None or isinstance(start, ResumeToken):
        return start
    if not isinstance(start, int):
        raise UsageError(
            f"expected an Lsn or a ResumeToken to start at, got {type(start).__name__}; "
            "ResumeToken.parse() and Lsn() read their texts"
        )
    return Lsn(start)
