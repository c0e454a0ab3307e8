"""Arguments and options that several commands share. Needs click."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from ..lsn import Lsn
from .connections import Replication
from .failure import CommandFailed

__all__ = [
    "as_json",
    "conninfo_argument",
    "lsn_option",
    "no_loop_option",
    "replication_option",
    "require_confirmation",
    "require_sql",
    "seconds_option",
    "seconds_or_never_option",
    "slot_option",
    "status_interval_option",
    "yes_option",
]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_DAY: Final = 86400


def lsn_option(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Lsn | None:
    """A callback for options whose value is a position."""
    try:
        return None if value is None else Lsn(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def seconds_option(ctx: click.Context, parameter: click.Parameter, value: float) -> float:
    """A callback for options whose value is a time in seconds."""
    # Asked this way round, since nothing compares with a NaN.
    if not 0 < value <= _DAY:
        raise click.BadParameter(f"expected seconds above 0, {_DAY} at most, got {value:g}")
    return value


def seconds_or_never_option(ctx: click.Context, parameter: click.Parameter, value: float) -> float:
    """A callback for options whose value is a time in seconds, or 0 for never."""
    if not 0 <= value <= _DAY:
        raise click.BadParameter(f"expected 0 or seconds, {_DAY} at most, got {value:g}")
    return value


def conninfo_argument(command: _Command) -> _Command:
    """The argument CONNINFO."""
    return click.argument("conninfo", default="", required=False)(command)


def as_json(command: _Command) -> _Command:
    """The option --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        command
    )


def no_loop_option(command: _Command) -> _Command:
    """The option --no-loop."""
    return click.option(
        "--no-loop", "-n", is_flag=True, help="End with an error when the connection does."
    )(command)


def status_interval_option(command: _Command) -> _Command:
    """The option --status-interval."""
    return click.option(
        *("--status-interval", "-s"),
        metavar="SECONDS",
        type=float,
        callback=seconds_option,
        default=10.0,
        show_default=True,
        help="Longest time between two reports to the server.",
    )(command)


def slot_option(command: _Command) -> _Command:
    """The option --slot, of a command that works on one."""
    return click.option(
        *("--slot", "-S"), required=True, metavar="NAME", help="The replication slot."
    )(command)


def replication_option(command: _Command) -> _Command:
    """The option --replication."""
    return click.option(
        "--replication",
        type=click.Choice(["database", "physical"]),
        default="database",
        show_default=True,
        help="Kind of connection. physical: one without a database and without SQL, for roles "
        "that pg_hba.conf lets in to 'replication' alone.",
    )(command)


def yes_option(command: _Command) -> _Command:
    """The option --yes."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(command)


def require_sql(replication: Replication, what: str) -> None:
    """Refuse a physical connection for what is done by SQL; `what` begins the sentence."""
    if replication == "physical":
        raise CommandFailed(
            f"{what} by SQL, which a physical replication connection does not have: leave out "
            "--replication physical, and have pg_hba.conf let the role in to a database",
            status=2,
        )


def require_confirmation(consequence: str, yes: bool) -> None:
    """Tell what is about to happen and ask; raises `click.Abort` for anything but a yes.

    Where nobody can be asked, standard input being no terminal, --yes is needed.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise CommandFailed(f"{consequence} This needs --yes where nobody can be asked.", status=2)
    click.echo(consequence, err=True)
    click.confirm("Go on?", abort=True, err=True)
