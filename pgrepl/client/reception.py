"""What every kind of stream has in common, in both flavours: a session, its feedback, and an end.

Law: after an error nothing more is sent. What is wrong with a stream stays wrong, and a status that
went out behind an error could acknowledge what nobody has.
"""

from __future__ import annotations

import logging
import signal
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Protocol

from ..errors import Error, ServerError, UsageError
from ..lsn import Lsn
from ..messages import to_datetime
from ..ownership import Owner, Uncopied
from ..protocol.preflight import Preflight
from ..session.limit import Limit
from ..session.session import Session
from ..stats import Stats
from .wire import BaseStreamWire

__all__ = ["BaseReception"]

_log: Final = logging.getLogger("pgrepl.stream")


class Feedback(Protocol):
    """What a stream knows of its feedback here."""

    @property
    def owner(self) -> Owner:
        """The process that made the stream."""

    def clock(self) -> tuple[float, int]:
        """Return the time by the session's clock, and the wall's: microseconds since 2000."""

    def acknowledge(
        self, delivered: int, position: int, written: bool, flushed: bool, applied: bool
    ) -> None:
        """Take an acknowledgement. Waits for nobody."""

    def wait_begins(self, delivered: int, idle: bool) -> float | None:
        """Send what is due before the application waits; return for how long at most it should."""

    def received(self, batch: Any) -> None:
        """Take note of what has come."""

    def wait_ends(self) -> None:
        """Take note that the application waits no more, though nothing came."""

    def ask(self) -> float:
        """Ask the server how far it has come; return the seconds after which to do so again."""

    def stop(self) -> None:
        """Send nothing more."""


class Signals(Protocol):
    """What a stream knows of the signals that end it."""

    def close(self) -> None:
        """Put back the handlers that were there before."""


class _CallOnException:
    """Calls a function where a `with` block is left by an exception of a class; made once for all
    blocks.

    They are entered for every few rows, and a generator for each would cost more than a row.
    """

    __slots__ = ("_function", "_kind")

    def __init__(
        self, kind: type[BaseException], function: Callable[[BaseException | None], None]
    ) -> None:
        self._kind = kind
        self._function = function

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A generator that is closed has lost nothing.
        if kind is not None and issubclass(kind, self._kind) and kind is not GeneratorExit:
            self._function(error)


