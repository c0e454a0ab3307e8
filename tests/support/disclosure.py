"""Looking for a password where it must not be: in all that an error could show.

Law: nothing here uses pgrepl.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import hmac
import importlib
import io
import pickle
import reprlib
import traceback
import warnings
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
        raw.hex(),
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
        frames = [
            frame
            for frame, _ in traceback.walk_tb(each.__traceback__)
            if not frame.f_code.co_filename.startswith(TESTS)
        ]
        shown += [str(each), repr(each), repr(each.args), repr(vars(each)), _pickled(each)]
        for frame in frames:
            shown.append(f"{frame.f_code.co_filename} {frame.f_code.co_qualname}")
            shown += [f"{name}={_shown(value)}" for name, value in frame.f_locals.items()]
        shown += getattr(each, "__notes__", [])
        shown.append("".join(traceback.format_exception_only(each)))
    return "\n".join(shown)


def as_libraries_show(error: BaseException) -> str:
    """What tools make of an error that print the variables of each frame: rich, and cgitb where
    Python still has it. Raises `ImportError` without rich."""
    shown = []
    rich_traceback, console = (
        importlib.import_module(f"rich.{n}") for n in ("traceback", "console")
    )
    for each in chain(error):
        trace = each.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith(TESTS):
            trace = trace.tb_next  # of the caller, who has the password
        output = io.StringIO()
        console.Console(file=output, width=200).print(
            rich_traceback.Traceback.from_exception(
                type(each),
                each.with_traceback(trace),
                trace,
                show_locals=True,
                locals_max_length=None,
                locals_max_string=None,
            )
        )
        shown.append(output.getvalue())
        with warnings.catch_warnings(), contextlib.suppress(ImportError, AttributeError):
            warnings.simplefilter("ignore", DeprecationWarning)
            shown.append(importlib.import_module("cgitb").text((type(each), each, trace)))
    return "\n".join(shown)


def _shown(value: object) -> str:
    # What was interrupted while it was made may have no repr yet.
    try:
        return f"{value!r} {reprlib.repr(value)}"
    except Exception as error:
        return f"<no repr: {error!r}>"


def _pickled(error: BaseException) -> str:
    # The old protocol has texts as they are.
    try:
        return "".join(pickle.dumps(error, protocol).decode("latin-1") for protocol in (0, 5))
    except Exception as refused:
        return f"{refused!r}"
