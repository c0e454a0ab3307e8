"""What a user downloads: each artefact is built, looked into, installed and run.

Law: nothing here imports or builds from the source tree itself. The sdist is made from a copy of
the tree without anything generated (an old SOURCES.txt would hide a gap in MANIFEST.in), every
wheel is made from that sdist, and each one runs in an environment and a folder of its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

pytestmark = pytest.mark.build

PROJECT = Path(__file__).parents[2]
GENERATED = (".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "*.py[cod]", "*.so")
GENERATED_AT_THE_TOP = {".git", ".venv", "build", "dist"}
SOURCES = {".pyx", ".pxd", ".pxi", ".c", ".h"}
BUILD_VARIABLES = ("PGREPL_", "CIBUILDWHEEL", "CC", "CFLAGS", "LDFLAGS", "LDSHARED", "PYTHONPATH")

NO_COMPILER = {"CC": shutil.which("false") or "no C compiler"}
needs_cc = pytest.mark.skipif(
    sys.platform == "win32", reason="only POSIX builds take their compiler from CC"
)

PROBE = """
import json, struct
import pgrepl
from pgrepl import codec

keepalive = struct.pack(">cIcQqB", b"d", 22, b"k", 0x16B3748, 1_000_000, 1)
wal = struct.pack(">cIcQQq5s", b"d", 34, b"w", 0x16B3700, 0x16B3705, 2_000_000, b"hello")
reader = codec.FrameReader()
reader.feed(keepalive + wal)
first, second = codec.next_batch(reader)
truncate = pgrepl.Decoder(1).feed(b"B" + struct.pack(">QqI", 0x16B3748, 3_000_000, 731))
print(json.dumps({
    "file": pgrepl.__file__,
    "impl": pgrepl.__impl__,
    "version": pgrepl.__version__,
    "lsn": str(pgrepl.Lsn("1/F73E0220")),
    "keepalive": [str(first.wal_end), first.server_time, first.reply_requested],
    "wal": [second.wal_start, second.wal_end, bytes(second).decode()],
    "begin": [str(truncate.final_lsn), truncate.xid],
}))
"""


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in an environment that holds no build settings but the ones given, and one that
    saves time: nothing of what is built here is measured."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(BUILD_VARIABLES)}
    given = clean | {"CFLAGS": "-O0"} | variables
    return subprocess.run(command, cwd=cwd, env=given, text=True, capture_output=True, check=False)


def succeed(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a command that must succeed; return all that it said."""
    result = run(*command, cwd=cwd, **variables)
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    return said


