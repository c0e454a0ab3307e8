"""What is loaded, and when: nobody pays for what they do not use."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import pytest

#: Of the package, what `import pgrepl` needs to know which name is where.
EAGER: Final = {"pgrepl", "pgrepl.facade", "pgrepl.moved", "pgrepl.starting"}
HEAVY: Final = ("asyncio", "dataclasses", "decimal", "inspect", "logging", "socket", "ssl")


WITHOUT_C_CORE: Final = """
sys.modules["pgrepl.codec._native"] = None
try:
    import pgrepl
except ImportError as error:
    assert "PGREPL_IMPL" in str(error)
else:
    raise AssertionError("imported without what was demanded")
"""


def loaded_by(code: str, **environment: str) -> set[str]:
    """The modules that a fresh interpreter has loaded for this, beyond what it has without."""
    kept = {name: value for name, value in os.environ.items() if name != "PGREPL_IMPL"}
    # -S: what `site` reads may import anything, an editable install for one.
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; before = set(sys.modules)\n{code}\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    ran = subprocess.run(
        [sys.executable, "-S", "-W", "error", "-c", program],
        *(),
        check=True,
        capture_output=True,
        text=True,
        env=kept | environment,
    )
    return set(ran.stdout.split())


def stand_ins() -> set[str]:
    from pgrepl.moved import MODULES

    return {f"pgrepl.{each}" for each in MODULES}


def test_importing_the_package_loads_its_table_of_names_alone() -> None:
    loaded = loaded_by("import pgrepl")
    assert {each for each in loaded if each.startswith("pgrepl")} == EAGER | stand_ins()
    assert not loaded & {*HEAVY, "typing", "enum", "re", "importlib.metadata"}


@pytest.mark.parametrize("room", ["aio", "basebackup", "physical"])
def test_importing_a_room_loads_its_table_of_names_alone(room: str) -> None:
    loaded = loaded_by(f"import pgrepl; pgrepl.{room}; import pgrepl.{room}")
    ours = {each for each in loaded if each.startswith("pgrepl")}
    assert ours == EAGER | stand_ins() | {f"pgrepl.{room}"}


def test_a_small_name_loads_little() -> None:
    loaded = loaded_by("import pgrepl; pgrepl.Lsn, pgrepl.SlotNotFound")
    ours = {each for each in loaded if each.startswith("pgrepl")} - EAGER - stand_ins()
    assert ours == {"pgrepl.errors", "pgrepl.lsn", "pgrepl.public", "pgrepl.remedies"}
    assert not loaded & set(HEAVY)


def test_the_blocking_flavour_loads_nothing_of_the_other_nor_of_backups() -> None:
    loaded = loaded_by("import pgrepl; pgrepl.connect; pgrepl.Stream; pgrepl.Connection")
    assert not {each for each in loaded if each.partition(".")[0] == "asyncio"}
    ours = {each for each in loaded if each.startswith("pgrepl.")} - stand_ins()
    rooms = {each.split(".")[1] for each in ours}
    assert not rooms & {"aio", "basebackup", "physical", "cli", "doctor", "testing"}
    assert not {each for each in loaded if each.startswith("pgrepl.transport.aio")}


@pytest.mark.parametrize("wanted", ["c", "rust"])
def test_a_twin_that_is_not_there_is_missed_at_once(wanted: str) -> None:
    hidden = "import sys; sys.modules['pgrepl.codec._native'] = None"
    check = (
        "\ntry: import pgrepl\nexcept ImportError as e: assert 'PGREPL_IMPL' in str(e)\nelse: 1/0"
    )
    loaded_by(hidden + check, PGREPL_IMPL=wanted)


def test_the_pure_twin_can_be_asked_for_without_loading_it() -> None:
    loaded = loaded_by("import pgrepl", PGREPL_IMPL="python")
    assert "pgrepl.codec" not in loaded
    loaded = loaded_by("import pgrepl; assert pgrepl.__impl__ == 'python'", PGREPL_IMPL="python")
    assert "pgrepl.codec._pure" in loaded
