"""Kerberos, by GSSAPI: a ticket in place of a password.

The package `gssapi`, and the system's Kerberos library under it, do the work; they are looked for
when a server asks, and not before. Every step may wait for a ticket from the KDC.

Sources: RFC 2743, RFC 4121; PostgreSQL documentation, "GSSAPI Authentication".
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import AuthenticationError

__all__ = ["KerberosContext"]

_Result = TypeVar("_Result")


class KerberosContext:
    """The client's side of one GSSAPI security context, with mutual authentication.

    `service` and `host` name the server's principal; `delegates`: whether the server gets this
    side's ticket to act with. Every method raises `AuthenticationError`.
    """

    def __init__(self, service: str, host: str, *, delegates: bool) -> None:
        self._target = f"{service}@{host}"
        self._delegates = delegates
        self._gssapi: Any = None
        self._context: Any = None

    def step(self, token: bytes | None) -> bytes | None:
        """Take what the server said, None at first, and return what to say, if anything.

        This may take long; see `conversation.Compute`.
        """
        return self._try(lambda: self._step(token))

    def has_ended(self) -> bool:
        """Whether both sides know each other now."""
        if self._context is None or not self._context.complete:
            return False
        if not self._try(self._is_mutual):
            raise AuthenticationError(
                f"expected the server to prove that it is {self._target}, and Kerberos ended "
                "without that"
            )
        return True

    def _step(self, token: bytes | None) -> bytes | None:
        if self._context is None:
            self._begin()
        answer = self._context.step(token)
        return bytes(answer) if answer else None

    def _begin(self) -> None:
        self._gssapi = gssapi = importlib.import_module("gssapi")
        flags = [gssapi.RequirementFlag.mutual_authentication]
        if self._delegates:
            flags.append(gssapi.RequirementFlag.delegate_to_peer)
        name = gssapi.Name(self._target, gssapi.NameType.hostbased_service)
        self._context = gssapi.SecurityContext(name=name, flags=flags, usage="initiate")

    def _is_mutual(self) -> bool:
        return self._gssapi.RequirementFlag.mutual_authentication in self._context.actual_flags

    def _try(self, call: Callable[[], _Result]) -> _Result:
        try:
            return call()
        except ImportError as error:
            reason = (
                "the server asks for Kerberos (GSSAPI), which needs the package gssapi and the "
                "system's Kerberos library; install pgrepl with its extra [kerberos] "
                f"({_printable(str(error))})"
            )
        except Exception as error:
            # The library's own, and whatever its version makes of a token that it cannot read.
            reason = (
                f"Kerberos authentication with {self._target} failed: {_printable(str(error))}; "
                "klist shows which tickets there are, kinit gets one"
            )
        raise AuthenticationError(reason)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:500]
