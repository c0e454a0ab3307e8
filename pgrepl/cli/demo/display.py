"""The demo on a terminal: numbers above, and below them the latest changes as they come in.

Law: nothing here is read as markup. What the lines contain comes from a server; they are printable
already, and are shown as they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.filesize import decimal
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ...lsn import Lsn
from .tally import Tally
from .transcript import Entry
from .workload import KINDS, TABLES

__all__ = ["Screen", "show_summary"]

_STYLES: Final = {
    "begin": "dim",
    "commit": "dim",
    "omission": "dim italic",
    "insert": "green",
    "update": "yellow",
    "delete": "red",
    "truncate": "magenta",
    "message": "cyan",
}
_BARS: Final = "▁▂▃▄▅▆▇█"
_REMEMBERED: Final = 200
_COUNTS_WIDTH: Final = 46
"""Columns that the table of counts needs; the rest of an 80-column terminal is enough beside it."""
_LABEL_WIDTH: Final = 13
_FRAME: Final = 4
"""Columns of a panel that its border takes."""
_LONGEST_LINE: Final = 24


class Screen:
    """The whole terminal, for as long as it is entered. Drawn when asked to, by `draw`."""

    def __init__(self, title: str, seconds: float) -> None:
        self._title = title
        self._seconds = seconds
        self._latest: deque[Entry] = deque(maxlen=_REMEMBERED)
        self._console = Console()
        self._live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def add(self, entry: Entry) -> None:
        """Put a line below the others; it shows with the next `draw`."""
        self._latest.append(entry)

    def draw(self, tally: Tally, elapsed: float, acknowledged: Lsn, lag_bytes: int) -> None:
        """Show how things stand; `elapsed` in seconds."""
        layout = Layout()
        layout.split_column(
            Layout(self._head(elapsed), size=4),
            Layout(name="numbers", size=len(TABLES) + 5),
            Layout(_panel("latest changes", _Tail(self._latest))),
        )
        layout["numbers"].split_row(
            Layout(_panel("changes", _counts(tally)), size=_COUNTS_WIDTH),
            Layout(_panel("stream", _measures(tally, acknowledged, lag_bytes, self._room))),
        )
        self._live.update(layout, refresh=True)

    @property
    def _room(self) -> int:
        """Columns that there are for a measure, behind its label."""
        return self._console.width - _COUNTS_WIDTH - _FRAME - _LABEL_WIDTH

    def _head(self, elapsed: float) -> Panel:
        done = min(elapsed, self._seconds)
        line = Table.grid(expand=True, padding=(0, 1))
        line.add_column(ratio=1)
        line.add_column(justify="right")
        bar = ProgressBar(total=self._seconds, completed=done)
        line.add_row(bar, f"{done:.1f} of {self._seconds:g} s")
        return Panel(Group(Text(self._title, no_wrap=True, overflow="ellipsis"), line))


class _Tail:
    """As many of the last lines as there is room for."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.height or console.height
        for kind, line in list(self._entries)[-room:]:
            indent = "" if kind in ("begin", "commit") else "  "
            yield Text(
                indent + line, style=_STYLES.get(kind, ""), no_wrap=True, overflow="ellipsis"
            )


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(content, title=title, title_align="left")


def _counts(tally: Tally) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("")
    for kind in KINDS:
        table.add_column(kind, justify="right", header_style=_STYLES[kind], min_width=7)
    for name in TABLES:
        table.add_row(name, *(f"{tally.changes[name, kind]:,}" for kind in KINDS))
    return table


def _measures(tally: Tally, acknowledged: Lsn, lag_bytes: int, room: int) -> Table:
    table = Table.grid()
    # Never narrower, whatever the others would like to have.
    table.add_column(style="bold", no_wrap=True, width=_LABEL_WIDTH)
    table.add_column(no_wrap=True)
    rate = f"{tally.rates[-1] if tally.rates else 0.0:,.0f}/s "
    line = _sparkline(tally.rates, min(max(room - len(rate), 0), _LONGEST_LINE))
    table.add_row("rate", rate + line)
    table.add_row("lag", f"{tally.lags[-1] / 1000:.1f} ms" if tally.lags else "-")
    table.add_row("behind", decimal(lag_bytes) if tally.lags else "-")
    table.add_row("transactions", f"{tally.transactions:,}")
    table.add_row("largest", f"{tally.largest:,} changes")
    table.add_row("acknowledged", str(acknowledged))
    return table


def _sparkline(values: Sequence[float], width: int) -> str:
    latest = list(values)[-width:] if width else []
    highest = max(latest, default=0.0) or 1.0
    return "".join(_BARS[int(value / highest * (len(_BARS) - 1))] for value in latest)


def show_summary(lines: Sequence[str], success: bool) -> None:
    """Print the summary in a frame whose colour tells how it went."""
    body = Text("\n".join(lines))
    Console().print(
        Panel(body, title="pgrepl demo", border_style="green" if success else "red", expand=False)
    )
