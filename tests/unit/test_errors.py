"""Errors: who is to blame, what they carry, and that they are safe to print and to pass around."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest

import pgrepl
from pgrepl import errors
from pgrepl.codec.faults import Fault, fault_error
from pgrepl.errors import server_error

FIELDS = {
    "severity": "ERROR",
    "sqlstate": "42704",
    "message": 'replication slot "s" does not exist',
    "detail": "It was never made.",
    "hint": "Make it.",
    "routine": "ReplicationSlotAcquire",
}

SAMPLES: list[errors.Error] = [
    errors.UsageError("expected sense, got none"),
    errors.ConnectionFailed("expected a server, got silence"),
    errors.TLSError("expected TLS, got none"),
    errors.AuthenticationError("expected a password, got none"),
    errors.ProtocolError("expected a tag, got another", tag=b"x", offset=1),
    errors.DecodeError("expected a field, got none", tag=b"I", offset=7, lsn=pgrepl.Lsn(1)),
    errors.ServerError(FIELDS),
    errors.AuthenticationRejected(FIELDS | {"sqlstate": "28P01"}),
    errors.SlotExists(FIELDS | {"sqlstate": "42710"}),
    errors.SlotNotFound(FIELDS),
    errors.SpoolError("expected room, got none"),
    errors.WalStorageError("expected room, got none"),
    errors.BackupStorageError("expected room, got none"),
    errors.SlotInUse(
        FIELDS | {"sqlstate": "55006", "message": 'replication slot "s" is active for PID 4711'}
    ),
    errors.SlotInvalidated(FIELDS | {"sqlstate": "55000"}, reason="wal_removed"),
    errors.SlotGap(
        FIELDS | {"sqlstate": "55000"}, wanted=pgrepl.Lsn(1), available=pgrepl.Lsn("1/F73E0220")
    ),
    errors.PublicationNotFound(FIELDS, names=["p", "q"]),
    errors.SystemMismatch(FIELDS | {"sqlstate": "55000"}, expected=("73", 1), got=("74", 2)),
    errors.ServerShutdown(FIELDS | {"severity": "FATAL", "sqlstate": "57P01"}),
]


def test_there_is_a_sample_of_every_error_and_all_are_public() -> None:
    classes = {
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.Error)
    }
    assert classes == {type(sample) for sample in SAMPLES} | {errors.Error}
    assert {each.__name__ for each in classes} <= set(pgrepl.__all__)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda e: type(e).__name__)
def test_errors_survive_copies_and_pickles(error: errors.Error) -> None:
    twins = [
        pickle.loads(pickle.dumps(error, protocol))
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    ]
    for twin in (*twins, copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))
        assert twin.retryable == error.retryable


def test_a_timeout_is_no_error_of_ours() -> None:
    # It leaves the connection as it was, so that "except pgrepl.Error" must not catch it.
    assert not issubclass(errors.Error, OSError)
    assert not issubclass(TimeoutError, errors.Error)


def test_blame() -> None:
    assert issubclass(errors.DecodeError, errors.ProtocolError)
    assert issubclass(errors.AuthenticationRejected, errors.AuthenticationError)
    for kind in (
        errors.AuthenticationRejected,
        errors.PublicationNotFound,
        errors.ServerShutdown,
        errors.SlotGap,
        errors.SlotInUse,
        errors.SlotInvalidated,
        errors.SlotNotFound,
        errors.SystemMismatch,
    ):
        assert issubclass(kind, errors.ServerError)
    assert not issubclass(errors.ProtocolError, errors.ServerError)


def test_a_server_error_tells_what_the_server_sent() -> None:
    error = errors.ServerError(FIELDS)
    assert error.sqlstate == "42704"
    assert error.severity == "ERROR"
    assert error.message == 'replication slot "s" does not exist'
    assert (error.detail, error.hint) == ("It was never made.", "Make it.")
    assert error.fields == FIELDS
    assert str(error) == (
        'ERROR 42704: replication slot "s" does not exist\n'
        "DETAIL: It was never made.\nHINT: Make it."
    )


def test_a_server_error_without_any_field() -> None:
    error = server_error({})
    assert type(error) is errors.ServerError
    assert (error.sqlstate, error.severity, error.message) == ("", "", "")
    assert (error.detail, error.hint) == (None, None)
    assert str(error) == "ERROR ?????: (the server sent no message)"


def test_the_fields_are_a_copy() -> None:
    fields = dict(FIELDS)
    error = errors.ServerError(fields)
    fields["message"] = "changed"
    assert error.message == FIELDS["message"]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"sqlstate": "28P01"}, errors.AuthenticationRejected),
        ({"sqlstate": "28000"}, errors.AuthenticationRejected),
        ({"sqlstate": "57P01"}, errors.ServerShutdown),
        ({"sqlstate": "57P02"}, errors.ServerShutdown),
        ({"sqlstate": "55000", "routine": "exec_replication_command"}, errors.ServerShutdown),
        ({"sqlstate": "57P03"}, errors.ServerError),
        ({"sqlstate": "57014"}, errors.ServerError),
        ({"sqlstate": "42704", "routine": "ReplicationSlotAcquire"}, errors.SlotNotFound),
        ({"sqlstate": "42710", "routine": "ReplicationSlotCreate"}, errors.SlotExists),
        ({"sqlstate": "42710", "routine": "CreatePublication"}, errors.ServerError),
        ({"sqlstate": "42704", "routine": "get_publication_oid"}, errors.PublicationNotFound),
        ({"sqlstate": "42704", "routine": "GetPublicationByName"}, errors.PublicationNotFound),
        ({"sqlstate": "42704", "routine": "get_object_address"}, errors.ServerError),
        ({"sqlstate": "42704"}, errors.ServerError),
        ({"sqlstate": "55006", "routine": "ReplicationSlotDropAcquired"}, errors.SlotInUse),
        ({"sqlstate": "55006", "routine": "DropDatabase"}, errors.ServerError),
        ({"sqlstate": "42P01"}, errors.ServerError),
        ({"message": "28P01"}, errors.ServerError),
        ({"sqlstate": "55000"}, errors.ServerError),
        ({"sqlstate": "55000", "detail": 'due to "wal_removed".'}, errors.ServerError),
    ],
)
def test_the_class_of_a_server_error(
    fields: dict[str, str], kind: type[errors.ServerError]
) -> None:
    assert type(server_error(fields)) is kind


# As the servers sent them, 14 to 18, but for the words of another language.
@pytest.mark.parametrize(
    ("routine", "detail", "reason"),
    [
        ("ReplicationSlotAcquire", 'This replication slot … due to "wal_removed".', "wal_removed"),
        ("ReplicationSlotAcquire", "Dieser Slot wurde ungültig: »idle_timeout«.", "idle_timeout"),
        ("ReplicationSlotAlter", 'due to "wal_level_insufficient".', "wal_level_insufficient"),
        ("ReplicationSlotAcquire", 'due to "a_reason_of_tomorrow".', "a_reason_of_tomorrow"),
        ("CreateDecodingContext", "This slot … exceeded the maximum reserved size.", None),
        ("CreateDecodingContext", "Dieser Slot ist ungültig.", None),
        ("StartLogicalReplication", "This slot … exceeded the maximum reserved size.", None),
    ],
)
def test_a_slot_that_the_server_has_given_up(routine: str, detail: str, reason: str | None) -> None:
    error = server_error({"sqlstate": "55000", "routine": routine, "detail": detail})
    assert isinstance(error, errors.SlotInvalidated)
    assert error.reason == reason
    assert error.retryable is False


@pytest.mark.parametrize(
    "fields",
    [
        # A physical slot, one of another database: no detail.
        {"routine": "CreateDecodingContext"},
        # One that is being synchronized from the primary.
        {"routine": "CreateDecodingContext", "detail": "This slot …", "hint": "Specify another."},
        {"routine": "ReplicationSlotAcquire"},
        {"routine": "ReplicationSlotAcquire", "detail": "The slot is reserved."},
        {"routine": "CheckLogicalDecodingRequirements", "detail": "due to wal_removed"},
    ],
)
def test_a_slot_in_another_wrong_state(fields: dict[str, str]) -> None:
    assert type(server_error({"sqlstate": "55000", **fields})) is errors.ServerError


@pytest.mark.parametrize(
    ("message", "names"),
    [
        ('publication "p" does not exist', ("p",)),
        ('publication "a "b" c" does not exist', ('a "b" c',)),
        ('publication " p " does not exist', (" p ",)),
        ("Publikation »p« existiert nicht", ("p",)),
        ("la publication «\u00a0p q\u00a0» n'existe pas", ("p q",)),
        ("публикация “p” не существует", ("p",)),
        ("there is none", ()),
        ("", ()),
    ],
)
def test_which_publication_is_missing(message: str, names: tuple[str, ...]) -> None:
    error = server_error(
        {"sqlstate": "42704", "routine": "get_publication_oid", "message": message}
    )
    assert isinstance(error, errors.PublicationNotFound)
    assert error.names == names
    assert error.retryable is False


NOT_YET = {"sqlstate": "42704", "routine": "get_publication_oid", "message": 'no "p"'}


@pytest.mark.parametrize(
    ("where", "lsn"),
    [
        ('slot "s 1/2", plugin "p", in the change callback, associated LSN 0/3618F00', 0x3618F00),
        ("Slot »s«, im Änderungs-Callback, zugehörige LSN 1F/0361", (0x1F << 32) + 0x361),
        ("a function", None),
    ],
)
def test_at_which_change_a_publication_did_not_exist(where: str, lsn: int | None) -> None:
    error = server_error(NOT_YET | {"where": where})
    assert isinstance(error, errors.PublicationNotFound)
    assert error.lsn == lsn
    assert "as of each change" in (error.hint or "")


def test_a_command_that_names_no_publication_has_no_change() -> None:
    error = server_error(NOT_YET)
    assert isinstance(error, errors.PublicationNotFound)
    assert (error.lsn, error.hint) == (None, None)


def test_what_an_error_carries() -> None:
    gap = errors.SlotGap({}, wanted=pgrepl.Lsn(1), available=pgrepl.Lsn(2))
    assert (gap.wanted, gap.available) == (1, 2)
    mismatch = errors.SystemMismatch({}, expected=("73", 2), got=("73", 1))
    assert (mismatch.expected, mismatch.got) == (("73", 2), ("73", 1))
    assert errors.PublicationNotFound({}, names=iter("pq")).names == ("p", "q")
    assert errors.SlotInvalidated({}).reason is None


# What a replication session can end with, or be refused with, and why another try may help or not.
LATER = {
    "08000": "the connection, not what was asked",
    "08003": "the same",
    "08006": "the same",
    "08P01": "a pooler's word for all its troubles: no server at the moment, waited too long",
    "25P03": "idle_in_transaction_session_timeout: a transaction of ours was idle, this time",
    "25P04": "transaction_timeout: this time it took too long",
    "40001": "a conflict with other transactions, or with the recovery of a standby",
    "40P01": "a deadlock: one of several was chosen to give way",
    "53000": "resources that others may give back",
    "53100": "the disk is full, of what is spilled for instance, which goes again",
    "53200": "out of memory",
    "53300": "connections or WAL senders: others end",
    "53400": "slots: others are dropped",
    "55006": "the slot is in use, perhaps by our own session that has not ended yet",
    "55P03": "lock_timeout: somebody held a lock that a catalogue's reader needs",
    "57P01": "the server shuts down or restarts, or somebody ended this session",
    "57P02": "it crashed, and recovers",
    "57P03": "it starts up or shuts down",
    "57P05": "idle_session_timeout: the session waited for a command",
    "72000": "the snapshot is too old; the next one is not",
}
NEVER = {
    "": "nothing is known of it",
    "0": "no SQLSTATE",
    "0A000": "the server, or its version, cannot do it",
    "22021": "bytes that are no text in the client's encoding come again",
    "22P05": "a character that the client's encoding lacks comes again",
    "22023": "an option or a setting has no such value",
    "25001": "inside of a transaction block: the same program does the same",
    "25006": "a standby, or read-only: another server is meant",
    "25P02": "the transaction has failed before; the first error says why",
    "28000": "pg_hba.conf, or the role: somebody has to let it in",
    "28P01": "a wrong password stays wrong, and tries lock accounts",
    "38000": "an output plugin failed on these changes, which come again",
    "39000": "likewise",
    "3D000": "there is no such database",
    "40003": "whether it was done is not known, so that it may be done twice",
    "42501": "a privilege has to be given",
    "42601": "the command is wrong",
    "42602": "the slot's name is none",
    "42704": "the slot or the publication has to be made",
    "42710": "the slot exists already",
    "42P01": "a table has to be made",
    "54000": "a limit of the program: the same row comes again",
    "55000": "the slot is lost, of another kind or database, or wal_level is too low",
    "55P02": "a setting that cannot be changed now, nor at the start of the next session",
    "57000": "somebody intervened",
    "57014": "somebody cancelled it, or statement_timeout did, which cannot be told apart",
    "57P04": "the database was dropped",
    "58000": "the system's error, of the server's own files",
    "58030": "a disk that cannot be read",
    "58P01": "WAL or a file is gone",
    "F0000": "the server's configuration file is wrong",
    "P0001": "an event trigger says no",
    "XX000": "the server's own fault, which is deterministic as far as anybody knows",
    "XX001": "corrupted data",
    "XX002": "a corrupted index",
}


@pytest.mark.parametrize("sqlstate", LATER)
def test_what_may_succeed_later(sqlstate: str) -> None:
    assert server_error({"sqlstate": sqlstate}).retryable is True


@pytest.mark.parametrize("sqlstate", NEVER)
def test_what_needs_somebody_to_act(sqlstate: str) -> None:
    assert server_error({"sqlstate": sqlstate}).retryable is False


def test_what_a_pooler_does_not_let_through_comes_again() -> None:
    message = "unsupported startup parameter: extra_float_digits"
    assert server_error({"sqlstate": "08P01", "message": message}).retryable is False


@pytest.mark.parametrize("error", SAMPLES, ids=lambda e: type(e).__name__)
def test_every_error_says_whether_it_may_succeed_later(error: errors.Error) -> None:
    later = (errors.ConnectionFailed, errors.ServerShutdown, errors.SlotInUse)
    assert error.retryable is isinstance(error, later)


@pytest.mark.parametrize(
    ("message", "pid"),
    [
        ('replication slot "s" is active for PID 4711', 4711),
        ('replication slot "5" is active', None),
        ("", None),
        ('replication slot "s" is active for PID \u0664', None),  # a digit, but not ASCII's
        ('replication slot "a 12" is active for PID 7', 7),
    ],
)
def test_who_holds_a_slot(message: str, pid: int | None) -> None:
    assert errors.SlotInUse({"message": message}).pid == pid


# What to do about it: as servers of 15 and 18 sent it, but for the words of another language.
LEVEL = {"sqlstate": "55000", "routine": "CheckLogicalDecodingRequirements"}


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        (LEVEL | {"message": 'logical decoding requires "wal_level" >= "logical"'}, "ALTER SYSTEM"),
        (LEVEL | {"message": "Dekodierung erfordert wal_level >= logical"}, "restart that server"),
        (LEVEL | {"message": "logical decoding requires a database connection"}, None),
        (LEVEL | {"sqlstate": "0A000", "message": "not in recovery"}, "connect to the primary"),
        ({"sqlstate": "53400", "routine": "ReplicationSlotCreate"}, "pg_drop_replication_slot"),
        ({"sqlstate": "53400", "routine": "SomethingElse"}, None),
        ({"sqlstate": "42710", "routine": "ReplicationSlotCreate"}, "if_not_exists=True"),
        ({"sqlstate": "42710", "routine": "CreatePublication"}, None),
        ({"sqlstate": "22021"}, "client_encoding=SQL_ASCII"),
        ({"sqlstate": "22P05", "routine": "report_untranslatable_char"}, "row.raw()"),
        ({"sqlstate": "42704", "routine": "ReplicationSlotAcquire"}, None),
    ],
)
def test_what_to_do_about_it(fields: dict[str, str], hint: str | None) -> None:
    error = server_error(fields)
    assert (error.hint is None) if hint is None else (hint in (error.hint or ""))
    assert {name: error.fields[name] for name in fields} == fields


def test_what_the_server_advises_stands_first_and_ours_once() -> None:
    fields = {"sqlstate": "53400", "routine": "ReplicationSlotCreate", "hint": "Free one."}
    error = server_error(fields)
    assert (error.hint or "").startswith("Free one.\n")
    assert "\nHINT: Free one.\n" in str(error)
    assert server_error(error.fields).hint == error.hint


def test_bytes_that_are_no_utf8_are_shown_as_bytes() -> None:
    message = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert str(server_error({"message": message})).endswith(r"caf\xe9")


def test_what_a_server_says_cannot_steer_a_terminal() -> None:
    hostile = "\x1b[2J\x1b]0;gone\x07 \x9b31m \r\u202e\u2066 \ud800 \U000e0041"
    error = server_error({"severity": hostile, "message": hostile, "hint": hostile, "detail": "a"})
    assert all(c.isprintable() or c == "\n" for c in str(error))
    assert r"\x1b[2J" in str(error)
    assert error.message == hostile  # the field itself is what was sent


# The words for a fault, which both twins of the codec share.


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_has_words_that_say_what_was_expected_and_what_came(fault: Fault) -> None:
    error = fault_error(fault, ord("d"), 3, 25, 7, lsn=2)
    assert str(error).startswith("expected ")
    assert "got " in str(error) or fault in (Fault.COPY_EMPTY, Fault.LOGICAL_EMPTY)
    assert "offset 3" in str(error)
    assert error.offset == 3
    if fault < Fault.LOGICAL_EMPTY:
        assert type(error) is errors.ProtocolError
        assert error.tag == b"d"
    else:
        assert isinstance(error, errors.DecodeError)
        assert error.tag == (None if fault is Fault.LOGICAL_EMPTY else b"d")
        assert error.lsn == 2
        assert "LSN 0/2" in str(error)


@pytest.mark.parametrize(
    ("byte", "shown"), [(ord("x"), "'x'"), (7, "0x07"), (0xFF, "0xff"), (0x20, "0x20"), (0, "0x00")]
)
def test_a_byte_is_shown_so_that_one_can_read_it(byte: int, shown: str) -> None:
    assert f"got {shown} " in str(fault_error(Fault.FRAME_TAG, byte, 0, 0, byte))


def test_the_core_counts_faults_as_python_does() -> None:
    header = Path(__file__).parents[2] / "src_c" / "pgr_base.h"
    if not header.exists():
        pytest.skip("an installed package has no C sources")
    declared = re.findall(r"PGR_FAULT_(\w+) = (\d+)", header.read_text())
    assert len(declared) > 10
    in_c = {name: int(number) for name, number in declared if name != "NONE"}
    # From 40 on Python knows faults that only several messages together have.
    assert in_c == {fault.name: fault.value for fault in Fault if fault < 40}
