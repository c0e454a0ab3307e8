"""``pgrepl receivewal``: a server's WAL, kept in a directory for as long as the program runs."""

from __future__ import annotations

import contextlib
import select
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from ..errors import Error, SlotNotFound, UsageError
from ..escapes import printable
from ..lsn import Lsn
from ..physical import ReceivedSegment, receive_wal
from ..physical.compression import Compression
from .connections import opened
from .failure import CommandFailed
from .interruption import Interrupted, Interruption
from .options import conninfo_argument, lsn_option, no_loop_option, status_interval_option
from .printing import print_notice, print_text
from .wording import DROPPING, advised, in_programs_words

__all__ = ["receivewal_command"]

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0


def _compress_option(
    ctx: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    """Read a compression; a number alone is a level of gzip, and 0 is none."""
    if value is not None and value.isascii() and value.isdigit():
        value = f"gzip:{value}" if int(value) else "none"
    if value is None or value == "none":
        return None
    try:
        Compression.parse(value).compressor(None)
    except UsageError as error:
        raise click.BadParameter(str(error)) from None
    return value


@click.command("receivewal", short_help="Receive a server's WAL into a directory.")
@conninfo_argument
@click.option("--directory", "-D", metavar="DIRECTORY", help="Where to put the segments.")
@click.option("--slot", "-S", metavar="NAME", help="Physical slot to receive through.")
@click.option(
    "--create-slot",
    is_flag=True,
    help="Create the slot, which keeps WAL from now on, and end, as pg_receivewal does.",
)
@click.option("--drop-slot", is_flag=True, help="Drop the slot, and do nothing else.")
@click.option("--if-not-exists", is_flag=True, help="A slot that is there already will do.")
@click.option(
    *("--endpos", "-E"),
    metavar="LSN",
    callback=lsn_option,
    help="End with status 0 when WAL beyond this position was received.",
)
@no_loop_option
@click.option("--no-sync", is_flag=True, help="Leave it to the system when things are on disk.")
@click.option("--synchronous", is_flag=True, help="Sync and report at once, not by the segment.")
@click.option(
    *("--compress", "-Z"),
    metavar="METHOD[:LEVEL]",
    callback=_compress_option,
    help="gzip, lz4 or zstd for complete segments.",
)
@status_interval_option
@click.option("--verbose", "-v", is_flag=True, help="Tell on stderr of each segment.")
def receivewal_command(
    conninfo: str,
    directory: str | None,
    slot: str | None,
    create_slot: bool,
    drop_slot: bool,
    if_not_exists: bool,
    endpos: Lsn | None,
    no_loop: bool,
    no_sync: bool,
    synchronous: bool,
    compress: str | None,
    status_interval: float,
    verbose: bool,
) -> int:
    """Receive a server's WAL into a directory, segment by segment, as pg_receivewal does.

    CONNINFO is a URI (postgresql://user@host:port/dbname) or keywords (host=... dbname=...); what
    it leaves out comes from the PG* variables and ~/.pgpass, as with psql. The role needs
    REPLICATION, and a line of pg_hba.conf for the database 'replication'.

    It goes on from what is in the directory; if that is empty, from where the slot begins, or from
    now. Use a slot: without one the server may remove WAL before it was received. When a connection
    is lost another is made, after a while that grows to half a minute. What cannot get better by
    itself, a disk that is full for instance, ends it.

    \b
    Example:
      pgrepl receivewal "host=db user=archiver" --slot archive --create-slot
      pgrepl receivewal "host=db user=archiver" --slot archive -D /srv/wal -Z zstd

    Ctrl-C and SIGTERM end it in order: what has come is synced and reported. The status is then 0,
    as when --endpos was reached, and before the first connection was made 130 or 143; 1 after an
    error, 2 for a mistake on the command line.
    """
    _refuse_contradictions(slot, create_slot, drop_slot, if_not_exists, no_sync, synchronous)
    if create_slot or drop_slot:
        assert slot is not None
        return _change_slot(conninfo, slot, create_slot, if_not_exists)
    if directory is None:
        raise click.UsageError("--directory is needed")
    if not Path(directory).is_dir():
        raise CommandFailed(f"expected {printable(directory)} to be a directory that is there")
    options = {
        "slot": slot,
        "end": endpos,
        "fsync": not no_sync,
        "synchronous": synchronous,
        "compress": compress,
        "status_interval": status_interval,
    }
    return _Receiving(conninfo, directory, options, verbose, loop=not no_loop).run()


def _refuse_contradictions(
    slot: str | None,
    create_slot: bool,
    drop_slot: bool,
    if_not_exists: bool,
    no_sync: bool,
    synchronous: bool,
) -> None:
    if create_slot and drop_slot:
        raise click.UsageError("--create-slot and --drop-slot exclude each other")
    if (create_slot or drop_slot) and slot is None:
        raise click.UsageError("--create-slot and --drop-slot need --slot")
    if if_not_exists and not create_slot:
        raise click.UsageError("--if-not-exists is for --create-slot")
    if synchronous and no_sync:
        raise click.UsageError("--synchronous and --no-sync exclude each other")


def _change_slot(conninfo: str, slot: str, create: bool, if_not_exists: bool) -> int:
    created = True
    with opened(conninfo, "physical") as connection:
        if create:
            made = connection.create_physical_slot(
                slot, reserve_wal=True, if_not_exists=if_not_exists
            )
            created = made.created
        else:
            with advised(DROPPING):
                connection.drop_slot(slot)
    if created:
        print_text(f"{'created' if create else 'dropped'} the physical slot {printable(slot)}")
    else:
        print_text(f"the slot {printable(slot)} was there already")
    return 0


@dataclass
class _Receiving:
    """Receives, connection after connection."""

    conninfo: str
    directory: str
    options: dict[str, Any]
    verbose: bool
    loop: bool
    connected: bool = False
    began: bool = False
    pause: float = _FIRST_PAUSE

    def run(self) -> int:
        with Interruption() as interruption:
            while True:
                try:
                    self._receive_once(interruption)
                except Interrupted:
                    pass
                except SlotNotFound as error:
                    raise CommandFailed(f"{error}; --create-slot makes it") from None
                except Error as error:
                    # What fails at the first attempt is rather wrong than away.
                    if not (self.loop and self.began and error.retryable):
                        raise
                    print_notice(
                        f"{in_programs_words(str(error))}; trying again in {self.pause:g} s"
                    )
                    self._pause_after_failure(interruption)
                    if not interruption.signum:
                        continue
                # Receiving has no other end than a signal, which it comes to in order.
                return 0 if self.connected else interruption.exit_status

    def _receive_once(self, interruption: Interruption) -> None:
        with contextlib.ExitStack() as resources:
            with interruption.raising():
                connection = resources.enter_context(opened(self.conninfo, "physical"))
            self.connected = True
            received = receive_wal(
                connection,
                self.directory,
                stop=lambda: bool(interruption.signum),
                on_start=self._note_beginning,
                on_segment=self._note_segment,
                **self.options,
            )
        if self.verbose:
            print_notice(
                f"received WAL from {received.start} to {received.position}, all of it safe"
            )

    def _note_beginning(self, timeline: int, position: Lsn) -> None:
        self.began = True
        if self.verbose:
            print_notice(f"receiving WAL from {position} on, timeline {timeline}")

    def _note_segment(self, segment: ReceivedSegment) -> None:
        self.pause = _FIRST_PAUSE
        if self.verbose:
            print_notice(
                f"received {segment.name}, up to {segment.end} on timeline {segment.timeline}"
            )

    def _pause_after_failure(self, interruption: Interruption) -> None:
        select.select([interruption], [], [], self.pause)
        self.pause = min(self.pause * 2, _LONGEST_PAUSE)
