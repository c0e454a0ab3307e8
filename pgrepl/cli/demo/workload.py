"""A small shop's day at its database: what the demo's writer does.

Everything that a change stream can bring is in it: inserts, updates (some of the key, some that
leave an out-of-line value alone), deletes, truncates, logical messages, transactions of thousands
of rows, and transactions that are rolled back and must never be seen.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Final, NamedTuple

from ...blocking.connection import Connection, connect
from ...lsn import Lsn
from .ledger import Changes, Ledger

__all__ = ["KINDS", "PUBLICATION", "SCHEMA", "TABLES", "Workload"]

PUBLICATION: Final = "shop"
TABLES: Final = ("customers", "orders", "carts")
KINDS: Final = ("insert", "update", "delete", "truncate")
_LARGE: Final = 5000
"""Rows of a large transaction."""

# The confirmation is too long to stay in its row, so that an update of the status leaves it out.
SCHEMA: Final = f"""
CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL,
    balance numeric(12, 2) NOT NULL,
    preferences jsonb NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE orders (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    customer_id bigint NOT NULL,
    status text NOT NULL DEFAULT 'new',
    total numeric(12, 2) NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    confirmation text
);
ALTER TABLE orders ALTER confirmation SET STORAGE EXTERNAL;
CREATE INDEX ON orders (placed_at) WHERE status = 'new';
CREATE TABLE carts (
    token uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    items jsonb NOT NULL,
    touched_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE PUBLICATION {PUBLICATION} FOR TABLE {", ".join(TABLES)};
"""

_REGISTER: Final = """
INSERT INTO customers (name, email, balance, preferences)
SELECT name, lower(replace(name, ' ', '.')) || '@example.org', (random() * 500)::numeric(12, 2),
       jsonb_build_object('language', (ARRAY['de', 'en', 'fr', 'pl'])[1 + floor(random() * 4)::int],
                          'newsletter', random() < 0.3)
FROM (SELECT (ARRAY['Ada', 'Alan', 'Barbara', 'Edgar', 'Grace', 'Jim', 'Maria', 'Zoë'])
                 [1 + floor(random() * 8)::int] || ' ' ||
             (ARRAY['Codd', 'Gray', 'Hopper', 'Liskov', 'Lovelace', 'Nowak', 'Stone', 'Turing'])
                 [1 + floor(random() * 8)::int] AS name
      FROM generate_series(1, {n})) AS people
"""
_SOME_CUSTOMERS: Final = """
    (SELECT id FROM customers WHERE id >= (SELECT (random() * max(id))::bigint FROM customers)
     ORDER BY id LIMIT {n})
"""
_ORDER: Final = f"""
INSERT INTO orders (customer_id, total, confirmation)
SELECT id, (5 + random() * 200)::numeric(12, 2),
       CASE WHEN random() < 0.5 THEN repeat(md5(random()::text), 80) END
FROM {_SOME_CUSTOMERS} AS chosen
"""
_PAY: Final = f"""
UPDATE customers SET balance = balance - 10.5 WHERE id IN {_SOME_CUSTOMERS}
"""
_SHIP: Final = """
UPDATE orders SET status = 'shipped' WHERE id IN
    (SELECT id FROM orders WHERE status = 'new' ORDER BY placed_at LIMIT {n})
"""
_CANCEL: Final = """
DELETE FROM orders WHERE id IN
    (SELECT id FROM orders WHERE status = 'new' ORDER BY placed_at DESC LIMIT {n})
"""
_FILL_CARTS: Final = """
INSERT INTO carts (items)
SELECT jsonb_build_array(jsonb_build_object('article', 1000 + g, 'count', 1 + g % 3))
FROM generate_series(1, {n}) AS g
"""
_ROTATE_TOKENS: Final = """
UPDATE carts SET token = gen_random_uuid(), touched_at = clock_timestamp() WHERE token IN
    (SELECT token FROM carts LIMIT {n})
"""
_ABANDON_CARTS: Final = "DELETE FROM carts WHERE token IN (SELECT token FROM carts LIMIT {n})"
_RAISE_BALANCES: Final = """
UPDATE customers SET balance = balance + 0.01 WHERE id IN
    (SELECT id FROM customers ORDER BY id LIMIT {n})
"""


class _Statement(NamedTuple):
    table: str
    sql: str


def _message(prefix: str, text: str) -> _Statement:
    return _Statement("", f"SELECT pg_logical_emit_message(true, '{prefix}', '{text}')")


# What happens how often, relative to the rest; {n} is the number of rows.
_EVERYDAY: Final[dict[tuple[_Statement, ...], int]] = {
    (_Statement("customers", _REGISTER),): 3,
    (_Statement("orders", _ORDER), _Statement("customers", _PAY)): 4,
    (_Statement("orders", _SHIP),): 3,
    (_Statement("orders", _CANCEL),): 1,
    (_Statement("carts", _FILL_CARTS),): 4,
    (_Statement("carts", _ROTATE_TOKENS),): 2,
    (_Statement("carts", _ABANDON_CARTS),): 2,
}
_IMPORT: Final = (_message("import", f"{_LARGE} customers"), _Statement("customers", _REGISTER))
_INTEREST: Final = (_Statement("customers", _RAISE_BALANCES),)
_CLEARANCE: Final = (_Statement("carts", "TRUNCATE carts"),)
# When, as a part of the whole time, and with how many rows.
_APPOINTMENTS: Final = (
    (0.15, _IMPORT, _LARGE),
    (0.30, _CLEARANCE, 0),
    (0.45, _INTEREST, _LARGE),
    (0.60, _IMPORT, _LARGE),
    (0.75, _CLEARANCE, 0),
    (0.90, _INTEREST, _LARGE),
)
_ROLLED_BACK: Final = 0.05


class Workload:
    """Writes for `seconds` in its own thread, `rows_per_second` beside the large transactions.

    `position` is the server's WAL position after the latest commit; `rollbacks` counts what was
    undone; `failure` is what ended the thread early, if anything did.
    """

    def __init__(self, conninfo: str, ledger: Ledger, seconds: float, rows_per_second: int) -> None:
        self.position = Lsn(0)
        self.rollbacks = 0
        self.failure: Exception | None = None
        self._conninfo = conninfo
        self._ledger = ledger
        self._seconds = seconds
        self._rate = rows_per_second
        self._stopping = threading.Event()
        # A daemon, which does not keep the program alive should the server hang.
        self._thread = threading.Thread(target=self._run, name="workload", daemon=True)

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Let it end after the transaction that it is in; wait `timeout` seconds for that."""
        self._stopping.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            with connect(self._conninfo, application_name="pgrepl demo, writer") as connection:
                self._write(connection)
        except Exception as error:
            self.failure = error

    def _write(self, connection: Connection) -> None:
        start = time.monotonic()
        appointments = list(_APPOINTMENTS)
        rows = 0
        while (elapsed := time.monotonic() - start) < self._seconds and not self._stopping.is_set():
            if appointments and elapsed >= appointments[0][0] * self._seconds:
                _, statements, size = appointments.pop(0)
                self._transact(connection, statements, size, "COMMIT")
            elif rows > elapsed * self._rate:
                self._stopping.wait(min(rows / self._rate, self._seconds) - elapsed)
            else:
                rows += self._everyday(connection)

    def _everyday(self, connection: Connection) -> int:
        [statements] = random.choices(list(_EVERYDAY), list(_EVERYDAY.values()))
        size = random.randint(1, max(4, self._rate // 15))
        ending = "ROLLBACK" if random.random() < _ROLLED_BACK else "COMMIT"
        return self._transact(connection, statements, size, ending)

    def _transact(
        self, connection: Connection, statements: tuple[_Statement, ...], size: int, ending: str
    ) -> int:
        """Run one transaction, enter it if it was committed, and return its number of rows."""
        work = [statement.sql.replace("{n}", str(size)) for statement in statements]
        script = ["BEGIN", "SELECT pg_current_xact_id()", *work, ending]
        results = connection.query(";".join([*script, "SELECT pg_current_wal_flush_lsn()"]))
        changes = Changes()
        for statement, result in zip(statements, results[2:-2], strict=True):
            changes[_counted(statement.table, result.tag)] += _rows(result.tag)
        rows = changes.total()
        if ending == "ROLLBACK":
            self.rollbacks += 1
        elif rows:  # a transaction without changes is not streamed
            # The stream has the xid's lower half, as everywhere but in this function.
            self._ledger.commit(int(results[1].rows[0][0] or 0) & 0xFFFFFFFF, +changes)
        self.position = Lsn(results[-1].rows[0][0] or 0)
        return rows


def _counted(table: str, tag: str) -> tuple[str, str]:
    """Return what a statement's tag counts as: a SELECT of ours emits a logical message."""
    kind = tag.partition(" ")[0].lower()
    return ("", "message") if kind == "select" else (table, kind)


def _rows(tag: str) -> int:
    number = tag.rpartition(" ")[2]
    return int(number) if number.isdigit() else 1  # TRUNCATE TABLE
