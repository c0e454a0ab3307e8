"""Builds the C core; everything else about the package is said in pyproject.toml.

Law: an install always works. The extensions are optional: where one of them cannot be built, none
is kept, so that no process runs half of each twin, and the package falls back to its pure-Python
twin. Where a pure install would be a defect, in a wheel or in a test run, the environment says so
and the failure stays a failure:

``PGREPL_REQUIRE_EXT=1`` or ``CIBUILDWHEEL=1``
    a build without the extensions fails.
``PGREPL_PURE=1``
    no extension is built at all; a wheel is then tagged ``py3-none-any``.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError, CompileError

C_SOURCES = {
    "frames": ["pgr_frames.c"],
    "wal": ["pgr_wal.c", "pgr_frames.c"],
    "pgoutput": ["pgr_pgoutput.c"],
    "rows": [],
    "changes": [],
    "spool": ["pgr_pgoutput.c"],
    "values": ["pgr_values.c"],
}
"""The stages of the codec, and the files of ``src_c`` that each one is compiled with."""

CYTHON_DIRECTIVES = {
    "language_level": "3",
    "boundscheck": False,
    "wraparound": False,
    # What can be pickled says how; Cython's own way would let anybody set any field.
    "auto_pickle": False,
}

PURE = os.environ.get("PGREPL_PURE") == "1"
REQUIRED = "1" in (os.environ.get("PGREPL_REQUIRE_EXT"), os.environ.get("CIBUILDWHEEL"))

PURE_NOTICE = """\
pgrepl: the C core was not built: {reason}
pgrepl: this is the pure-Python install: complete, but slower (`pgrepl.__impl__` says which runs).
pgrepl: for the C core, provide a C compiler and Python's headers, and install again with pip's
pgrepl: --no-cache-dir; PGREPL_REQUIRE_EXT=1 turns this notice into an error.
"""


def extensions() -> list[Extension]:
    """One extension module for each stage, all from paths relative to this folder."""
    headers = sorted(path.as_posix() for path in Path("src_c").glob("*.h"))
    return [
        Extension(
            f"pgrepl.codec._native.{stage}",
            [f"pgrepl/codec/_native/{stage}.pyx", *(f"src_c/{name}" for name in c_sources)],
            include_dirs=["src_c"],
            depends=headers,
            optional=not REQUIRED,
        )
        for stage, c_sources in C_SOURCES.items()
    ]


def generate_c(extension: Extension) -> list[str]:
    """Translate the extension's Cython source, and return the C sources to compile.

    Only the sources are taken over from what ``cythonize`` returns, because it copies an extension
    without its ``optional``. The C goes to ``build``: the source tree holds nothing generated.

    Raises ``CompileError`` where Cython is missing or refuses the source.
    """
    try:
        from Cython.Build import cythonize
        from Cython.Compiler.Errors import CompileError as CythonError
    except ImportError as error:
        raise CompileError(f"Cython cannot be imported ({error})") from error
    try:
        (translated,) = cythonize(
            [extension],
            build_dir="build/cython",
            compiler_directives=CYTHON_DIRECTIVES,
            quiet=True,
        )
    except CythonError as error:
        raise CompileError(f"Cython refused {extension.sources[0]}") from error
    return translated.sources


class BuildNative(build_ext):
    """Builds every extension or keeps none of them."""

    def build_extensions(self) -> None:
        flags = (
            ["/O2", "/std:c11"]
            if self.compiler.compiler_type == "msvc"
            else ["-O3", "-std=c11", "-fvisibility=hidden"]
        )
        try:
            for extension in self.extensions:
                extension.extra_compile_args = flags
                extension.sources = generate_c(extension)
                self.build_extension(extension)
        except (BaseError, CCompilerError) as error:
            if REQUIRED:
                raise
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            print(PURE_NOTICE.format(reason=error), file=sys.stderr)


if PURE and REQUIRED:
    sys.exit(
        "pgrepl: PGREPL_PURE=1 asks for a build without the extensions, and PGREPL_REQUIRE_EXT=1 "
        "or CIBUILDWHEEL=1 for one that has them; unset one of the two."
    )

setup(ext_modules=[] if PURE else extensions(), cmdclass={"build_ext": BuildNative})
