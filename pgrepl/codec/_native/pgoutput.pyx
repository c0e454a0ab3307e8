"""pgoutput, native: makes the messages of pgrepl/messages.py from what src_c/pgr_pgoutput.c reads.

The core has checked a payload to its last byte before anything is made of it. What a payload can be
at fault for only in the light of others - a relation that was never described, a tuple of another
width - is found here, in the order of the pure twin.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Resize
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetNone
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.string cimport memcpy

from .changes cimport (
    check_widths, flaw_at, flaw_of, lsn_of, make_change, make_message, make_truncate,
    text_of, xid_of
)
from .rows cimport Layout, layout_of
from .sending cimport PYGEN_ERROR, PYGEN_RETURN, PySendResult, let_send
from .slots cimport (
    Slots, all_slots_of, copy_of, new_instance, put, replace, slot, slots_of, track
)
from .spool cimport Writer, kept_of, replay_of, writer_of
from .values cimport Types
from .wal cimport WalBatch, pgr_wal_columns
from .whole cimport seal

from functools import partial

from ...errors import Error, SpoolError, UsageError
from ...lsn import Lsn
from ...messages import (
    Begin,
    BeginPrepare,
    Column,
    Commit,
    CommitPrepared,
    Origin,
    Prepare,
    Relation,
    RollbackPrepared,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    Type,
)
from ..dialect import Dialect
from ..faults import Fault, Flaw, fault_error
from ..relations import Relations
from ..spool import cut_off, mixed
from ..stored import entered


cdef int RELATION_UNKNOWN = Fault.RELATION_UNKNOWN
cdef int STREAM_UNKNOWN = Fault.STREAM_UNKNOWN

# The messages that come by the million; all others are made the ordinary way.
cdef Slots BEGIN = slots_of(Begin, ("final_lsn", "commit_time", "xid"))
cdef Slots COMMIT = slots_of(Commit, ("commit_lsn", "end_lsn", "commit_time"))


cdef enum State:
    READY
    DECODING
    FAILED          # for good: `failed` makes the error, or it was cut off in a message


@cython.final
cdef class Decoder:
    """Decoder(proto_version=1, streaming="off", types=None, typed=True, ordered=False, \
encoding="utf-8")\n--\n
    Decodes the pgoutput payloads of one stream, keeping the relations that they refer to.

    `proto_version` (1 to 4) and `streaming` (``off``, ``on`` or ``parallel``) are what the server
    was asked for by the options of these names. A version has the messages of the earlier ones:
    from 2 on those of streamed transactions, from 3 on those of prepared ones. A StreamAbort can
    come in all of them. Of `streaming`, ``parallel`` alone makes a difference: then a StreamAbort
    tells its position and time.

    Inside of a stream block the server adds an xid to its messages and describes relations to that
    transaction alone, so that payloads must come in their order and from the stream's beginning; a
    stream that begins again, on a new connection or by another call of the SQL function, takes a
    new decoder. With `ordered` a transaction has to begin before its changes, and to end before
    the next one begins; without, changes may come by themselves.

    Values are Python's own, see docs/types.md; `types` says by OID or name how to make others.
    Without `typed` they stay what was sent: `str`, or `bytes` of a column in binary. `encoding` is
    Python's name for what columns sent as text are in; names are read as UTF-8 in any case, and
    their other bytes written as in ``\\xe9``.

    Raises `ValueError` for a version or mode that there is not, or that do not go together, and
    `TypeError` or `ValueError` for `types` that make no sense.
    """

    cdef pgr_stream stream
    cdef object relations       # Relations of layouts
    cdef dict layouts           # those of them that hold outside of stream blocks, by OID
    cdef Layout recent          # the last one used here: rows of one table come in runs
    cdef Types types
    cdef object failed          # makes the error that a fault has led to, or None
    cdef uint64_t lsn           # of the message that is being decoded
    cdef bint has_lsn
    cdef uint64_t ended         # highest end of what can be acknowledged
    cdef object spool           # for the batch that is being decoded, or None
    cdef Writer writer          # of the block that is open and put aside, or None
    cdef Writer keeper          # of the transaction that is open and put aside, or None
    cdef State state
    cdef bint spooled           # whether there ever was one
    cdef uint64_t unsettled     # the end of a streamed transaction whose changes are being read
    cdef uint64_t changes       # how many were decoded or put aside
    cdef uint64_t transactions  # how many have ended
    cdef int64_t time           # of the last one's end
    cdef bint has_time
    cdef bint bare              # Begin and Commit are known, and not made: see at_hand.pxi

    def __cinit__(
        self, proto_version=1, streaming="off", types=None, typed=True, bint ordered=False,
        encoding="utf-8",
    ):
        dialect = Dialect.of(proto_version, streaming)
        self.stream.proto_version = dialect.proto_version
        self.stream.parallel = dialect.parallel
        self.stream.ordered = ordered
        self.relations = Relations()
        self.layouts = self.relations.described
        self.types = Types(types, typed, encoding)

    def feed(self, payload, lsn=None):
        """Decode one message from any bytes-like object or an `XLogData`.

        Raises `DecodeError`, and raises it again for whatever comes after that.
        """
        cdef Py_buffer view
        self.ready()
        if PyBytes_CheckExact(payload):
            # Nobody writes to them, and the caller has them: no view is needed.
            self.place(lsn)
            return self.take(
                <const uint8_t *>PyBytes_AS_STRING(payload), <size_t>PyBytes_GET_SIZE(payload)
            )
        if lsn is None:
            # Messages that are not the last of a record have no position in their header.
            lsn = getattr(payload, "wal_start", None) or None
        PyObject_GetBuffer(exporter(payload), &view, PyBUF_SIMPLE)
        try:
            self.place(lsn)
            return self.take(<const uint8_t *>view.buf, <size_t>view.len)
        finally:
            PyBuffer_Release(&view)

    cdef int place(self, lsn) except -1:
        """Take note of where a message that comes by itself stands; None: nobody says."""
        cdef bint has_lsn = lsn is not None
        cdef uint64_t position = position_of(lsn) if has_lsn else 0
        self.ready()  # still: a position may be a class of Python's
        self.has_lsn = has_lsn
        self.lsn = position
        self.spool = None
        return 0

    def define(self, definitions):
        """Take in what the catalogue says of types, before the relations that use them come."""
        self.types.define(definitions)

    @property
    def delivered(self):
        """The highest position by which something that was decoded can be acknowledged."""
        return self.ended

    @property
    def totals(self):
        """How many changes and transactions there were, and when the last one was committed."""
        return self.changes, self.transactions, self.time if self.has_time else None

    @property
    def is_between(self):
        """Whether no transaction is open or being read, and no stream block is open."""
        return not (self.stream.transaction or self.stream.in_block or self.unsettled)

    def decode_batch(self, WalBatch batch not None, spool=None):
        """Decode the payloads of a `WalBatch` of the same twin, one at a time.

        With a `spool`, what stream blocks hold is checked, put aside, and not given: see `Changes`.
        A stream is decoded with one spool from its beginning, or without.
        """
        cdef Changes changes = Changes.__new__(Changes)
        changes.decoder = self
        changes.batch = batch
        changes.spool = spool
        return changes

    cdef inline int ready(self) except -1:
        """Raise what stands in the way of decoding anything."""
        if self.state != READY:
            self.refuse()
        return 0

    cdef int refuse(self) except -1:
        # Python runs while a message is decoded, and must not come here again meanwhile.
        if self.state == DECODING:
            raise UsageError(entered)
        if self.failed is not None:
            raise self.failed()
        raise (UsageError if self.spool is None else SpoolError)(cut_off)

    cdef object take(self, const uint8_t *bytes, size_t size):
        """Decode a payload whose position is known, or say what is wrong with it for good."""
        self.state = DECODING
        try:
            made = self.decode(bytes, size)
            self.state = READY
            return made
        except SpoolError as error:
            self.state = FAILED
            self.failed = partial(SpoolError, str(error))
            raise
        except Flaw as flaw:
            self.state = FAILED
            *numbers, where = flaw.args
        except Error:
            self.state = READY
            raise
        except BaseException:
            # What cuts it off, memory that is short above all, may leave no room to say more.
            self.state = FAILED
            raise
        # Not the error is kept but how to make it: its traceback would hold on to the payload.
        self.failed = partial(
            fault_error, *numbers, where=where, lsn=self.lsn if self.has_lsn else None
        )
        raise self.failed()

    cdef object decode(self, const uint8_t *bytes, size_t size):
        cdef pgr_message message
        cdef pgr_error error
        if pgr_pgoutput_read(&self.stream, bytes, size, &message, &error) != PGR_OK:
            raise flaw_of(&error)
        if self.stream.in_block and self.spool is not None and message.tag != c"S":
            return self.put_aside(&message, size)
        if self.keeper is not None and message.tag in (c"I", c"U", c"D", c"T", c"M"):
            self.write(self.keeper, &message, size)
            if message.tag == c"M" and not message.body.logical.transactional:
                self.end(message.body.logical.lsn)
            return None
        return self.make(&message)

    cdef object put_aside(self, const pgr_message *message, size_t size):
        """Keep what a streamed transaction consists of, and return what is none of it, or None."""
        cdef Writer writer = self.writer
        if writer is None:
            raise UsageError(mixed)
        if message.tag == c"M" and not message.body.logical.transactional:
            return self.make(message)  # which a rollback does not take along
        if message.tag in (c"I", c"U", c"D", c"T", c"M"):
            self.write(writer, message, size)
            return None
        made = self.make(message)
        if message.tag == c"O":
            writer.stored.come_from(made)
        return None

    cdef int write(self, Writer writer, const pgr_message *message, size_t size) except -1:
        """Put a change aside, if it is one that could be made."""
        cdef uint32_t binding = 0
        cdef Layout layout
        cdef bytes indexes = b""
        if message.tag == c"T":
            indexes = writer.bind_all(self.truncated(message))
            binding = message.body.truncate.relation_count
        elif message.tag != c"M":
            layout = self.described(message, pgr_message_body(message))
            check_widths(message, layout)
            binding = writer.bind(layout)
        writer.append(message.start, size, self.lsn, binding, indexes)
        self.changes += 1
        return 0

    cdef object make(self, const pgr_message *message):
        cdef Layout layout
        if message.tag in (c"I", c"U", c"D"):
            layout = self.described(message, pgr_message_body(message))
            made = make_change(message, layout, self.lsn, self.has_lsn)
            self.changes += 1
            return made
        elif message.tag == c"B":
            return None if self.bare else make_begin(&message.body.begin)
        elif message.tag == c"C":
            self.end(message.body.commit.end_lsn)
            self.ended_at(message.body.commit.commit_time)
            return None if self.bare else make_commit(&message.body.commit)
        elif message.tag == c"M":
            made = make_message(message)
            self.changes += 1
            if not message.body.logical.transactional:
                self.end(message.body.logical.lsn)
            return made
        elif message.tag == c"T":
            made = make_truncate(message, self.truncated(message), self.lsn, self.has_lsn)
            self.changes += 1
            return made
        elif message.tag == c"R":
            return self.describe(message)
        elif message.tag == c"Y":
            return self.describe_type(message)
        elif message.tag == c"O":
            return make_origin(message)
        elif message.tag in (c"S", c"E", c"c", c"A", c"p"):
            if self.spool is None:
                if self.spooled:
                    raise UsageError(mixed)
                return self.turn(message)
            return self.turn_moving(message)
        elif message.tag == c"r":
            made = make_rollback_prepared(message)
            self.end(message.body.rollback_prepared.rollback_end_lsn)
            self.ended_at(message.body.rollback_prepared.rollback_time)
            return made
        made = make_prepared(message)
        if message.tag != c"b":
            self.end(message.body.prepared.end_lsn)
            self.ended_at(message.body.prepared.time)
        return made

    cdef void end(self, uint64_t position) noexcept:
        self.transactions += 1
        if position > self.ended:
            self.ended = position

    cdef void ended_at(self, int64_t time) noexcept:
        self.time = time
        self.has_time = True

    cdef object turn_moving(self, const pgr_message *message):
        """As `turn`, within `Spool.moving`.

        Not by `with`: where memory is too short even for a traceback, what Cython 3.3.1 makes of
        that passes a null pointer on.
        """
        moving = self.spool.moving()
        moving.__enter__()
        try:
            made = self.turn(message)
        except BaseException as error:
            moving.__exit__(type(error), error, None)
            raise
        moving.__exit__(None, None, None)
        return made

    cdef object turn(self, const pgr_message *message):
        """Make what begins, ends or settles a stream, and with it what relations mean."""
        cdef const pgr_body *body = &message.body
        self.recent = None
        if message.tag == c"S":
            if body.stream_start.first_segment:
                self.relations.abort(body.stream_start.xid, body.stream_start.xid)
            if self.spool is not None:
                self.begin(message)
            return StreamStart(body.stream_start.xid, body.stream_start.first_segment != 0)
        elif message.tag == c"E":
            self.writer = None
            return StreamStop()
        elif message.tag == c"A":
            self.relations.abort(body.stream_abort.xid, body.stream_abort.subxid)
            if self.spool is not None:
                self.spool.abort(body.stream_abort.xid, body.stream_abort.subxid)
            return make_stream_abort(&body.stream_abort)
        elif message.tag == c"c":
            self.relations.settle(body.stream_commit.xid)
            if self.spool is not None and body.stream_commit.xid not in self.spool:
                raise self.unknown(message, body.stream_commit.xid)
            self.end_streamed(body.stream_commit.commit.end_lsn)
            self.ended_at(body.stream_commit.commit.commit_time)
            return make_stream_commit(&body.stream_commit)
        prepare = make_prepared(message)
        self.relations.settle(body.prepared.xid)
        self.end_streamed(body.prepared.end_lsn)
        self.ended_at(body.prepared.time)
        return prepare

    cdef int begin(self, const pgr_message *message) except -1:
        """Go on with a transaction that is put aside, or begin it."""
        cdef const pgr_stream_start *start = &message.body.stream_start
        stored = self.spool.begin(start.xid, start.first_segment != 0)
        if stored is None:
            raise self.unknown(message, start.xid)
        self.spooled = True
        self.writer = writer_of(stored)
        return 0

    cdef object unknown(self, const pgr_message *message, uint32_t xid):
        return flaw_at(message, STREAM_UNKNOWN, message.start + 1, 0, xid)

    cdef void end_streamed(self, uint64_t position) noexcept:
        """Take note of the end, which counts once what was put aside has been read."""
        if self.spool is None:
            self.end(position)
        else:
            self.unsettled = position

    cdef Layout described(self, const pgr_message *message, const uint8_t *field):
        """Return the layout of the relation whose OID stands at `field`."""
        cdef uint32_t oid = pgr_load32(field)
        if self.recent is None or self.recent.oid != oid:
            if self.stream.in_block:
                layout = self.relations.find_streamed(self.stream.block_xid, oid)
            else:
                layout = self.layouts.get(oid)
            if layout is None:
                raise flaw_at(message, RELATION_UNKNOWN, field, 0, oid)
            self.recent = <Layout>layout
        return self.recent

    cdef tuple truncated(self, const pgr_message *message):
        """Return the layouts of the relations of a Truncate."""
        cdef const pgr_truncate *body = &message.body.truncate
        cdef uint32_t i
        layouts = []
        for i in range(body.relation_count):
            layouts.append(self.described(message, body.relations.bytes + 4 * <size_t>i))
        return tuple(layouts)

    cdef object describe_type(self, const pgr_message *message):
        """Make a Type, and take it in for the relations that come after it."""
        cdef const pgr_type *body = &message.body.type
        schema = text_of(body.schema) or "pg_catalog"
        name = text_of(body.name)
        self.types.describe(body.oid, schema, name)
        return Type(body.oid, schema, name, xid_of(message))

    cdef object describe(self, const pgr_message *message):
        """Make a Relation, and keep it for those whom it is told."""
        cdef const pgr_relation *body = &message.body.relation
        cdef pgr_cursor cursor = pgr_message_cursor(message, body.attributes)
        cdef pgr_attribute attribute
        cdef int _i
        schema = text_of(body.schema) or "pg_catalog"
        name = text_of(body.name)
        columns = []
        for _i in range(body.attribute_count):
            if pgr_attribute_next(&cursor, &attribute) != PGR_OK:
                raise flaw_of(&cursor.error)
            columns.append(Column(
                text_of(attribute.name), attribute.type_oid,
                attribute.type_modifier, attribute.is_key != 0,
                type_name=self.types.registry.name_of(attribute.type_oid),
            ))
        relation = Relation(
            body.oid, schema, name, chr(body.replica_identity), tuple(columns), xid_of(message)
        )
        self.recent = layout_of(relation, self.types)
        if message.marked:
            if self.writer is not None:
                self.recent = self.writer.known(self.recent)
            self.relations.describe_streamed(
                self.stream.block_xid, body.oid, self.recent, message.xid
            )
        else:
            self.relations.describe(body.oid, self.recent)
        return relation


cdef object exporter(payload):
    """Return what exports the payload's bytes; the pure twin's XLogData has it in `data`."""
    if PyObject_CheckBuffer(payload):
        return payload
    data = getattr(payload, "data", None)
    if not isinstance(data, memoryview):
        raise TypeError(
            f"expected a bytes-like object or an XLogData, got {type(payload).__name__}"
        )
    return data


cdef uint64_t position_of(lsn) except? 0:
    if type(lsn) is int:
        try:
            return lsn
        except OverflowError:
            pass
    return Lsn(lsn)


include "batch_changes.pxi"
include "plain_messages.pxi"
include "at_hand.pxi"
include "runs.pxi"

seal(<PyTypeObject *>Changes)
seal(<PyTypeObject *>TransactionChanges)
seal(<PyTypeObject *>Run)
seal(<PyTypeObject *>Ready)
