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
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError, CompileError
from setuptools.modified import newer_group

STAGES = ("wal", "rows", "pgoutput", "values", "spool", "frames", "changes")
"""The stages of the codec, an extension each, those first that take the compiler longest."""

CORE = sorted(path.as_posix() for path in Path("src_c").glob("*.c"))
HEADERS = sorted(path.as_posix() for path in Path("src_c").glob("*.h"))

CYTHON_DIRECTIVES = {
    "language_level": "3",
    "boundscheck": False,
    "wraparound": False,
    # What can be pickled says how; Cython's own way would let anybody set any field.
    "auto_pickle": False,
    # Methods are Python's own descriptors, which check what they are called on; Cython's do not.
    # Those have no signature of their own, so one is written for `inspect`.
    "binding": False,
    "embedsignature": True,
    "embedsignature.format": "clinic",
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
    return [
        Extension(
            f"pgrepl.codec._native.{stage}",
            [f"pgrepl/codec/_native/{stage}.pyx"],
            include_dirs=["src_c"],
            depends=[*HEADERS, *CORE],
            optional=not REQUIRED,
        )
        for stage in STAGES
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
        try:
            self.build_all()
        except (BaseError, CCompilerError) as error:
            if REQUIRED:
                raise
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            print(PURE_NOTICE.format(reason=error), file=sys.stderr)

    def build_all(self) -> None:
        """Translate one extension after another, and compile meanwhile what is translated.

        The compiler takes most of the time, and each run of it is a process.
        """
        workers = self.parallel if type(self.parallel) is int else os.cpu_count()
        with ThreadPoolExecutor(workers) as compilers:
            try:
                core = compilers.submit(self.build_core)
                steps: list[Future[None]] = []
                for extension in self.extensions:
                    extension.sources = generate_c(extension)
                    extension.extra_compile_args = self.flags()
                    steps.append(compilers.submit(self.build_with, core, extension))
                for step in steps:
                    step.result()
            except BaseException:
                compilers.shutdown(cancel_futures=True)
                raise

    def build_core(self) -> str:
        """Compile src_c once, and return the path of the static library that all stages link."""
        folder = Path(self.build_temp)
        library = folder / self.compiler.library_filename("pgr")
        if self.force or newer_group([*CORE, *HEADERS], str(library)):
            objects = self.compiler.compile(
                CORE, str(folder), include_dirs=["src_c"], extra_postargs=self.flags()
            )
            library.unlink(missing_ok=True)  # `ar` would add to it
            self.compiler.create_static_lib(objects, "pgr", str(folder))
        return str(library)

    def build_with(self, core: "Future[str]", extension: Extension) -> None:
        extension.extra_objects = [core.result()]
        self.build_extension(extension)

    def flags(self) -> Sequence[str]:
        """What everything is compiled with; of what CFLAGS says otherwise the last word counts."""
        if self.compiler.compiler_type == "msvc":
            return ["/O2", "/std:c11"]
        # Python's own flags ask for symbols of the debugger, a quarter of the compiler's time.
        ours = ["-O3", "-g0", "-std=c11", "-fvisibility=hidden"]
        return [*ours, *shlex.split(os.environ.get("CFLAGS", ""))]


if PURE and REQUIRED:
    sys.exit(
        "pgrepl: PGREPL_PURE=1 asks for a build without the extensions, and PGREPL_REQUIRE_EXT=1 "
        "or CIBUILDWHEEL=1 for one that has them; unset one of the two."
    )

setup(ext_modules=[] if PURE else extensions(), cmdclass={"build_ext": BuildNative})