def pip_wheel(sdist: Path, into: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Build a wheel from the sdist with the tools that are installed here; no registry is asked."""
    return run(
        *(sys.executable, "-m", "pip", "wheel", "--verbose", "--no-cache-dir", "--no-index"),
        *("--no-deps", "--no-build-isolation", "--wheel-dir", into, sdist),
        cwd=into,
        **variables,
    )


def only(folder: Path, pattern: str) -> Path:
    """Return the one file there must be."""
    (path,) = folder.glob(pattern)
    return path


class Installation:
    """A virtual environment with the package alone; what the package needs is lent to it."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=os.name != "nt", with_pip=False)
        self.folder = folder
        binaries = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = binaries / Path(sys.executable).name
        self.script = binaries / "pgrepl"
        needed = importlib.util.find_spec("asn1crypto")
        assert needed is not None and needed.origin is not None
        lender = Path(needed.origin).parents[1]
        (self.site_packages() / "lent.pth").write_text(f"{lender}\n")

    def site_packages(self) -> Path:
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        return Path(succeed(self.python, "-c", code, cwd=self.folder).strip())

    def install(self, artefact: Path, **variables: str) -> str:
        """Install the artefact; return what pip said.

        The lent packages are seen by pip, and the development install of the package with them:
        without --ignore-installed it would be taken for an older version to be removed.
        """
        return succeed(
            *(sys.executable, "-m", "pip", "--python", self.python, "install", "--verbose"),
            *("--no-cache-dir", "--no-index", "--no-deps", "--ignore-installed"),
            *("--no-build-isolation", artefact),
            cwd=self.folder,
            **variables,
        )

    def probe(self, **variables: str) -> dict[str, Any]:
        """Use the package a little, in a process that cannot see the source tree."""
        said = succeed(self.python, "-I", "-c", PROBE, cwd=self.folder, **variables)
        values: dict[str, Any] = json.loads(said)
        assert Path(values.pop("file")).is_relative_to(self.folder)
        return values


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("source") / "pgrepl"
    anywhere = shutil.ignore_patterns(*GENERATED)

    def generated(folder: str, names: list[str]) -> set[str]:
        at_the_top = GENERATED_AT_THE_TOP if Path(folder) == PROJECT else set[str]()
        return anywhere(folder, names) | at_the_top

    shutil.copytree(PROJECT, copy, ignore=generated, symlinks=True)
    return copy


@pytest.fixture(scope="module")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("sdist")
    succeed(
        *(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", into, tree),
        cwd=into,
    )
    return only(into, "pgrepl-*.tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("wheel")
    result = pip_wheel(sdist, into, PGREPL_REQUIRE_EXT="1")
    assert result.returncode == 0, result.stdout + result.stderr
    return only(into, "pgrepl-*.whl")


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    folder = tmp_path / "environment"
    yield Installation(folder)
    shutil.rmtree(folder)


def files_below(root: Path, *folders: str) -> set[PurePosixPath]:
    """Return every file of those folders, by its path from the root."""
    return {
        PurePosixPath(path.relative_to(root).as_posix())
        for folder in folders
        for path in (root / folder).rglob("*")
        if path.is_file()
    }


def sdist_names(sdist: Path) -> set[PurePosixPath]:
    with tarfile.open(sdist) as archive:
        files = [PurePosixPath(member.name) for member in archive if member.isfile()]
    return {PurePosixPath(*path.parts[1:]) for path in files}


def wheel_names(wheel: Path) -> set[PurePosixPath]:
    with zipfile.ZipFile(wheel) as archive:
        return {PurePosixPath(name) for name in archive.namelist() if not name.endswith("/")}


def test_sdist_carries_every_source(sdist: Path, tree: Path) -> None:
    expected = files_below(tree, "pgrepl", "src_c", "tests", "benchmarks", "examples")
    assert {path.suffix for path in expected} >= SOURCES | {".py", ".pyi", ".typed"}
    expected |= {PurePosixPath(n) for n in ("LICENSE", "Makefile", "pyproject.toml", "setup.py")}
    assert expected - sdist_names(sdist) == set()


def test_sdist_carries_nothing_generated(sdist: Path, tree: Path) -> None:
    ours = files_below(tree, ".")
    made_by_setuptools = {"PKG-INFO", "setup.cfg"}
    strangers = {
        path
        for path in sdist_names(sdist) - ours
        if path.name not in made_by_setuptools and path.parts[0] != "pgrepl.egg-info"
    }
    assert strangers == set()


def test_wheel_carries_the_package_and_no_sources(wheel: Path, tree: Path) -> None:
    names = wheel_names(wheel)
    assert {path for path in names if path.suffix in SOURCES} == set()
    package = {path for path in files_below(tree, "pgrepl") if path.suffix not in SOURCES}
    assert PurePosixPath("pgrepl/py.typed") in package
    assert package - names == set()
    dist_info = f"{wheel.name.split('-cp')[0]}.dist-info"
    assert {path.parts[0] for path in names} == {"pgrepl", dist_info}


def test_wheel_carries_one_extension_for_each_stage(wheel: Path, tree: Path) -> None:
    stages = {path.stem for path in (tree / "pgrepl/codec/_native").glob("*.pyx")}
    extensions = [path for path in wheel_names(wheel) if path.suffix in {".so", ".pyd"}]
    assert {path.parent.as_posix() for path in extensions} == {"pgrepl/codec/_native"}
    assert sorted(path.name.split(".")[0] for path in extensions) == sorted(stages)


def test_metadata_of_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    requirements = metadata.get_all("Requires-Dist", [])
    assert [r for r in requirements if "extra ==" not in r] == ["asn1crypto>=1.5.1"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"


def decoded(impl: str, artefact: Path) -> dict[str, Any]:
    """What the probe must find, whichever twin runs."""
    return {
        "impl": impl,
        "version": artefact.name.removesuffix(".tar.gz").split("-")[1],
        "lsn": "1/F73E0220",
        "keepalive": ["0/16B3748", 1_000_000, True],
        "wal": [0x16B3700, 0x16B3705, "hello"],
        "begin": ["0/16B3748", 731],
    }


def test_installed_wheel_runs_on_the_c_core(wheel: Path, installation: Installation) -> None:
    installation.install(wheel)
    assert installation.probe() == decoded("c", wheel)
    assert installation.probe(PGREPL_IMPL="python") == decoded("python", wheel)
    assert installation.script.with_suffix(".exe" if os.name == "nt" else "").is_file()


@needs_cc
@pytest.mark.parametrize("refuses", ["*", "*pgr_wal.c*"], ids=["every file", "one stage"])
def test_install_with_a_failing_compiler_is_pure_and_says_so(
    refuses: str, sdist: Path, installation: Installation, tmp_path: Path
) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text(f'#!/bin/sh\ncase "$*" in {refuses}) exit 1;; esac\nexec cc "$@"\n')
    compiler.chmod(0o755)
    said = installation.install(sdist, CC=str(compiler))
    assert "this is the pure-Python install" in said
    assert installation.probe() == decoded("python", sdist)
    assert list(installation.site_packages().rglob("pgrepl/**/*.so")) == []


@needs_cc
def test_asking_a_pure_install_for_the_c_core_is_an_error(
    sdist: Path, installation: Installation
) -> None:
    installation.install(sdist, **NO_COMPILER)
    result = run(
        *(installation.python, "-I", "-c", "import pgrepl"),
        cwd=installation.folder,
        PGREPL_IMPL="c",
    )
    assert result.returncode != 0
    last = result.stderr.rstrip().splitlines()[-1]
    assert last.startswith("ImportError") and "PGREPL_IMPL" in last


@needs_cc
def test_required_extensions_make_a_failed_build_fail(sdist: Path, tmp_path: Path) -> None:
    result = pip_wheel(sdist, tmp_path, PGREPL_REQUIRE_EXT="1", **NO_COMPILER)
    assert result.returncode != 0
    assert NO_COMPILER["CC"] in result.stdout + result.stderr
    assert list(tmp_path.glob("*.whl")) == []


def test_pure_wheel_fits_every_platform(
    sdist: Path, tmp_path: Path, installation: Installation
) -> None:
    result = pip_wheel(sdist, tmp_path, PGREPL_PURE="1")
    assert result.returncode == 0, result.stdout + result.stderr
    wheel = only(tmp_path, "pgrepl-*-py3-none-any.whl")
    assert {path for path in wheel_names(wheel) if path.suffix in {".so", ".pyd"}} == set()
    installation.install(wheel)
    assert installation.probe() == decoded("python", wheel)


def test_pure_and_required_contradict_each_other(sdist: Path, tmp_path: Path) -> None:
    result = pip_wheel(sdist, tmp_path, PGREPL_PURE="1", PGREPL_REQUIRE_EXT="1")
    assert result.returncode != 0
    assert "unset one of the two" in result.stdout + result.stderr
