"""BASE_BACKUP with its options, in both grammars, and the manifest that an incremental one needs.

Only what was given is said, so that all else is as the server has it; what a server is too old for
is refused before anything is sent.

Source: PostgreSQL documentation, "Streaming Replication Protocol".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

from ..errors import UsageError
from ..public import imported_from
from . import frontend
from .backend import BodyReader, ServerState, unexpected
from .conversation import Conversation, Frame, Send
from .query import Answer
from .quoting import boolean, has_option_lists, literal, option_list, require
from .session_settings import command

__all__ = ["BackupOptions", "base_backup_command", "upload_manifest", "wants_manifest"]

_UPLOAD: Final = 170000
_RATES: Final = range(32, 1048576 + 1)
# Of a manifest that is uploaded: as much as one read of a server takes.
_PIECE: Final = 65536


@imported_from("pgrepl.basebackup")
class BackupOptions(TypedDict, total=False):
    """The options of a base backup; one that is not given, or None, is as the server has it.

    The number is the PostgreSQL version that brought the option, where it is not in all.
    """

    label: str | None
    """What the backup is called, in backup_label and in the server's view of its progress."""
    progress: bool | None
    """Estimate the sizes of the tablespaces; from 15 on, tell how far the backup has come."""
    checkpoint: Literal["fast", "spread"] | None
    """Whether to hurry the checkpoint with which it begins. The server spreads it."""
    wal: bool | None
    """Put the WAL that the backup needs into it."""
    wait: bool | None
    """Whether to wait until the last WAL is archived. The server does."""
    max_rate: int | None
    """The highest rate, in KiB a second: 32 to 1048576, or 0 for none."""
    tablespace_map: bool | None
    """Describe symbolic links of tablespaces in a file tablespace_map, not in the archive."""
    verify_checksums: bool | None
    """11. Whether to verify the checksums of pages, where they have some. The server does."""
    manifest: Literal["yes", "no", "force-encode"] | None
    """13. Whether to make a manifest; the last one encodes all names in it. The server does not."""
    manifest_checksums: Literal["NONE", "CRC32C", "SHA224", "SHA256", "SHA384", "SHA512"] | None
    """13. The algorithm for the files in the manifest. The server takes CRC32C."""
    compression: Literal["none", "gzip", "lz4", "zstd"] | None
    """15. How the server is to compress the archives."""
    compression_detail: str | None
    """15. A level, ``5``, or more, as ``level=5,workers=2``."""
    target: str | None
    """15. Where the backup goes: ``client``, ``server``, ``blackhole`` or one of an extension."""
    target_detail: str | None
    """15. For the target ``server``, the folder there."""
    incremental: bool | None
    """17. Only what has changed since the backup whose manifest was uploaded before."""


@dataclass(frozen=True, slots=True)
class _Option:
    """How an option is said. `check` gives its value as the grammar has it, and `bare` as words of
    the old grammar; what is given and needs no words there is what an old server does anyway."""

    check: Callable[[str, Any], str]
    bare: Callable[[Any, str], str]
    since: int = 100000
    off: bool = False
    """It is off where it is not said, so that any server can do without it."""


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"expected text for {name}, got {value!r}")
    return literal(value)


def _flag(name: str, value: Any) -> str:
    if not isinstance(value, bool):
        raise UsageError(f"expected True or False for {name}, got {value!r}")
    return boolean(value)


def _one_of(*known: str) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if value not in known:
            raise UsageError(f"expected one of {', '.join(known)} for {name}, got {value!r}")
        return literal(value)

    return check


def _rate(name: str, value: Any) -> str:
    if not isinstance(value, int) or (value != 0 and value not in _RATES):
        raise UsageError(
            f"expected {_RATES[0]} to {_RATES[-1]} KiB a second for {name}, or 0 for no "
            f"limit, got {value!r}"
        )
    return str(int(value))


def _word(word: str) -> Callable[[Any, str], str]:
    return lambda _, said: f"{word} {said}"


def _when(wanted: Any, word: str) -> Callable[[Any, str], str]:
    return lambda value, _: word if value == wanted else ""


def _never(value: Any, said: str) -> str:
    raise AssertionError("an option that no server without option lists has")


