"""What the server's settings say about WAL, as SHOW gives it: text with a unit.

Source: PostgreSQL documentation, "Setting Parameters", "Preset Options".
"""

from __future__ import annotations

import re
from typing import Final

from ..errors import ProtocolError

__all__ = ["file_mode", "seconds"]

_DURATION: Final = re.compile(r"(-?[0-9]{1,10})(us|ms|s|min|h|d)?", re.ASCII)
_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_MODE: Final = re.compile(r"0?[0-7]{3}", re.ASCII)
_GROUP_READS: Final = 0o040


def seconds(name: str, text: str) -> float:
    """Read a duration; a bare number, which is 0 or less, means none. Raises `ProtocolError`."""
    match = _DURATION.fullmatch(text)
    if match is None or (match[2] is None and int(match[1]) > 0):
        raise ProtocolError(f"expected {name} to be a number and a unit of time, got {text[:40]!r}")
    return max(int(match[1]), 0) * _UNITS[match[2] or "s"]


def file_mode(data_directory_mode: str) -> int:
    """Return who may read files of WAL: the group as well, if it may read the server's."""
    if _MODE.fullmatch(data_directory_mode) is None:
        raise ProtocolError(
            f"expected data_directory_mode to be an octal number, got {data_directory_mode[:40]!r}"
        )
    return 0o640 if int(data_directory_mode, 8) & _GROUP_READS else 0o600
