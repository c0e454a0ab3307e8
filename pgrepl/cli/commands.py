"""The commands of the `pgrepl` program, and what becomes of their errors. Needs click."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, cast

import click

from .. import __impl__
from ..errors import Error
from .failure import BROKEN_PIPE, CommandFailed, OutputLost
from .printing import print_notice
from .wording import RecordFormatter, in_programs_words

__all__ = ["run"]

_COMMANDS: Final = {
    "basebackup": ("basebackup.command", "basebackup_command"),
    "demo": ("demo.command", "demo_command"),
    "doctor": ("doctor.command", "doctor_command"),
    "identify": ("identify", "identify_command"),
    "receivewal": ("receivewal", "receivewal_command"),
    "slots": ("slots.command", "slots_commands"),
    "stream": ("stream.command", "stream_command"),
}
"""For each command the module of this package that has it, and its name there."""

_COMMAND: Final = re.compile("[a-z]{1,10}")


def run(arguments: Sequence[str]) -> int:
    """Run the program and return its exit status; see `pgrepl.cli.main` for what it means."""
    # What the server has to say beside the stream: warnings, as of a publication that it misses.
    said = logging.StreamHandler()
    said.setFormatter(RecordFormatter())
    logging.basicConfig(handlers=[said], level=logging.WARNING)
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
    print_notice(in_programs_words(str(error)))


class _Commands(click.Group):
    """Loads a command when it is asked for: the others' modules take longer than many a command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        return cast(click.Command, getattr(import_module(f".{module}", __package__), name))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    package_name="pgrepl", message=f"%(prog)s %(version)s, implementation: {__impl__}"
)
def program() -> None:
    """PostgreSQL's streaming-replication protocol, from the command line."""
