"""The writer of the latency race: ``python -m benchmarks.live.writer WAIT``, WAIT being JSON.

It waits until somebody streams the slot, then commits single rows at a steady pace, each with the
moment at which it was sent, and prints how long its own commits took. When the server is late the
next row waits for it, and the moment in that row is a later one: the pace is made good as soon as
that is possible.
"""

from __future__ import annotations

import json
import sys
import time

from .task import WaitTask

_STREAMED = """
    DO $$
    BEGIN
        FOR turn IN 1 .. 3000 LOOP
            IF EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{slot}' AND active) THEN
                RETURN;
            END IF;
            PERFORM pg_sleep(0.01);
        END LOOP;
        RAISE 'nobody streams slot {slot}';
    END $$
    """


def main() -> None:
    task = WaitTask.parse(sys.argv[1])
    commits = []
    with task.session() as session:
        session.query(_STREAMED.format(slot=task.slot))
        clock = time.monotonic_ns
        begin = clock()
        for place in range(task.rows):
            pause = begin + place * 1_000_000_000 // task.rate - clock()
            if pause > 0:
                time.sleep(pause / 1e9)
            sent = clock()
            session.query(f"INSERT INTO {task.publication} VALUES ({1 + place}, {sent})")
            commits.append(clock() - sent)
        seconds = (clock() - begin) / 1e9
    print(json.dumps({"commits": commits[task.warm_up :], "rate": task.rows / seconds}))


if __name__ == "__main__":
    main()
