"""``pgrepl basebackup``: a base backup of a server, in archives or as a data directory."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import click

from ...amounts import bytes_text
from ...basebackup import BackupProgress, ReceivedBackup, receive_base_backup
from ...basebackup.compression import ArchiveCompression
from ...basebackup.settings import BackupFormat, WalMethod
from ...errors import UsageError
from ...escapes import printable
from ..connections import opened
from ..interruption import Interrupted, Interruption
from ..options import as_json, conninfo_argument
from ..printing import print_json, print_text
from .display import backup_display

__all__ = ["basebackup_command"]

_RATE: Final = re.compile(r"([0-9]{1,9})([kM]?)", re.ASCII)


def _one_of(*words: str) -> Callable[[click.Context, click.Parameter, str], str]:
    """A callback for one of some words, or its first letter, as PostgreSQL's programs take it."""

    def option(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
        for word in words:
            if value in (word, word[0]):
                return word
        raise click.BadParameter(f"expected {', '.join(words)} or a first letter, got {value!r}")

    return option


def _rate_option(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Read a rate in kB a second, or in MB with an M; the library has the limits."""
    if value is None:
        return None
    match = _RATE.fullmatch(value)
    rate = int(match[1]) * (1024 if match[2] == "M" else 1) if match else 0
    if not 32 <= rate <= 1 << 20:
        raise click.BadParameter(f"expected 32k to 1024M, or kB without a letter, got {value!r}")
    return rate


def _mapping_option(
    ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> dict[str, str]:
    """Read ``OLD=NEW``, where an equals sign of a path stands behind a backslash."""
    mapping: dict[str, str] = {}
    for each in value:
        parts = [part.replace("\\=", "=") for part in re.split(r"(?<!\\)=", each)]
        if len(parts) != 2 or not all(part.startswith("/") for part in parts):
            raise click.BadParameter(f"expected OLD=NEW, absolute paths both, got {each!r}")
        if parts[0] in mapping:
            raise click.BadParameter(f"expected each OLD once, got {parts[0]!r} again")
        mapping[parts[0]] = parts[1]
    return mapping


def _compress_option(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """Read a compression; a number alone is a level of gzip, and 0 is none."""
    if value.isascii() and value.isdigit():
        value = f"gzip:{value}" if int(value) else "none"
    try:
        ArchiveCompression.parse(value)
    except UsageError as error:
        raise click.BadParameter(str(error)) from None
    return value


@click.command("basebackup", short_help="Take a base backup of a server.")
@conninfo_argument
@click.option(
    *("--pgdata", "-D", "directory"),
    required=True,
    metavar="DIRECTORY",
    help="Where to put the backup; must be empty, or not there.",
)
@click.option(
    *("--format", "-F", "form"),
    metavar="plain|tar",
    callback=_one_of("plain", "tar"),
    default="plain",
    show_default=True,
    help="plain: a data directory. tar: archives.",
)
@click.option(
    *("--wal-method", "-X"),
    metavar="none|fetch|stream",
    callback=_one_of("none", "fetch", "stream"),
    default="stream",
    show_default=True,
    help="The WAL that the backup needs: streamed meanwhile by a second connection, fetched at "
    "the end, or left to an archive.",
)
@click.option("--slot", "-S", metavar="NAME", help="Slot for the streamed WAL.")
@click.option("--create-slot", "-C", is_flag=True, help="Create that slot first. It stays.")
@click.option("--no-slot", is_flag=True, help="Stream the WAL without even a temporary slot.")
@click.option(
    *("--tablespace-mapping", "-T"),
    metavar="OLD=NEW",
    multiple=True,
    callback=_mapping_option,
    help="Where to put a tablespace in plain format; for each that there is.",
)
@click.option(
    *("--compress", "-Z"),
    metavar="[{client|server}-]METHOD[:LEVEL]",
    default="none",
    show_default=True,
    callback=_compress_option,
    help="gzip, lz4 or zstd, for the archives; server-gzip, server-lz4 or server-zstd (15) for the "
    "network too.",
)
@click.option("--gzip", "-z", is_flag=True, help="The same as --compress gzip.")
@click.option(
    *("--checkpoint", "-c"),
    type=click.Choice(["fast", "spread"]),
    default="spread",
    show_default=True,
    help="Hurry the checkpoint at the beginning, or not.",
)
@click.option(
    *("--max-rate", "-r"),
    metavar="RATE",
    callback=_rate_option,
    help="Highest rate of the transfer: kB a second, or MB with an M.",
)
@click.option(
    *("--incremental", "-i"),
    metavar="MANIFEST",
    help="Take only what has changed since the backup with this manifest (17).",
)
@click.option("--label", "-l", default="pgrepl base backup", help="What the backup is called.")
@click.option("--no-manifest", is_flag=True, help="Have no manifest made.")
@click.option("--manifest-force-encode", is_flag=True, help="Encode all names in the manifest.")
@click.option(
    "--manifest-checksums",
    metavar="ALGORITHM",
    type=click.Choice(
        ["NONE", "CRC32C", "SHA224", "SHA256", "SHA384", "SHA512"], case_sensitive=False
    ),
    help="Checksums in the manifest: NONE, CRC32C, SHA224, SHA256, SHA384, SHA512.",
)
@click.option("--no-verify-checksums", is_flag=True, help="Do not verify checksums of pages.")
@click.option("--no-clean", "-n", is_flag=True, help="Leave what there is after an error.")
@click.option("--no-sync", "-N", is_flag=True, help="Do not wait until all is on disk.")
@click.option("--progress", "-P", is_flag=True, help="Show on stderr how far it has come.")
@as_json
def basebackup_command(
    conninfo: str,
    directory: str,
    form: BackupFormat,
    wal_method: WalMethod,
    slot: str | None,
    create_slot: bool,
    no_slot: bool,
    tablespace_mapping: dict[str, str],
    compress: str,
    gzip: bool,
    checkpoint: Literal["fast", "spread"],
    no_manifest: bool,
    manifest_force_encode: bool,
    manifest_checksums: str | None,
    no_verify_checksums: bool,
    no_clean: bool,
    no_sync: bool,
    progress: bool,
    as_json: bool,
    **asked: Any,
) -> int:
    """Take a base backup of a server, as pg_basebackup does.

    CONNINFO is a URI (postgresql://user@host:port/dbname) or keywords (host=... dbname=...); what
    it leaves out comes from the PG* variables and ~/.pgpass, as with psql. The role needs
    REPLICATION, and a line of pg_hba.conf for the database 'replication'.

    In plain format a server can be started from the directory. Each tablespace needs to be told
    where it goes, by --tablespace-mapping: nothing is ever written where only the server says so.

    When the command ends with status 0 the backup is whole and on disk. Otherwise what was made of
    it is removed again, unless --no-clean is given.

    \b
    Example:
      pgrepl basebackup "host=db user=replicator" -D /srv/backup/data -P -c fast
      pgrepl basebackup "host=db user=replicator" -D /srv/today -F tar -Z zstd
      pgrepl basebackup "host=db" -D /srv/monday -i /srv/sunday/backup_manifest

    The status is 0, 1 after an error, 2 for a mistake on the command line, 130 or 143 after Ctrl-C
    or SIGTERM.
    """
    compress = "gzip" if gzip and compress == "none" else compress
    _check_slot(wal_method, slot, create_slot, no_slot)
    _check_format(form, compress, tablespace_mapping)
    if no_manifest and (manifest_force_encode or manifest_checksums):
        raise click.UsageError("--no-manifest leaves nothing for other options of the manifest")
    manifest = "no" if no_manifest else "force-encode" if manifest_force_encode else None
    options: dict[str, Any] = {
        **asked,
        "format": form,
        "wal": wal_method,
        "slot": slot,
        "create_slot": create_slot,
        "temporary_slot": not no_slot,
        "tablespace_mapping": tablespace_mapping,
        "compress": compress,
        "checkpoint": checkpoint,
        "manifest": manifest,
        "manifest_checksums": manifest_checksums and manifest_checksums.upper(),
        "verify_checksums": False if no_verify_checksums else None,
        "fsync": not no_sync,
        "clean": not no_clean,
    }
    return _take_backup(conninfo, directory, options, progress, as_json)


def _take_backup(
    conninfo: str, directory: str, options: dict[str, Any], shown: bool, as_json: bool
) -> int:
    with Interruption() as interruption, contextlib.ExitStack() as resources:
        try:
            with interruption.raising():
                connection = resources.enter_context(opened(conninfo, "physical"))
                beside = None
                if options["wal"] == "stream":
                    beside = resources.enter_context(opened(conninfo, "physical"))
            with _interruptible_progress(interruption, shown) as progress:
                received = receive_base_backup(
                    connection, directory, wal_connection=beside, progress=progress, **options
                )
        except Interrupted:
            return interruption.exit_status
    if as_json:
        print_json(_backup_json(received, options))
    else:
        print_text(_backup_text(received))
    return 0


@contextlib.contextmanager
def _interruptible_progress(
    interruption: Interruption, shown: bool
) -> Iterator[Callable[[BackupProgress], None]]:
    """What is told of the progress, which is also where a signal ends the backup."""
    with backup_display(shown) as show:

        def tell(progress: BackupProgress) -> None:
            if interruption.signum:
                raise Interrupted
            show(progress)

        yield tell


def _check_slot(wal_method: str, slot: str | None, create_slot: bool, no_slot: bool) -> None:
    if wal_method != "stream" and (slot or create_slot or no_slot):
        raise click.UsageError("slots are for streamed WAL: leave them out, or --wal-method stream")
    if no_slot and (slot or create_slot):
        raise click.UsageError("--no-slot and a slot exclude each other")
    if create_slot and not slot:
        raise click.UsageError("--create-slot needs --slot")


def _check_format(form: str, compress: str, mapping: dict[str, str]) -> None:
    compression = ArchiveCompression.parse(compress)
    if form == "tar" and mapping:
        raise click.UsageError(
            "--tablespace-mapping is for plain format: in tar format each tablespace is an archive"
        )
    if form == "plain" and compression is not None and compression.where == "client":
        raise click.UsageError(
            "in plain format there are no archives to compress: leave out --compress, add "
            "--format tar, or have the server compress what goes over the network"
        )


def _backup_json(received: ReceivedBackup, options: dict[str, Any]) -> dict[str, Any]:
    mapping = options["tablespace_mapping"]
    manifest = received.directory / "backup_manifest"
    return {
        "directory": str(received.directory),
        "format": options["format"],
        "files": list(received.files),
        "manifest": str(manifest) if manifest.exists() else None,
        "wal_method": options["wal"],
        "timeline": received.timeline,
        "start_lsn": str(received.start_lsn),
        "end_lsn": str(received.end_lsn),
        "received_bytes": received.size,
        "tablespaces": [
            {"oid": each.oid, "location": each.location, "directory": mapping.get(each.location)}
            for each in received.tablespaces
        ],
    }


def _backup_text(received: ReceivedBackup) -> str:
    return (
        f"base backup in {printable(str(Path(received.directory)))}: {bytes_text(received.size)} "
        f"received, WAL from {received.start_lsn} to {received.end_lsn} on timeline "
        f"{received.timeline}"
    )
