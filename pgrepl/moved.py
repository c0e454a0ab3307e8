"""Names and modules that were elsewhere: they go on for a version, with a `DeprecationWarning`.

Modules are named in pickles, and were named in `repr` and tracebacks.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing takes long to load
if TYPE_CHECKING:
    from typing import Any

__all__ = ["MODULES", "NAMES", "load"]

_BACKUP = (
    *("ArchiveData", "ArchiveStart", "AsyncBackup", "Backup", "BackupEnd", "BackupEvent"),
    *("BackupOptions", "BackupStart", "ManifestData", "ManifestStart", "Progress", "Tablespace"),
)
_PHYSICAL = (
    *("EndOfTimeline", "PhysicalSlot", "TimelineHistory", "TimelineSwitch"),
    "parse_timeline_history",
)

NAMES = {
    **dict.fromkeys(_BACKUP, "pgrepl.basebackup"),
    **dict.fromkeys(_PHYSICAL, "pgrepl.physical"),
}
"""Names that were in `pgrepl`, and where they are now."""

MODULES = {
    "ack_in_order": ("AckInOrder",),
    "aio_raw_stream": ("AsyncRawStream",),
    "aio_stream": ("AsyncStream", "AsyncTransaction"),
    "backup": ("AsyncBackup", "Backup"),
    "base_reception": ("Stats",),
    "connection": ("Connection", "connect"),
    "delivery": ("Batch", "Change", "Idle", "StreamEvent", "TransactionPart"),
    "raw_stream": ("RawStream",),
    "stream": ("Stream", "Transaction"),
    "token": ("ResumeToken",),
}
"""Modules that were in `pgrepl`, and what users may have from each."""


def load(name: str) -> Any:
    """Return what a name that moved stands for, which warns, or a module that did."""
    if name in MODULES:
        return sys.modules[f"pgrepl.{name}"]
    return _found("pgrepl", name, NAMES[name])


def _found(old: str, name: str, place: str) -> Any:
    from importlib import import_module
    from warnings import warn

    warn(
        f"{old}.{name} is {place}.{name} now, and will not stay in its old place for long",
        DeprecationWarning,
        stacklevel=4 if old == "pgrepl" else 3,
    )
    return getattr(import_module(place), name)


def _stand_in(old: str, names: tuple[str, ...]) -> None:
    """Put a module that is gone where imports look first, empty until it is asked for a name."""
    here = ", ".join(f"`{NAMES.get(name, 'pgrepl')}.{name}`" for name in names)
    module = type(sys)(old, f"Gone: what it had is {here} now. It will not stay for long.")
    # Tools look for one. Nothing can load the module again: there is no file.
    module.__spec__ = type(__spec__)(old, None)

    def load(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {old!r} has no attribute {name!r}", name=name, obj=module)
        return _found(old, name, NAMES.get(name, "pgrepl"))

    module.__getattr__ = load  # type: ignore[method-assign]
    sys.modules[old] = module


for _old, _names in MODULES.items():
    _stand_in(f"pgrepl.{_old}", _names)
