"""Physical replication: the server's WAL, received and kept.

Law: only `directory` touches files, and only `receiver` waits. Names, segments, positions and what
may be said of them are decided in between, so that every order of events can be tested.
"""

from ..facade import facade as _facade

TYPE_CHECKING = False  # typing takes long to load
if TYPE_CHECKING:
    from ..protocol.slots import PhysicalSlot
    from ..protocol.timelines import (
        EndOfTimeline,
        TimelineHistory,
        TimelineSwitch,
        parse_timeline_history,
    )
    from .drivers import receive_wal
    from .receiving import ReceivedWal
    from .writer import ReceivedSegment

__all__ = [
    "EndOfTimeline",
    "PhysicalSlot",
    "ReceivedSegment",
    "ReceivedWal",
    "TimelineHistory",
    "TimelineSwitch",
    "parse_timeline_history",
    "receive_wal",
]

_NAMES = {
    "EndOfTimeline": "..protocol.timelines",
    "PhysicalSlot": "..protocol.slots",
    "ReceivedSegment": ".writer",
    "ReceivedWal": ".receiving",
    "TimelineHistory": "..protocol.timelines",
    "TimelineSwitch": "..protocol.timelines",
    "parse_timeline_history": "..protocol.timelines",
    "receive_wal": ".drivers",
}
"""The module that has each name, which is loaded with the first use of it."""

__getattr__, __dir__ = _facade(__name__, _NAMES)
