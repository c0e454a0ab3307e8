"""The command: looks, shows what was found, and tells by its exit status how it stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from ...doctor import Finding, Level, examine
from ...errors import Error
from ...escapes import printable
from ..connections import opened
from ..failure import CommandFailed
from ..options import as_json, conninfo_argument
from ..printing import by_words, output_width, print_json, print_rich
from .refusal import turned_away

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["doctor_command"]

_NOT_EXAMINED: Final = 3
_STYLES: Final = {
    Level.OK: "green",
    Level.HINT: "cyan",
    Level.WARNING: "yellow",
    Level.PROBLEM: "bold red",
}
_INDENT: Final = 9
_NARROWEST: Final = 20
# Up to a blank that is not inside of quotes.
_SQL_WORD: Final = re.compile(r"""(?:"(?:[^"]|"")*"|'(?:[^']|'')*'|[^ "']|["'])+""")


@click.command("doctor", short_help="Examine whether a server is ready for replication.")
@conninfo_argument
@click.option(
    *("--publication", "-P", "publications"),
    multiple=True,
    metavar="NAME",
    help="Publication of the stream to be; may be given several times.  [default: look at all]",
)
@click.option("--slot", "-S", metavar="NAME", help="Slot of the stream to be.")
@as_json
def doctor_command(
    conninfo: str, publications: tuple[str, ...], slot: str | None, as_json: bool
) -> int:
    """Examine whether a server and a database are ready for logical replication.

    CONNINFO is a URI (postgresql://user@host:port/dbname) or keywords (host=... dbname=...); what
    it leaves out comes from the PG* variables and ~/.pgpass, as with psql. Give it
    as the consumer will: that its role gets in is a part of the examination.

    Settings, publications with their tables, and slots are looked at; nothing is changed. Each
    finding is a problem, which stands in the way of a stream or of writers, a warning, a hint, or
    ok; behind it stand the reason, and the SQL that mends it. Read that before you run it: some of
    it drops what nobody seems to use. ALTER SYSTEM wants a superuser, and on a hosted server what
    the provider has in its place.

    \b
    Example:
      pgrepl doctor postgresql://replicator@db.example.org/shop
      pgrepl doctor "host=db dbname=shop" --publication shop --slot changes --json

    The status is 0 if there is no problem, 1 if there is one, 2 for a mistake on the command line,
    3 if the server cannot be reached or examined.
    """
    findings = _examined(conninfo, publications, slot)
    findings.sort(key=lambda finding: finding.level, reverse=True)
    if as_json:
        print_json([finding.asdict() for finding in findings])
    else:
        width = output_width() - _INDENT
        print_rich(*(_shown(finding, width) for finding in findings), _summary(findings))
    return int(any(finding.level is Level.PROBLEM for finding in findings))


def _examined(conninfo: str, publications: Sequence[str], slot: str | None) -> list[Finding]:
    try:
        with opened(conninfo) as connection:
            return examine(connection, publications, slot)
    except CommandFailed as error:
        raise CommandFailed(str(error), error.status if error.status == 2 else 3) from None
    except Error as error:
        finding = turned_away(error, conninfo)
        if finding is None:
            raise CommandFailed(str(error), _NOT_EXAMINED) from None
        return [finding]


def _shown(finding: Finding, width: int) -> Text:
    from rich.text import Text

    indent = "\n" + " " * _INDENT

    def laid_out(words: Sequence[str], mark: str = "") -> str:
        lines = by_words(words, max(width, _NARROWEST) - len(mark))
        return indent.join(mark + line for line in lines)

    text = Text(f"{finding.level.word:{_INDENT}}", style=_STYLES[finding.level])
    text.append(laid_out(printable(finding.found).split(" ")), style="not bold default")
    if finding.why:
        why = indent + laid_out(printable(finding.why).split(" "))
        text.append(why, style="not bold dim default")
    for statement in finding.sql:
        # What is copied from the terminal means the same: no line ends inside of quotes.
        sql = indent + laid_out(_SQL_WORD.findall(printable(statement)))
        text.append(sql, style="not bold default")
    if finding.then:
        then = indent + laid_out(printable(finding.then).split(" "), "-- ")
        text.append(then, style="not bold default")
    return text


def _summary(findings: Sequence[Finding]) -> Text:
    from rich.text import Text

    counts = []
    for level in (Level.PROBLEM, Level.WARNING, Level.HINT):
        count = sum(finding.level is level for finding in findings)
        plural = "" if count == 1 else "s"
        counts.append(f"{count or 'no'} {level.word}{plural}")
    return Text("\n" + ", ".join(counts))
