"""Which attempts are made to connect, in which order, and what is said where none succeeds.

Theory of operation: the search for a server is a generator, as conversations are. It asks its
driver to look up a name or to make one attempt, gets the answer or the error, and decides what
comes next; so both flavours search in the same way, and tests drive it without a socket or a clock.

    not reached, or no answer in time    -> the host's next address
    57P03, or not the session wanted     -> the next host
    no TLS, its handshake failed, or     -> the same address once more, without TLS or with it
        28000, and sslmode allows
        another way
    everything else                      -> the end: the same would come of any other host, or
        it must not be passed over

Law: nothing of one attempt is known to the next. Whatever it learned, and its whole state, goes
with it.

Source: PostgreSQL documentation, "Connection Strings: Specifying Multiple Hosts" and "SSL Support".
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from ..conninfo import ConnectionParameters, Host
from ..conninfo.parameters import TargetSessionAttrs
from ..errors import (
    AuthenticationError,
    AuthenticationRejected,
    ConnectionFailed,
    Error,
    ServerError,
    TLSError,
    UsageError,
)
from ..protocol.authentication import Credentials
from ..protocol.backend import ServerState
from ..protocol.conversation import Conversation, StartTLS
from ..protocol.session_attrs import why_not
from ..protocol.startup import request_tls, start_up
from .clock import Deadline
from .sockets import Address, is_loopback, unix_address

__all__ = [
    "SEARCH_ERRORS",
    "STARTUP_LIMIT",
    "Attempt",
    "LookUp",
    "Opened",
    "Search",
    "TLSUse",
    "search",
]

_Transport = TypeVar("_Transport")

_log = logging.getLogger("pgrepl.tls")

STARTUP_LIMIT: Final = 65536
"""Bytes of a message before the session begins. Nobody has proved anything yet, and no honest
message is longer."""

SEARCH_ERRORS: Final = (
    *(AuthenticationError, ConnectionFailed, ServerError, TLSError),
    UsageError,  # a file that the conninfo names, and that is of no use
)
"""What is raised where no server will do: its message tells all, and where it is from nothing."""

TLSUse: TypeAlias = Literal["no", "offered", "required", "direct"]
"""What an attempt does about TLS: nothing; ask, and take no for an answer; ask, and insist; begin
without asking."""

_CANNOT_CONNECT_NOW: Final = "57P03"
_INVALID_AUTHORIZATION: Final = "28000"

_MOST_FAILURES: Final = 10
_LONGEST_FAILURE: Final = 300


@dataclass(frozen=True, slots=True)
class LookUp:
    """Look up the addresses of a host; the answer is a list of `Address`. Raise `not_found`, or
    `not_in_time`, where there are none. With `is_numeric` the name is an address itself, and
    nothing is looked up."""

    name: str
    port: int
    is_numeric: bool
    deadline: Deadline

    def not_found(self, error: Exception | str) -> ConnectionFailed:
        """The error for a name that is not known."""
        return ConnectionFailed(f"could not find the address of host {self.name!r}: {error}")

    def not_in_time(self) -> ConnectionFailed:
        """The error for a time limit that ran out."""
        return self.not_found(f"no answer within connect_timeout, {self.deadline.timeout} s")


@dataclass(frozen=True, slots=True)
class Attempt:
    """Connect to one address and begin a session there; the answer is what was `Opened`.

    `parameters` have this one host alone.
    """

    parameters: ConnectionParameters
    family: int
    address: Any
    tls: TLSUse
    target: TargetSessionAttrs
    deadline: Deadline

    @property
    def host(self) -> Host:
        """The host that the address is one of."""
        return self.parameters.hosts[0]

    @property
    def where(self) -> str:
        """The address as people write it."""
        host = self.host
        if host.is_unix_socket or host.hostaddr or self.address[0] == host.host:
            return host.where
        return f"{host.where} ({self.address[0]})"

    def encryption(self) -> Conversation[bool]:
        """Begin TLS as the attempt wants it; whether it has begun."""
        if self.tls == "no":
            return False
        if self.tls == "direct":
            yield StartTLS()
            return True
        return (yield from request_tls(required=self.tls == "required"))

    def session(
        self, state: ServerState, *, is_encrypted: bool, is_local: bool
    ) -> Conversation[None]:
        """Start up, authenticate, and see whether it is a session that is wanted.

        `state` must be a new one. Raises what `start_up` raises, or `ConnectionFailed`.
        """
        parameters, host = self.parameters, self.host
        yield from start_up(
            state,
            parameters.startup_parameters(),
            Credentials(
                parameters.user,
                host.password,
                settings=parameters.authentication,
                host=host.host,
                is_encrypted=is_encrypted,
                is_local=is_local,
            ),
            parameters.session_settings(),
            client_encoding=parameters.client_encoding,
            min_protocol_version=parameters.min_protocol_version,
            max_protocol_version=parameters.max_protocol_version,
        )
        reason = yield from why_not(
            state, self.target, is_physical=parameters.replication == "physical"
        )
        if reason is not None:
            raise _WrongSession(
                f"{self.where} is not what target_session_attrs={self.target} asks for: {reason}"
            )

    def not_connected(self, error: Exception | str) -> ConnectionFailed:
        """The error for an address that cannot be reached."""
        return ConnectionFailed(
            f"could not connect to {self.where}: {error}; is the server running there and "
            "listening?"
        )

    def not_in_time(self) -> ConnectionFailed:
        """The error for a time limit that ran out."""
        return ConnectionFailed(
            f"no connection to {self.where} within connect_timeout, {self.deadline.timeout} s"
        )

    def made_with(self, *, tls: bool) -> Attempt:
        """The same, as it turned out: TLS there is again, or none."""
        if not tls:
            return replace(self, tls="no")
        return replace(self, tls="direct" if self.tls == "direct" else "required")


@dataclass(frozen=True, slots=True)
class Opened(Generic[_Transport]):
    """A connection that was made: its driver, what the server told, and by which way."""

    transport: _Transport
    state: ServerState
    way: Attempt


Search: TypeAlias = Generator[LookUp | Attempt, Any, Opened[Any]]


class _WrongSession(ConnectionFailed):
    """A session could be had, and is not what target_session_attrs asks for."""


def search(
    parameters: ConnectionParameters,
    *,
    shuffle: Callable[[list[Any]], None] = random.shuffle,
    time_limit: Callable[[float | None], Deadline] = Deadline.after,
) -> Search:
    """Find a server to connect to, and return what was opened there.

    `shuffle` puts a list into another order, `time_limit` begins one. Raises the error of the
    attempt that ends the search, or that of the only one; `ConnectionFailed`, which lists all of
    them, where there were several.
    """
    under_way = _SearchUnderWay(parameters, shuffle, time_limit)
    try:
        opened = yield from under_way.run()
    except Error as error:
        under_way.failures.explain(error)
        raise
    _warn_of_no_tls(opened.way)
    return opened


def _warn_of_no_tls(way: Attempt) -> None:
    """Say once that a connection to another machine is not encrypted, though it could be."""
    if (
        way.tls == "no"
        and way.parameters.tls.sslmode == "prefer"
        and not way.host.is_unix_socket
        and not is_loopback(way.address[0])
    ):
        _log.warning(
            "the connection to %s is not encrypted: the server has no TLS, or it failed, and "
            "sslmode=prefer goes on without; sslmode=require or stricter does not",
            way.where,
        )


class _Failures:
    """What was tried in vain, each once."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}
        self._first: Error | None = None

    def add(self, where: str, error: Error) -> None:
        """Take note of an attempt that has failed."""
        reason = " ".join(str(error).split())
        line = reason if where in reason else f"{where}: {reason}"
        if len(line) > _LONGEST_FAILURE:
            line = line[:_LONGEST_FAILURE] + "..."
        self._first = self._first or error
        self._lines.setdefault(line)

    def error(self) -> Error:
        """The error for the whole search."""
        if self._first is not None and len(self._lines) == 1:
            if isinstance(self._first, _WrongSession):
                return ConnectionFailed(str(self._first))
            return self._first
        return ConnectionFailed(f"could not connect to any server; tried were\n{self._listed()}")

    def explain(self, error: Error) -> None:
        """Have an error tell what had failed before it."""
        if self._lines and error is not self._first and type(error) is not ConnectionFailed:
            error.add_note(f"Before that failed:\n{self._listed()}")

    def _listed(self) -> str:
        lines = [f"- {line}" for line in list(self._lines)[:_MOST_FAILURES]]
        if len(self._lines) > len(lines):
            lines.append(f"- and {len(self._lines) - len(lines)} more")
        return "\n".join(lines)


