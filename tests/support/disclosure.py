"""Looking for a password where it must not be: in all that an error could show.

Law: nothing here uses pgrepl.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import traceback
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from tests.support.scram import salted_password

_KEYS = ("Client", "Server")
TESTS = str(Path(__file__).parents[1])


@functools.lru_cache
def traces(password: str, user: str, *pieces: str) -> tuple[str, ...]:
    """What a password could be recognised by: itself, pieces of it, and what is made of it.

    The keys of SCRAM, StoredKey among them, are those for the salt and the count of `ScramServer`.
    """
    raw = password.encode("utf-8", "surrogateescape")
    salted = salted_password(raw, bytes(range(16)), 4096)
    keys = [salted] + [hmac.digest(salted, f"{n} Key".encode(), "sha256") for n in _KEYS]
    keys.append(hashlib.sha256(keys[1]).digest())
    return (
        password,
        quote(raw, safe=""),
        *pieces,
        hashlib.md5(raw + user.encode()).hexdigest(),
        base64.b64encode(raw).decode(),
        *(base64.b64encode(key).decode() for key in keys),
        *(repr(key)[2:-1] for key in keys),
        *(key.hex() for key in keys),
    )


def chain(error: BaseException | None, seen: set[int] | None = None) -> Iterator[BaseException]:
    """An error and all that it came of, suppressed or not."""
    seen = set() if seen is None else seen
    if error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        yield from chain(error.__cause__, seen)
        yield from chain(error.__context__, seen)


def everything_about(error: BaseException) -> str:
    """All that a log, a debugger or a crash report could show, but for the tests' own frames."""
    shown = []
    for each in chain(error):
        report = traceback.TracebackException(
            type(each), each, each.__traceback__, capture_locals=True
        )
        frames = [frame for frame in report.stack if not frame.filename.startswith(TESTS)]
        shown += [str(each), repr(each), repr(each.args), repr(vars(each))]
        shown += [f"{frame.filename} {frame.name} {frame.locals}" for frame in frames]
        shown += getattr(each, "__notes__", [])
        shown.append("".join(traceback.format_exception_only(each)))
    return "\n".join(shown)
