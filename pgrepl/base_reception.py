"""What every kind of stream has in common, in both flavours: a session, its feedback, and an end.

Law: after an error nothing more is sent. What is wrong with a stream stays wrong, and a status that
went out behind an error could acknowledge what nobody has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from .errors import Error, UsageError
from .lsn import Lsn
from .ownership import Uncopied
from .session.session import Session

__all__ = ["BaseReception", "Stats"]


@dataclass(frozen=True, slots=True)
class Stats:
    """Where a stream stands.

    `received`: the highest position that came; `delivered`: the end of the last transaction that
    the application was given, of a raw stream the highest position that it was given; `written`,
    `flushed`, `applied`: as last reported to the server; `statuses`: how many reports were sent.
    """

    received: Lsn
    delivered: Lsn
    written: Lsn
    flushed: Lsn
    applied: Lsn
    statuses: int


class Closable(Protocol):
    """What a stream knows of its connection here."""

    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""


class Feedback(Protocol):
    """What a stream knows of its feedback here."""

    def acknowledge(
        self, delivered: int, position: int, written: bool, flushed: bool, applied: bool
    ) -> None:
        """Take an acknowledgement. Waits for nobody."""

    def wait_begins(self, delivered: int, idle: bool) -> float | None:
        """Send what is due before the application waits; return for how long at most it should."""

    def stop(self) -> None:
        """Send nothing more."""


class _Guard:
    """Does something where a `with` block is left by certain exceptions; made once for all blocks.

    They are entered for every few rows, and a generator for each would cost more than a row.
    """

    __slots__ = ("_exceptions", "_then")

    def __init__(self, exceptions: type[BaseException], then: Callable[[], None]) -> None:
        self._exceptions = exceptions
        self._then = then

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A generator that is closed has lost nothing.
        if kind is not None and issubclass(kind, self._exceptions) and kind is not GeneratorExit:
            self._then()


class BaseReception(Uncopied, ABC):
    """A stream that is being received, and what is reported of it."""

    _connection: Closable
    _feedback: Feedback

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ended = False
        self._on_errors = _Guard(Error, self._fail)
        self._on_anything = _Guard(BaseException, self._fail)

    # What a kind of stream and a flavour add

    @abstractmethod
    def _close(self) -> None:
        """Close the connection at once."""

    @property
    @abstractmethod
    def _delivered(self) -> int:
        """The highest position by which something that was delivered can be acknowledged."""

    @property
    @abstractmethod
    def _is_between(self) -> bool:
        """Whether nothing is open of what was delivered."""

    @abstractmethod
    def _let_go(self) -> None:
        """Give back what the stream has taken."""

    # What they share

    @property
    def _is_over(self) -> bool:
        return self._ended or self._connection.closed

    def _require_on(self) -> None:
        if self._is_over:
            raise UsageError(
                "expected a stream that is on, this one has ended: the server cannot be told, and "
                "sends what was not acknowledged in time once more"
            )

    def _fail(self) -> None:
        """Close the connection, so that nothing more is sent."""
        self._feedback.stop()
        self._close()
        self._let_go()

    def _failing(self) -> _Guard:
        """See to it that nothing more is sent after an error: what is wrong stays so."""
        return self._on_errors

    def _handing_out(self) -> _Guard:
        """The same where nothing waits, and where Ctrl-C as well may have cost a message."""
        return self._on_anything

    def _wait_begins(self, left: float | None) -> float | None:
        """Tell the server what it should know before a wait that has so many seconds; return for
        how long at most to wait."""
        limit = self._feedback.wait_begins(self._delivered, self._is_between)
        return min((each for each in (limit, left) if each is not None), default=None)

    def stats(self) -> Stats:
        """Return where the stream stands. From any thread."""
        positions = self._session.positions
        return Stats(
            Lsn(positions.received),
            Lsn(self._delivered),
            Lsn(positions.last.written),
            Lsn(positions.last.flushed),
            Lsn(positions.last.applied),
            self._session.statuses,
        )

    def __repr__(self) -> str:
        state = "ended" if self._is_over else "on"
        return f"<pgrepl.{type(self).__name__} {state} {self.stats()!r}>"