class _SearchUnderWay:
    """A search under way."""

    def __init__(
        self,
        parameters: ConnectionParameters,
        shuffle: Callable[[list[Any]], None],
        time_limit: Callable[[float | None], Deadline],
    ) -> None:
        self.failures = _Failures()
        self._parameters = parameters
        self._shuffle = shuffle if parameters.load_balance_hosts else lambda _: None
        self._time_limit = time_limit
        self._turned_down: list[Host] = []

    def run(self) -> Search:
        """See `search`."""
        hosts = list(self._parameters.hosts)
        self._shuffle(hosts)
        target = self._parameters.target_session_attrs
        opened = yield from self._search_hosts(
            hosts, "standby" if target == "prefer-standby" else target
        )
        if opened is None and target == "prefer-standby":
            # libpq asks all of them once more; those that could not be reached a moment ago would
            # only cost their time limits again.
            opened = yield from self._search_hosts(list(self._turned_down), "any")
        if opened is None:
            raise self.failures.error()
        return opened

    def _search_hosts(
        self, hosts: Iterable[Host], target: TargetSessionAttrs
    ) -> Generator[LookUp | Attempt, Any, Opened[Any] | None]:
        for host in hosts:
            opened = yield from self._search_host(host, target)
            if opened is not None:
                return opened
        return None

    def _search_host(
        self, host: Host, target: TargetSessionAttrs
    ) -> Generator[LookUp | Attempt, Any, Opened[Any] | None]:
        """Return what was opened at a host; None: nothing, and another host may do better."""
        try:
            addresses = yield from self._addresses(host)
        except ConnectionFailed as error:
            self.failures.add(host.where, error)
            return None
        for family, address in addresses:
            attempt = Attempt(
                parameters=replace(self._parameters, hosts=(host,)),
                family=family,
                address=address,
                tls="no",
                target=target,
                deadline=self._time_limit(self._parameters.connect_timeout),
            )
            try:
                return (yield from self._attempt_either_way(attempt))
            except _WrongSession as error:
                self.failures.add(attempt.where, error)
                self._turned_down.append(host)
                return None
            except ConnectionFailed as error:
                self.failures.add(attempt.where, error)
            except ServerError as error:
                if error.sqlstate != _CANNOT_CONNECT_NOW:
                    raise
                self.failures.add(attempt.where, error)
                return None
        return None

    def _addresses(self, host: Host) -> Generator[LookUp, list[Address], list[Address]]:
        if host.is_unix_socket:
            return [unix_address(host.socket_path)]
        addresses = yield LookUp(
            host.hostaddr or host.host,
            host.port,
            is_numeric=host.hostaddr is not None,
            deadline=self._time_limit(self._parameters.connect_timeout),
        )
        addresses = list(addresses)
        self._shuffle(addresses)
        return addresses

    def _attempt_either_way(self, attempt: Attempt) -> Generator[Attempt, Any, Opened[Any]]:
        """Make an attempt; with sslmode=allow or prefer in the other way, too, if it may help."""
        first, second = _ways(attempt.parameters)
        refused: TLSError | AuthenticationRejected | None = None
        try:
            opened: Opened[Any] = yield replace(attempt, tls=first)
            return opened
        except (TLSError, AuthenticationRejected) as error:
            if second is None or _is_final(error):
                raise
            refused = error
        try:
            opened = yield replace(attempt, tls=second)
            return opened
        except TLSError as error:
            if isinstance(refused, AuthenticationRejected):
                # It is said better by the server, which has turned us away, than by the attempt to
                # get around that.
                refused.add_note(f"With TLS: {error}")
                raise refused from None
            raise
        except Error:
            self.failures.add(attempt.where, refused)
            raise


def _is_final(error: TLSError | AuthenticationRejected) -> bool:
    """Whether an attempt has ended in a way that the other way is no answer to."""
    if isinstance(error, TLSError):
        # A client certificate that was turned down, where TLS itself worked.
        return error.after_handshake
    # Any other code, 28P01 above all, comes after a password was asked for, and comes again.
    return error.sqlstate != _INVALID_AUTHORIZATION


def _ways(parameters: ConnectionParameters) -> tuple[TLSUse, TLSUse | None]:
    """Return what to do about TLS at first, and then, None: nothing else."""
    sslmode = parameters.tls.sslmode
    if parameters.hosts[0].is_unix_socket or sslmode == "disable":
        return "no", None
    if sslmode == "allow":
        return "no", "required"
    if sslmode == "prefer":
        return "offered", "no"
    return ("direct" if parameters.tls.sslnegotiation == "direct" else "required"), None
