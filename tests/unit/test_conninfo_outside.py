"""What connection options do outside of the process: nothing is loaded, run or written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

# Each option in turn has the value ``FOLDER/Zq7-name``; what happens with that value is told.
PROGRAM = """
import json, os, sys
import pgrepl
from pgrepl.conninfo.keywords import KEYWORDS

folder, seen, refused = sys.argv[1], [], []
sys.addaudithook(lambda event, args: "Zq7" in (said := repr(args)) and seen.append((event, said)))
writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
opened_to_write = lambda event, args: seen.append(("written", repr(args))) if (
    event == "open" and args[2] & writing) else None
sys.addaudithook(opened_to_write)
for name in KEYWORDS:
    value = os.path.join(folder, "Zq7-" + name)
    keywords = {"host": "127.0.0.1", "port": 1, "sslmode": "require", "connect_timeout": 5}
    try:
        pgrepl.connect(**(keywords | {name: value}))
    except pgrepl.Error:
        refused.append(name)
assert refused == list(KEYWORDS)
print(json.dumps([seen, os.listdir(folder)]))
"""


def test_v20_no_option_loads_code_or_has_a_file_written(tmp_path: Path) -> None:
    password_file = tmp_path / "Zq7-passfile"
    password_file.write_text("")
    password_file.chmod(0o600)
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env=environment | {"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    seen, left = json.loads(done.stdout)
    assert left == [password_file.name]
    # It is read, and the host is a folder with a socket.
    events = {event for event, _ in seen}
    assert "open" in events
    assert events <= {"open", "socket.connect"}, seen