class BaseReception(Uncopied, ABC):
    """A stream that is being received, and what is reported of it."""

    _wire: BaseStreamWire
    _feedback: Feedback

    def __init__(self, session: Session, checked: Preflight) -> None:
        self._session = session
        self._slot = checked.slot.name
        self._start = checked.start
        self._system = checked.system
        self._ended = False
        self._limit: Limit | None = None  # where the iteration ends by itself
        self._signals: Signals | None = None
        self._stopped_by: signal.Signals | None = None
        self._has_logged_end = False
        self._fail_on_error = _CallOnException(Error, self._fail)
        self._fail_on_exception = _CallOnException(BaseException, self._fail)

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

    @property
    @abstractmethod
    def _totals(self) -> tuple[int | None, int | None, int | None]:
        """Changes and transactions so far, and the time of the last commit, see `Decoder.totals`;
        None where nothing is known of them."""

    @abstractmethod
    def _release_storage(self) -> None:
        """Give back what the stream has taken."""

    # What they share

    @property
    def start(self) -> Lsn:
        """Where the stream began: the position asked for, or the one that the slot confirmed."""
        return self._start

    @property
    def _is_over(self) -> bool:
        return self._ended or self._wire.closed

    def _require_on(self) -> None:
        if self._is_over:
            raise UsageError(
                "expected a stream that is on, this one has ended: the server cannot be told, and "
                "sends what was not acknowledged in time once more"
            )

    # The end of the iteration

    @property
    def stopped_by(self) -> signal.Signals | None:
        """The signal that asked the iteration to end, see `stop_on`; None: none has."""
        return self._stopped_by

    @property
    def _is_at_limit(self) -> bool:
        """Whether what was received goes up to the limit; asked when all of it was given."""
        limit = self._limit
        if limit is None:
            return False
        received = max(self._session.positions.received, self._start)
        return limit.is_reached(received, self._is_between)

    @property
    def _has_given_all(self) -> bool:
        """Whether the application has been given all that was received."""
        return True

    def _ends_at_limit(self) -> bool:
        """Say whether nothing more is to be given; then a slot in which there was nothing goes on,
        as it does when the application waits."""
        if not self._is_at_limit:
            return False
        if self._is_between and self._has_given_all:
            self._feedback.wait_begins(self._delivered, True)
            self._feedback.wait_ends()
        return True

    def _expect_no_signals(self) -> None:
        self._require_on()
        if self._signals is not None:
            raise UsageError("expected one call of stop_on() for all signals, got a second one")

    def _end_by_signal(self, number: int) -> bool:
        """Have the iteration end at the next boundary; False: the stream has ended before."""
        if self._is_over:
            return False
        self._limit = self._limit or Limit()
        self._limit.is_wanted = True
        self._stopped_by = signal.Signals(number)
        return True

    def _signal_handler(self) -> Callable[[int], bool]:
        """Return what takes a signal, and says whether there was a stream to take it."""
        reference = weakref.WeakMethod(self._end_by_signal)

        def handle(number: int) -> bool:
            end_by_signal = reference()
            return end_by_signal is not None and end_by_signal(number)

        return handle

    def _release_signals(self) -> None:
        if self._signals is not None:
            self._signals.close()

    @property
    def _reason_for_end(self) -> str:
        if self._stopped_by is not None:
            return f"{self._stopped_by.name} came"
        limit = self._limit
        if limit is not None and limit.until is not None and self._is_at_limit:
            return f"it has come to {Lsn(limit.until)}"
        return "it was stopped"

    # Its own end

    def _fail(self, error: BaseException | None = None) -> None:
        """Close the connection, so that nothing more is sent."""
        self._feedback.stop()
        self._close()
        # Behind all that the feedback's thread has told.
        self._log_end(_described(error))
        self._release_signals()
        self._release_storage()

    def _closing_on_error(self) -> _CallOnException:
        """See to it that nothing more is sent after an error: what is wrong stays so."""
        return self._fail_on_error

    def _closing_on_exception(self) -> _CallOnException:
        """The same where nothing waits, and where Ctrl-C as well may have cost a message."""
        return self._fail_on_exception

    def _wait_begins(self, left: float | None) -> float | None:
        """Tell the server what it should know before a wait that has so many seconds; return for
        how long at most to wait."""
        limit = self._feedback.wait_begins(self._delivered, self._is_between)
        if limit is None or (left is not None and left < limit):
            return left
        return limit

    def stats(self) -> Stats:
        """Return where the stream stands, and what has come since it began. From any thread."""
        # Without the feedback's lock: a signal's handler may ask while its own thread holds it.
        # Each number is an attribute that only grows, or part of a `Report` that is replaced as a
        # whole; what was reported is looked up before what was received, so is never ahead of it.
        return self._stats(*self._feedback.clock())

    def _stats(self, monotonic: float, now: int) -> Stats:
        """Return the stats at a time, by the session's clock and in microseconds since 2000."""
        session, positions = self._session, self._session.positions
        reported = positions.last
        server_end = max(positions.received, self._system.xlogpos, self._start)
        changes, transactions, committed_at = self._totals
        received_at = session.received_at
        if received_at is not None:
            received_at = now - (monotonic - received_at) * 1_000_000
        lag = None if committed_at is None else max(now - committed_at, 0) / 1_000_000
        return Stats(
            received=Lsn(positions.received),
            delivered=Lsn(self._delivered),
            written=Lsn(reported.written),
            flushed=Lsn(reported.flushed),
            applied=Lsn(reported.applied),
            statuses=session.statuses,
            server_end=Lsn(server_end),
            lag_bytes=server_end - max(reported.flushed, self._start),
            lag_seconds=0.0 if max(positions.safe, self._start) >= server_end else lag,
            transactions=transactions,
            changes=changes,
            nbytes=session.nbytes,
            last_message_at=None if received_at is None else to_datetime(int(received_at)),
        )

    def __repr__(self) -> str:
        state = "ended" if self._is_over else "on"
        last = self._session.positions.last
        name = type(self).__name__
        return f"<pgrepl.{name} {state} slot={self._slot!r} flushed={Lsn(last.flushed)}>"

    # What is logged: no rows, and no words of the server's, which may quote some

    def _log_end(self, why: str) -> None:
        # What a forked child does with it is no end.
        if not (self._has_logged_end or self._feedback.owner.is_parent):
            self._has_logged_end = True
            if _log.isEnabledFor(logging.INFO):
                _log.info("slot %r: the stream ends: %s; %s", self._slot, why, self.stats())

    def _log_health(self, monotonic: float, now: int) -> None:
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("slot %r: %s", self._slot, self._stats(monotonic, now))

    def _health_logger(self) -> Callable[[float, int], None]:
        """Return what logs how the stream is at a time, for as long as there is one."""
        reference = weakref.WeakMethod(self._log_health)

        def log(monotonic: float, now: int) -> None:
            log_health = reference()
            if log_health is not None:
                log_health(monotonic, now)

        return log


def _described(error: BaseException | None) -> str:
    """Return what may be logged of an error."""
    code = f" ({error.sqlstate})" if isinstance(error, ServerError) else ""
    return f"{type(error).__name__}{code}"
