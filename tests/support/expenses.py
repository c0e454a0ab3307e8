"""What connecting to a server costs a process: run as a program, by tests of hostile servers.

    python -m tests.support.expenses FLAVOUR TWIN    < cases    > costs

Cases are JSON, one a line: keywords for `connect`, ``{"stream": seconds}`` beside them to go on to
a stream and receive for so long. For each a line of JSON comes back: the error's class and text,
the CPU time that it took, by how much memory grew at its peak, the threads and descriptors that
are left. The first case is made twice, and told once: what is loaded and made only once is none of
a server's doing.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pgrepl
import pgrepl.aio
from pgrepl.codec.abc import Codec

__all__ = ["cpu_seconds", "peak_bytes"]

_TWINS: Final = {"c": "pgrepl.codec._native", "python": "pgrepl.codec._pure"}
_START: Final = "START_REPLICATION SLOT s LOGICAL 0/0"
_STATUS: Final = Path("/proc/self/status")
_REFERENCES: Final = Path("/proc/self/clear_refs")
_DESCRIPTORS: Final = Path("/dev/fd")
# See proc(5): the peak is what is used now, again.
_FORGET_PEAK: Final = "5"


def cpu_seconds() -> float:
    """The CPU time of this process, that of all its threads and of the system for it included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_bytes() -> int:
    """The most memory that this process has had, since the peak was forgotten where it can be."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _forget_peak() -> None:
    if _REFERENCES.exists():
        _REFERENCES.write_text(_FORGET_PEAK)


def _blocking(codec: Codec, keywords: dict[str, Any], seconds: float | None) -> None:
    with pgrepl.connect(_codec=codec, **keywords) as connection:
        if seconds is not None:
            connection.start_streaming(_START, timeout=seconds)
            while connection.receive_wal_message(timeout=seconds):
                pass


def _asyncio(codec: Codec, keywords: dict[str, Any], seconds: float | None) -> None:
    async def main() -> None:
        async with pgrepl.aio.connect(_codec=codec, **keywords) as connection:
            if seconds is not None:
                await connection.start_streaming(_START, timeout=seconds)
                while await connection.receive_wal_message(timeout=seconds):
                    pass

    # Not in debug mode, which tells of everything that takes its time.
    asyncio.run(main(), debug=False)


def _what_comes_of(call: Callable[[], None]) -> tuple[str, str]:
    try:
        call()
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


def _cost(call: Callable[[], None]) -> dict[str, Any]:
    gc.collect()
    _forget_peak()
    seconds, peak = cpu_seconds(), peak_bytes()
    kind, text = _what_comes_of(call)
    seconds, peak = cpu_seconds() - seconds, peak_bytes() - peak
    gc.collect()
    return {
        "error": kind,
        "text": text,
        "cpu": seconds,
        "memory": peak,
        "threads": threading.active_count(),
        "descriptors": len(list(_DESCRIPTORS.iterdir())),
    }


def main(flavour: str, twin: str) -> None:
    """Read cases, try them, and tell what they cost."""
    run = {"blocking": _blocking, "asyncio": _asyncio}[flavour]
    codec: Any = importlib.import_module(_TWINS[twin])
    is_warm = False
    for line in sys.stdin:
        keywords = json.loads(line)
        seconds = keywords.pop("stream", None)

        def call(keywords: Any = keywords, seconds: float | None = seconds) -> None:
            run(codec, keywords, seconds)

        if not is_warm:
            _what_comes_of(call)
            is_warm = True
        print(json.dumps(_cost(call)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
