"""A search for a server by a driver that follows a script: names and outcomes are made up, and no
socket is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgrepl.conninfo import ConnectionParameters, Host
from pgrepl.conninfo.parameters import TLSSettings
from pgrepl.errors import (
    AuthenticationError,
    ConnectionFailed,
    Error,
    ProtocolError,
    ServerError,
    TLSError,
    server_error,
)
from pgrepl.protocol.backend import ServerState
from pgrepl.protocol.conversation import Steps
from pgrepl.transport.attempts import Attempt, LookUp, Opened, search
from tests.support import builders
from tests.support.dialogue import Dialogue

NAMES = {"a": ["10.0.0.1", "10.0.0.2"], "b": ["10.0.0.3"], "c": ["10.0.0.4"], "six": ["::1"]}

REFUSED = ConnectionFailed("refused")
NO_TLS = TLSError("no TLS")
BROKEN = ProtocolError("nonsense")
NO_PASSWORD = AuthenticationError("none was given")


def says(sqlstate: str, text: str = "said the server") -> ServerError:
    return server_error({"severity": "FATAL", "sqlstate": sqlstate, "message": text})


def parameters(hosts: str = "a", **more: Any) -> ConnectionParameters:
    """Those of a comma-separated list of hosts; without TLS if nothing else is said."""
    more = {"tls": TLSSettings(sslmode="disable"), **more}
    return ConnectionParameters(
        hosts=tuple(Host(name) for name in hosts.split(",")), user="ann", dbname="shop", **more
    )


def with_tls(hosts: str, sslmode: Any, **more: Any) -> ConnectionParameters:
    return parameters(hosts, tls=TLSSettings(sslmode=sslmode, **more))


SESSIONS = {
    "primary": {"in_hot_standby": "off", "default_transaction_read_only": "off"},
    "standby": {"in_hot_standby": "on", "default_transaction_read_only": "off"},
    "frozen": {"in_hot_standby": "off", "default_transaction_read_only": "on"},
}


def begin_session(attempt: Attempt, settings: Mapping[str, str]) -> Opened[Any]:
    """Let the attempt in without a password, on a server with these settings."""
    state = ServerState()
    session = attempt.session(state, is_encrypted=False, is_local=True)
    Dialogue(session).receive(
        builders.authentication(0),
        *(builders.parameter_status(name, value) for name, value in settings.items()),
        builders.ready_for_query(),
    )
    return Opened("transport", state, attempt)


class Driver:
    """Carries out a search: each attempt in turn comes to the next outcome of the script."""

    def __init__(self, wanted: ConnectionParameters, *outcomes: object, **injected: Any) -> None:
        self.attempts: list[Attempt] = []
        self.looked_up: list[LookUp] = []
        self._outcomes = iter(outcomes)
        self._steps: Steps[LookUp | Attempt, Opened[Any]] = Steps(search(wanted, **injected))

    def run(self) -> Opened[Any]:
        while (request := self._steps.request) is not None:
            self._steps.answer_by(lambda asked=request: self._carry_out(asked))  # type: ignore[misc]
        assert next(self._outcomes, None) is None, "attempts that were not made"
        return self._steps.result

    def _carry_out(self, request: LookUp | Attempt) -> object:
        if isinstance(request, LookUp):
            self.looked_up.append(request)
            if request.is_numeric:
                return [(2, (request.name, request.port))]
            if request.name not in NAMES:
                raise request.not_found("unknown")
            return [(2, (address, request.port)) for address in NAMES[request.name]]
        self.attempts.append(request)
        outcome = next(self._outcomes)
        if isinstance(outcome, Error):
            raise outcome
        return begin_session(request, SESSIONS[str(outcome)])

    @property
    def made(self) -> list[str]:
        """The attempts, each as its address, or socket, and what it did about TLS."""
        return [
            f"{a.address[0] if isinstance(a.address, tuple) else a.address} {a.tls}"
            for a in self.attempts
        ]


def reached(driver: Driver) -> str:
    """Where the search ended."""
    opened = driver.run()
    assert opened.way is driver.attempts[-1]
    return driver.made[-1]