_OPTIONS: Final = {
    "label": _Option(_text, _word("LABEL")),
    "progress": _Option(_flag, _when(True, "PROGRESS"), off=True),
    "checkpoint": _Option(_one_of("fast", "spread"), _when("fast", "FAST")),
    "wal": _Option(_flag, _when(True, "WAL"), off=True),
    "wait": _Option(_flag, _when(False, "NOWAIT")),
    # Old servers know no 0 for what they do without it.
    "max_rate": _Option(_rate, lambda value, said: f"MAX_RATE {said}" if value else ""),
    "tablespace_map": _Option(_flag, _when(True, "TABLESPACE_MAP"), off=True),
    "verify_checksums": _Option(_flag, _when(False, "NOVERIFY_CHECKSUMS"), 110000),
    "manifest": _Option(_one_of("yes", "no", "force-encode"), _word("MANIFEST"), 130000),
    "manifest_checksums": _Option(
        _one_of("NONE", "CRC32C", "SHA224", "SHA256", "SHA384", "SHA512"),
        _word("MANIFEST_CHECKSUMS"),
        130000,
    ),
    "compression": _Option(_one_of("none", "gzip", "lz4", "zstd"), _never, 150000),
    "compression_detail": _Option(_text, _never, 150000),
    "target": _Option(_text, _never, 150000),
    "target_detail": _Option(_text, _never, 150000),
    "incremental": _Option(_flag, _never, 170000, off=True),
}


def base_backup_command(state: ServerState, options: BackupOptions) -> str:
    """Return BASE_BACKUP in the grammar of the server's version.

    Raises `UsageError` for an option that makes no sense, or that the server is too old for, and
    `TypeError` for one that there is not.
    """
    unknown = options.keys() - _OPTIONS.keys()
    if unknown:
        raise TypeError(f"base_backup() got unexpected options {', '.join(sorted(unknown))}")
    listed, bare = [], []
    for name, option in _OPTIONS.items():
        value = options.get(name)
        if value is None:
            continue
        said = option.check(name, value)
        if option.off and value is False:
            continue
        require(state, option.since, f"base backups with {name} need")
        if has_option_lists(state):
            listed.append(f"{name.upper()} {said}")
        else:
            bare.append(option.bare(value, said))
    words = ["BASE_BACKUP", *option_list(listed), *filter(None, bare)]
    return " ".join(words)


def wants_manifest(options: BackupOptions) -> bool:
    """Whether a manifest is to come at the end of the archives."""
    return options.get("manifest") in ("yes", "force-encode")


def upload_manifest(
    state: ServerState, data: bytes | bytearray | memoryview | Iterable[bytes]
) -> Conversation[Exception | None]:
    """Run UPLOAD_MANIFEST with a whole manifest, or with its pieces one after the other.

    What taking the pieces raises ends the upload at the server, and is returned: the connection can
    be used on.
    """
    require(state, _UPLOAD, "UPLOAD_MANIFEST needs")
    pieces = _pieces(data)
    yield from command(state, "UPLOAD_MANIFEST")
    answer = Answer(state)
    while True:
        frame: Frame = yield from state.receive()
        if frame[0] == b"G":
            break
        if answer.take(frame):
            if answer.error is None:
                raise unexpected(frame, "CopyInResponse to UPLOAD_MANIFEST")
            raise answer.error
    reader = BodyReader(frame)
    reader.take(1)  # formats, which a manifest does not have
    reader.take(2 * reader.int16())
    reader.finish()
    failure = yield from _send(pieces)
    while not answer.take((yield from state.receive())):
        pass
    if failure is None and answer.error is not None:
        raise answer.error
    return failure


def _pieces(data: bytes | bytearray | memoryview | Iterable[bytes]) -> Iterator[memoryview]:
    """Cut what was given into pieces that can be sent."""
    for part in (data,) if isinstance(data, bytes | bytearray | memoryview) else data:
        view = memoryview(part).cast("B")
        for at in range(0, len(view), _PIECE):
            yield view[at : at + _PIECE]


def _send(pieces: Iterator[memoryview]) -> Conversation[Exception | None]:
    while True:
        try:
            piece = next(pieces, None)
        except Exception as error:
            yield Send(frontend.copy_fail("the client could not read the manifest"))
            return error
        if piece is None:
            yield Send(frontend.COPY_DONE)
            return None
        yield Send(frontend.copy_data(piece))
