"""The commands of ``pgrepl slots``. Needs click."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click

from ...amounts import bytes_text
from ...blocking.connection import Connection
from ...errors import SlotNotFound
from ...escapes import printable
from ...lsn import Lsn
from ...protocol.slot_listing import ReplicationSlot
from ...protocol.slots import Slot
from ..connections import Replication, cancelled_by_signals, opened
from ..interruption import Interrupted, Interruption
from ..options import (
    as_json,
    conninfo_argument,
    lsn_option,
    replication_option,
    require_confirmation,
    require_sql,
    slot_option,
    yes_option,
)
from ..printing import print_json, print_rich, print_text
from ..wording import DROPPING, LISTING, advised
from .advancing import advance, from_and_to
from .as_asked import require_as_asked
from .listing import slot_json, slot_table

__all__ = ["slots_commands"]


@click.group("slots", short_help="List, create, alter, advance and drop slots.")
def slots_commands() -> None:
    """List, create, alter, advance and drop replication slots.

    A slot makes the server keep what one consumer has not yet confirmed: a logical one the changes
    of a database, a physical one WAL. It belongs to the server, not to a connection, and keeps WAL
    whether anybody reads or not.

    CONNINFO is a URI (postgresql://user@host:port/dbname) or keywords (host=... dbname=...); what
    it leaves out comes from the PG* variables and ~/.pgpass, as with psql.

    The status is 0, 1 after an error, 2 for a mistake on the command line.
    """


@slots_commands.command("list", short_help="Show all slots of a server.")
@conninfo_argument
@replication_option
@as_json
def list_command(conninfo: str, replication: Replication, as_json: bool) -> int:
    """Show all slots of a server: who uses them, how far behind they are, what they hold.

    The lag is what the consumer has not confirmed, in bytes of WAL, and in time while one is
    connected that reports. WAL held is what the server keeps on its disk for the slot. What a
    server's version does not tell is missing; in JSON it is null.

    \b
    Example:
      pgrepl slots list postgresql://replicator@db.example.org/shop
      pgrepl slots list "host=db dbname=shop" --json | jq '.[].slot'
    """
    require_sql(replication, "slots are listed")
    with opened(conninfo) as connection:
        slots = connection.slots()
    if as_json:
        print_json([slot_json(slot) for slot in slots])
    elif slots:
        print_rich(slot_table(slots))
    else:
        print_text("no replication slots")
    return 0


@slots_commands.command("create", short_help="Create a logical or a physical slot.")
@conninfo_argument
@slot_option
@click.option("--physical", is_flag=True, help="A physical slot, for WAL instead of changes.")
@click.option("--plugin", help="Output plugin of a logical slot.  [default: pgoutput]")
@click.option("--two-phase", is_flag=True, help="Decode prepared transactions when prepared (15).")
@click.option("--failover", is_flag=True, help="Let standbys keep the slot in step (17).")
@click.option("--reserve-wal", is_flag=True, help="Keep WAL from now on, not from the first use.")
@click.option("--temporary", is_flag=True, help="Refused: it would be gone when this ends.")
@click.option("--if-not-exists", is_flag=True, help="Leave a slot of that kind as it is.")
@replication_option
@as_json
def create_command(
    conninfo: str,
    slot: str,
    physical: bool,
    plugin: str | None,
    two_phase: bool,
    failover: bool,
    reserve_wal: bool,
    temporary: bool,
    if_not_exists: bool,
    replication: Replication,
    as_json: bool,
) -> int:
    """Create a slot: a logical one of the connection's database, or a physical one.

    The server first waits for the transactions that are running, so that this can take as long as
    they do. From then on the slot holds WAL back until a consumer confirms it: drop it when there
    is none any more.

    With --if-not-exists a slot that was there already stays as it is; the status is 1 where it
    lacks --failover or --two-phase.

    \b
    Example:
      pgrepl slots create "host=db dbname=shop" --slot changes --if-not-exists
      pgrepl slots create "host=db" --slot standby_2 --physical --reserve-wal
    """
    _refuse_contradictions(physical, plugin, two_phase, failover, reserve_wal, temporary)
    if not physical and replication == "physical":
        raise click.UsageError("a logical slot needs a database: leave out --replication physical")
    with opened(conninfo, replication) as connection:
        if physical:
            made = connection.create_physical_slot(
                slot, reserve_wal=reserve_wal, if_not_exists=if_not_exists
            )
        else:
            with _ended_by_signals(connection):
                made = connection.create_logical_slot(
                    slot,
                    plugin or "pgoutput",
                    two_phase=two_phase,
                    failover=failover,
                    if_not_exists=if_not_exists,
                )
            if not made.created:
                require_as_asked(connection, slot, two_phase=two_phase, failover=failover)
    _print_created(made, as_json)
    return 0


def _print_created(slot: Slot, as_json: bool) -> None:
    kind = "physical" if slot.plugin is None else "logical"
    position = slot.consistent_point if slot.created and slot.plugin is not None else None
    if as_json:
        print_json(
            {
                "slot": slot.name,
                "slot_type": kind,
                "plugin": slot.plugin,
                "created": slot.created,
                "consistent_point": None if position is None else str(position),
            }
        )
    elif slot.created:
        where = "" if position is None else f"; it has what is committed after {position}"
        print_text(f"created the {kind} slot {printable(slot.name)}{where}")
    else:
        print_text(f"the {kind} slot {printable(slot.name)} was there already")


@contextlib.contextmanager
def _ended_by_signals(connection: Connection) -> Iterator[None]:
    """A command that may wait for long, see `cancelled_by_signals`; a signal ends the program."""
    with Interruption() as interruption:
        try:
            with cancelled_by_signals(connection), interruption.raising():
                yield
        except Interrupted:
            raise click.exceptions.Exit(interruption.exit_status) from None


def _refuse_contradictions(
    physical: bool,
    plugin: str | None,
    two_phase: bool,
    failover: bool,
    reserve_wal: bool,
    temporary: bool,
) -> None:
    """Refuse options that do not go together."""
    if temporary:
        raise click.UsageError(
            "a temporary slot lives as long as the connection that made it, and this command's "
            "ends at once: use  pgrepl stream --temporary, or create one that stays"
        )
    logical = {"--plugin": plugin, "--two-phase": two_phase, "--failover": failover}
    named = [name for name, given in logical.items() if given]
    if physical and named:
        raise click.UsageError(f"{named[0]} is for logical slots: leave it out, or --physical")
    if reserve_wal and not physical:
        raise click.UsageError(
            "--reserve-wal is for physical slots: a logical one always keeps WAL from now on"
        )


@slots_commands.command("drop", short_help="Drop a slot and what it keeps.")
@conninfo_argument
@slot_option
@click.option("--wait", is_flag=True, help="Wait until nobody uses it any more.")
@click.option("--if-exists", is_flag=True, help="A slot that is not there is no error.")
@yes_option
@replication_option
@as_json
def drop_command(
    conninfo: str,
    slot: str,
    wait: bool,
    if_exists: bool,
    yes: bool,
    replication: Replication,
    as_json: bool,
) -> int:
    """Drop a slot, and let the server remove what it has kept for it.

    What its consumer has not read is then gone for that consumer: a new slot of the same name
    begins anew. This asks first; where nobody can be asked it wants --yes.

    \b
    Example:
      pgrepl slots drop postgresql://replicator@db.example.org/shop --slot changes
      pgrepl slots drop "host=db dbname=shop" --slot changes --if-exists --yes
    """
    with opened(conninfo, replication) as connection, advised(DROPPING):
        found = connection.slots(slot) if replication == "database" else None
        dropped = found != []
        if dropped:
            require_confirmation(_what_is_lost(slot, found[0] if found else None), yes)
        try:
            # Also where it is not there, for the server's own word on that.
            with _ended_by_signals(connection):
                connection.drop_slot(slot, wait=wait)
        except SlotNotFound:
            if not if_exists:
                raise
            dropped = False
    if as_json:
        print_json({"slot": slot, "dropped": dropped})
    else:
        shown = printable(slot)
        print_text(f"dropped the slot {shown}" if dropped else f"there is no slot {shown}")
    return 0


def _what_is_lost(name: str, slot: ReplicationSlot | None) -> str:
    text = f"The slot {printable(name)} is to be dropped"
    if slot is None:
        return f"{text}, and what it keeps with it."
    kind = f"{slot.slot_type}, of database {slot.database}" if slot.database else slot.slot_type
    behind = "nothing" if slot.lag_bytes is None else bytes_text(slot.lag_bytes)
    return (
        f"{text}: {printable(kind)}. Its consumer has not confirmed {behind} of WAL, and cannot "
        "have that from a slot any more."
    )


@slots_commands.command("alter", short_help="Change what a logical slot does.")
@conninfo_argument
@slot_option
@click.option("--failover/--no-failover", default=None, help="Let standbys keep it in step (17).")
@click.option(
    "--two-phase/--no-two-phase",
    default=None,
    help="Decode prepared transactions when they are prepared (18).",
)
@replication_option
@as_json
def alter_command(
    conninfo: str,
    slot: str,
    failover: bool | None,
    two_phase: bool | None,
    replication: Replication,
    as_json: bool,
) -> int:
    """Change what a logical slot does, while nobody uses it.

    \b
    Example:
      pgrepl slots alter "host=db dbname=shop" --slot changes --failover
    """
    if failover is None and two_phase is None:
        raise click.UsageError("expected --failover or --two-phase, or one of their opposites")
    with opened(conninfo, replication) as connection, advised(LISTING):
        connection.alter_slot(slot, failover=failover, two_phase=two_phase)
    altered = {"failover": failover, "two_phase": two_phase}
    if as_json:
        print_json({"slot": slot, **altered})
    else:
        told = ", ".join(
            f"{name} {'on' if value else 'off'}"
            for name, value in altered.items()
            if value is not None
        )
        print_text(f"altered the slot {printable(slot)}: {told}")
    return 0


def _lsn_or_current(ctx: click.Context, parameter: click.Parameter, value: str) -> Lsn | None:
    """The position to advance to; None: the end of the WAL."""
    return None if value == "current" else lsn_option(ctx, parameter, value)


@slots_commands.command("advance", short_help="Move a slot forward, past what is not read.")
@conninfo_argument
@slot_option
@click.option(
    *("--to", "target"),
    required=True,
    metavar="LSN|current",
    callback=_lsn_or_current,
    help="Position to move it to.",
)
@yes_option
@replication_option
@as_json
def advance_command(
    conninfo: str,
    slot: str,
    target: Lsn | None,
    yes: bool,
    replication: Replication,
    as_json: bool,
) -> int:
    """Move a slot forward without reading it, so that what lies in between is skipped.

    The consumer of a logical slot never sees the transactions that were committed before the new
    position; the client of a physical one must have that WAL from elsewhere. There is no way back:
    a position before the slot's own is refused, and so is one beyond the end of the WAL. This asks
    first; where nobody can be asked it wants --yes. Needs PostgreSQL 11; before 17 a logical slot
    wants a connection to its own database.

    \b
    Example:
      pgrepl slots advance "host=db dbname=shop" --slot changes --to 1/F73E0220
      pgrepl slots advance "host=db dbname=shop" --slot changes --to current --yes
    """
    require_sql(replication, "slots are advanced")
    with opened(conninfo) as connection:
        before, wanted = from_and_to(slot, connection.slots(slot), target)
        reached = before
        if wanted > before:
            require_confirmation(_what_is_skipped(slot, before, wanted), yes)
            reached = advance(connection, slot, wanted)
    if as_json:
        print_json({"slot": slot, "from": str(before), "to": str(reached)})
    elif reached == before:
        print_text(f"the slot {printable(slot)} stays at {before}")
    else:
        skipped = bytes_text(reached - before)
        print_text(f"moved the slot {printable(slot)} from {before} to {reached}, past {skipped}")
    return 0


def _what_is_skipped(name: str, before: Lsn, wanted: Lsn) -> str:
    return (
        f"The slot {printable(name)} is to be moved from {before} to {wanted}: its consumer never "
        f"sees what is in those {bytes_text(wanted - before)} of WAL, and there is no way back."
    )
