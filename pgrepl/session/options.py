"""What a stream asks pgoutput for, held against the server's version before anything is sent.

A server that is too old answers an option with a syntax error, or with one that names no version.

Source: PostgreSQL documentation, "Logical Streaming Replication Parameters".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ..errors import UsageError
from ..protocol.quoting import publication_list

__all__ = ["Origin", "StreamOptions", "Streaming"]

Streaming: TypeAlias = Literal["off", "on", "parallel"]
Origin: TypeAlias = Literal["any", "none"]

# The first major version of the server that speaks each version of the protocol.
_SERVER_OF: Final = {1: 10, 2: 14, 3: 15, 4: 16}
_STREAMING_NEEDS: Final = {"off": 1, "on": 2, "parallel": 4}
_TWO_PHASE_NEEDS: Final = 3
_SWITCHES: Final = ("two_phase", "binary", "messages")


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The options of a stream, by the names that pgoutput has for them.

    `proto_version` None: the lowest version that the other options need.
    """

    publications: tuple[str, ...]
    proto_version: int | None = None
    streaming: Streaming = "off"
    two_phase: bool = False
    binary: bool = False
    messages: bool = False
    origin: Origin = "any"

    @classmethod
    def of(cls, publications: Iterable[str], **options: object) -> StreamOptions:
        """Make options of what a caller gave. Raises `UsageError` for what makes no sense."""
        if isinstance(publications, str):
            raise UsageError(
                f"expected several publication names, got the text {publications!r}; "
                f"use [{publications!r}]"
            )
        made = cls(tuple(publications), **options)  # type: ignore[arg-type]
        made._check()
        return made

    def _check(self) -> None:
        for publication in self.publications:
            if not isinstance(publication, str):
                raise UsageError(
                    f"expected publication names as text, got {type(publication).__name__}"
                )
        publication_list(self.publications)
        self._check_values()
        for wanted, needed in self._needs():
            if self.version < needed:
                raise UsageError(
                    f"{wanted} needs proto_version {needed} or later, got {self.proto_version}; "
                    "leave proto_version out to have the version chosen"
                )

    def _check_values(self) -> None:
        if self.streaming not in tuple(_STREAMING_NEEDS):
            raise UsageError(
                f"expected streaming 'off', 'on' or 'parallel', got {self.streaming!r}"
            )
        if self.origin not in ("any", "none"):
            raise UsageError(f"expected origin 'any' or 'none', got {self.origin!r}")
        version = self.proto_version
        # True and 2.0 equal versions, and are sent as no server reads them.
        if version is not None and (type(version) is not int or version not in _SERVER_OF):
            raise UsageError(f"expected a pgoutput protocol version from 1 to 4, got {version!r}")
        for name in _SWITCHES:
            # "off" is true.
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"expected {name} True or False, got {getattr(self, name)!r}")

    def _needs(self) -> list[tuple[str, int]]:
        needs = [(f"streaming={self.streaming!r}", _STREAMING_NEEDS[self.streaming])]
        if self.two_phase:
            needs.append(("two_phase=True", _TWO_PHASE_NEEDS))
        return needs

    @property
    def version(self) -> int:
        """The protocol version to ask for."""
        if self.proto_version is not None:
            return self.proto_version
        return max(needed for _, needed in self._needs())

    def plugin_options(self, server_version: int) -> dict[str, str]:
        """Return pgoutput's options for START_REPLICATION.

        Raises `UsageError` where the server is too old for one of them, with the version that has
        it.
        """
        major = server_version // 10000
        # What was asked for comes before what follows from it: the message names the former.
        wanted = [(name, _SERVER_OF[needed]) for name, needed in self._needs()]
        wanted += [(f"proto_version={self.version}", _SERVER_OF[self.version])]
        wanted += [("binary=True", 14)] if self.binary else []
        wanted += [("messages=True", 14)] if self.messages else []
        wanted += [(f"origin={self.origin!r}", 16)] if self.origin != "any" else []
        for name, since in wanted:
            if major < since:
                raise UsageError(
                    f"{name} needs PostgreSQL {since} or later, the server is PostgreSQL {major}"
                )
        options = {
            "proto_version": str(self.version),
            "publication_names": publication_list(self.publications),
        }
        if self.streaming != "off":
            options["streaming"] = self.streaming
        for name in _SWITCHES:
            if getattr(self, name):
                options[name] = "on"
        if self.origin != "any":
            options["origin"] = self.origin
        return options
