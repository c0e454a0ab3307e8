"""``pgrepl stream``: its options and its help. Needs click."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..options import (
    conninfo_argument,
    lsn_option,
    no_loop_option,
    seconds_or_never_option,
    status_interval_option,
)
from .run import StreamOptions, drop_slot, stream

__all__ = ["stream_command"]


def _plugin_options(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str | None]:
    """Read ``name=value``, or a name alone."""
    options: dict[str, str | None] = {}
    for text in values:
        name, given, value = text.partition("=")
        if not name:
            raise click.BadParameter(f"expected NAME=VALUE, got {text!r}")
        options[name] = value if given else None
    return options


def _path_option(ctx: click.Context, parameter: click.Parameter, value: str) -> Path | None:
    return None if value == "-" else Path(value)


@click.command("stream", short_help="Stream the changes of a slot, to a file or on.")
@conninfo_argument
@click.option("--slot", "-S", required=True, metavar="NAME", help="The logical replication slot.")
@click.option(
    *("--publication", "-P", "publications"),
    metavar="NAME",
    multiple=True,
    help="Publication whose changes to stream; may be given several times.",
)
@click.option(
    "--plugin",
    metavar="NAME",
    default="pgoutput",
    show_default=True,
    help="Output plugin of the slot that --create-slot makes. Others than pgoutput come as raw.",
)
@click.option(
    *("--option", "-o", "plugin_options"),
    metavar="NAME[=VALUE]",
    multiple=True,
    callback=_plugin_options,
    help="Option of the plugin, for the format raw; may be given several times.",
)
@click.option(
    "--format",
    type=click.Choice(["text", "json", "raw"]),
    help="text: readable lines. json: one object a line, with every value complete. raw: what the "
    "plugin writes, a line end behind each message.  [default: text, raw of other plugins]",
)
@click.option(
    *("--file", "-f", "path"),
    metavar="FILE",
    default="-",
    callback=_path_option,
    help="Append to this file, and open it anew on SIGHUP; - is standard output.  [default: -]",
)
@click.option(
    *("--start-pos", "--startpos", "-I", "start"),
    metavar="LSN",
    callback=lsn_option,
    help="Begin here, not where the slot stands.",
)
@click.option(
    *("--end-pos", "--endpos", "-E", "end"),
    metavar="LSN",
    callback=lsn_option,
    help="End with status 0 when everything up to this position was streamed.",
)
@click.option(
    "--create-slot",
    is_flag=True,
    help="Create the slot first, and then stream from it: pg_recvlogical's --create-slot --start. "
    "To create it and no more:  pgrepl slots create",
)
@click.option("--if-not-exists", is_flag=True, help="A slot that is there already will do.")
@click.option(
    "--temporary",
    is_flag=True,
    help="Create the slot as one that vanishes with the connection. Implies --create-slot.",
)
@click.option("--drop-slot", "drops", is_flag=True, help="Drop the slot, and do nothing else.")
@click.option(
    *("--two-phase", "-t"), is_flag=True, help="Prepared transactions when they are prepared (15)."
)
@click.option("--failover", is_flag=True, help="Let standbys keep the slot in step (17).")
@click.option(
    "--streaming",
    type=click.Choice(["off", "on", "parallel"]),
    default="off",
    show_default=True,
    help="Large transactions in blocks, before they end (14, 16).",
)
@click.option("--binary", is_flag=True, help="Values in binary, shown in hexadecimal (14).")
@click.option(
    "--origin",
    type=click.Choice(["any", "none"]),
    default="any",
    show_default=True,
    help="none: only changes made here, not those that were replicated from elsewhere (16).",
)
@click.option(
    "--on-missing-publication",
    type=click.Choice(["raise", "warn"]),
    default="raise",
    show_default=True,
    help="warn: go on without a publication that does not exist, for what the slot still has of it "
    "or of others. Of text and json; raw leaves it to the server.",
)
@no_loop_option
@click.option(
    *("--fsync-interval", "-F"),
    metavar="SECONDS",
    type=float,
    callback=seconds_or_never_option,
    default=10.0,
    show_default=True,
    help="Longest time that what a file was given is not synced; 0 leaves it to the system.",
)
@status_interval_option
@click.option("--verbose", "-v", is_flag=True, help="Tell on stderr where it begins.")
def stream_command(conninfo: str, drops: bool, no_loop: bool, **given: Any) -> int:
    """Stream the changes of a slot to a file or to standard output, as pg_recvlogical does.

    CONNINFO is a URI (postgresql://user@host:port/dbname) or keywords (host=... dbname=...). What
    it leaves out comes from the PG* variables and ~/.pgpass, as with psql; a
    password is better there than here, where every process of the machine can read it.

    A position is acknowledged when all before it was written, and in a file synced: every
    --fsync-interval, at the end, and when the server asks. The server then never sends it again.
    Behind a pipe that means: the pipe has taken it. What comes behind the last COMMIT is sent again
    at the next start. While no transaction is open the slot also follows the server's own position,
    so that it does not hold back WAL that has nothing for it. Reports go on while the output is
    blocked: its reader may be as slow as it likes.

    When the connection is lost another is made, after a while that grows to 5 seconds, and goes on
    behind what the output has; of a transaction that was cut off text and json tell only the rest.
    What cannot get better by itself, a slot or publication that is missing, a disk that is full,
    ends it.

    --end-pos takes no notice of transactions: what lies exactly there still comes, what lies beyond
    does not, and of a transaction that was cut off everything is sent again.

    \b
    Example:
      pgrepl stream "host=db dbname=shop" --slot new -P shop --create-slot
      pgrepl stream "host=db dbname=shop" --slot shop -P shop --format json -f f
      pgrepl stream "host=db dbname=shop" --slot a --plugin test_decoding -f f

    Ctrl-C and SIGTERM end the stream in order, with a last report; the status is then 0, and before
    the first connection was made 130 or 143. It is 141 when nobody reads the output any more, 1
    after an error, 2 for a mistake on the command line.
    """
    slot: str = given["slot"]
    if drops:
        _require_nothing_else(given)
        return drop_slot(conninfo, slot)
    given["format"] = given["format"] or ("text" if given["plugin"] == "pgoutput" else "raw")
    options = StreamOptions(**given, loops=not no_loop)
    _refuse_contradictions(options)
    return stream(conninfo, options)


def _require_nothing_else(given: dict[str, Any]) -> None:
    for name in ("create_slot", "if_not_exists", "temporary", "start", "end", "publications"):
        if given[name]:
            raise click.UsageError("--drop-slot goes with --slot alone")


def _refuse_contradictions(options: StreamOptions) -> None:
    """Refuse options that do not go together."""
    decoded = options.format != "raw"
    makes_slot = options.create_slot or options.temporary
    wrong = (
        (
            decoded and options.plugin != "pgoutput",
            f"--format {options.format} is for the plugin pgoutput; of others there is raw",
        ),
        (
            decoded and options.plugin_options,
            f"--option is for --format raw; {options.format} has options of its own",
        ),
        (
            decoded and not options.publications,
            "--publication is needed, at least one; for a slot of another plugin --plugin instead; "
            "to create a slot and no more there is  pgrepl slots create",
        ),
        (
            options.publications and options.plugin != "pgoutput",
            "--publication is for the plugin pgoutput alone",
        ),
        (
            options.origin != "any" and not options.publications,
            "--origin goes with --publication; of other plugins it is an --option",
        ),
        (
            options.on_missing_publication != "raise" and not decoded,
            "--on-missing-publication is for text and json; with raw the server alone looks",
        ),
        (options.if_not_exists and not makes_slot, "--if-not-exists goes with --create-slot"),
        (options.failover and not makes_slot, "--failover goes with --create-slot"),
        (
            options.failover and options.temporary,
            "--failover is for slots that stay: leave it out, or --temporary",
        ),
        (
            options.two_phase and not makes_slot and not options.publications,
            "--two-phase goes with --create-slot, or with --publication",
        ),
    )
    for is_wrong, complaint in wrong:
        if is_wrong:
            raise click.UsageError(complaint)
