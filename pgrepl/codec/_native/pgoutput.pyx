"""pgoutput, native: makes the messages of pgrepl/messages.py from what src_c/pgr_pgoutput.c reads.

The core has checked a payload to its last byte before anything is made of it. What a payload can be
at fault for only in the light of others - a relation that was never described, a tuple of another
width - is found here, in the order of the pure twin.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
)
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_FromStringAndSize
from cpython.object cimport PyObject, PyTypeObject
from cpython.unicode cimport PyUnicode_DecodeUTF8

from .rows cimport Layout, Row, row_of
from .slots cimport Slots, new_instance, put, slots_of
from .values cimport Types
from .wal cimport WalBatch, pgr_wal_columns

from functools import partial

from ...lsn import Lsn
from ...messages import (
    Begin,
    BeginPrepare,
    Column,
    Commit,
    CommitPrepared,
    Delete,
    Insert,
    Message,
    Origin,
    Prepare,
    Relation,
    RollbackPrepared,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
    Update,
)
from ..dialect import Dialect
from ..faults import Fault, fault_error
from ..relations import Relations


cdef int RELATION_UNKNOWN = Fault.RELATION_UNKNOWN
cdef int COLUMN_COUNT = Fault.COLUMN_COUNT
cdef int ENCODING = Fault.ENCODING

# The messages that come by the million; all others are made the ordinary way.
cdef Slots BEGIN = slots_of(Begin, ("final_lsn", "commit_time", "xid"))
cdef Slots COMMIT = slots_of(Commit, ("commit_lsn", "end_lsn", "commit_time"))
cdef Slots INSERT = slots_of(Insert, ("relation", "new", "xid"))
cdef Slots UPDATE = slots_of(Update, ("relation", "key", "old", "new", "xid"))
cdef Slots DELETE = slots_of(Delete, ("relation", "key", "old", "xid"))
cdef Slots MESSAGE = slots_of(Message, ("transactional", "lsn", "prefix", "content", "xid"))

cdef PyTypeObject *lsn_type = <PyTypeObject *>Lsn
cdef PyTypeObject *int_type = <PyTypeObject *>int


class Flaw(Exception):
    """A fault as the arguments of `fault_error`, on its way up to `Decoder.feed`."""


@cython.final
cdef class Decoder:
    """Decodes pgoutput payloads; see `pgrepl.codec.abc.Decoder`."""

    cdef pgr_stream stream
    cdef object relations       # Relations of layouts
    cdef dict layouts           # those of them that hold outside of stream blocks, by OID
    cdef Layout recent          # the last one used here: rows of one table come in runs
    cdef Types types
    cdef object failed          # makes the error that a fault has led to, or None
    cdef uint64_t lsn           # of the message that is being decoded
    cdef bint has_lsn
    cdef uint64_t ended         # highest end of what can be acknowledged

    def __cinit__(
        self, proto_version=1, streaming="off", types=None, typed=True, bint ordered=False
    ):
        dialect = Dialect.of(proto_version, streaming)
        self.stream.proto_version = dialect.proto_version
        self.stream.parallel = dialect.parallel
        self.stream.ordered = ordered
        self.relations = Relations()
        self.layouts = self.relations.described
        self.types = Types(types, typed)

    def feed(self, payload, lsn=None):
        """Decode one message from any bytes-like object or an `XLogData`.

        Raises `DecodeError`, and raises it again for whatever comes after that.
        """
        cdef Py_buffer view
        if self.failed is not None:
            raise self.failed()
        if lsn is None and not PyBytes_CheckExact(payload):
            # Messages that are not the last of a record have no position in their header.
            lsn = getattr(payload, "wal_start", None) or None
        self.has_lsn = lsn is not None
        if self.has_lsn:
            self.lsn = position_of(lsn)
        PyObject_GetBuffer(exporter(payload), &view, PyBUF_SIMPLE)
        try:
            return self.take(<const uint8_t *>view.buf, <size_t>view.len)
        finally:
            PyBuffer_Release(&view)

    def define(self, definitions):
        """Take in what the catalogue says of types; see `pgrepl.codec.abc.Types`."""
        self.types.define(definitions)

    @property
    def delivered(self):
        """The highest position by which something that was decoded can be acknowledged."""
        return self.ended

    @property
    def is_between(self):
        """Whether no transaction is open, and no stream block."""
        return not self.stream.transaction and not self.stream.in_block

    def decode_batch(self, WalBatch batch not None):
        """Decode the payloads of a batch; see `pgrepl.codec.abc.Decoder`."""
        cdef Changes changes = Changes.__new__(Changes)
        changes.decoder = self
        changes.batch = batch
        return changes

    cdef object take(self, const uint8_t *bytes, size_t size):
        """Decode a payload whose position is known, or say what is wrong with it for good."""
        if self.failed is not None:
            raise self.failed()
        try:
            return self.decode(bytes, size)
        except Flaw as flaw:
            *numbers, where = flaw.args
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
        if message.tag == c"I":
            return self.insert(&message)
        elif message.tag == c"U":
            return self.update(&message)
        elif message.tag == c"D":
            return self.delete(&message)
        elif message.tag == c"B":
            return make_begin(&message.body.begin)
        elif message.tag == c"C":
            self.end(message.body.commit.end_lsn)
            return make_commit(&message.body.commit)
        elif message.tag == c"M":
            if not message.body.logical.transactional:
                self.end(message.body.logical.lsn)
            return make_message(&message)
        elif message.tag == c"T":
            return self.truncate(&message)
        elif message.tag == c"R":
            return self.describe(&message)
        elif message.tag == c"Y":
            return self.describe_type(&message)
        elif message.tag == c"O":
            return make_origin(&message)
        elif message.tag in (c"S", c"E", c"c", c"A", c"p"):
            return self.turn(&message)
        elif message.tag == c"r":
            self.end(message.body.rollback_prepared.rollback_end_lsn)
            return make_rollback_prepared(&message)
        elif message.tag != c"b":
            self.end(message.body.prepared.end_lsn)
        return make_prepared(&message)

    cdef void end(self, uint64_t position) noexcept:
        if position > self.ended:
            self.ended = position

    cdef object turn(self, const pgr_message *message):
        """Make what begins, ends or settles a stream, and with it what relations mean."""
        cdef const pgr_body *body = &message.body
        self.recent = None
        if message.tag == c"S":
            if body.stream_start.first_segment:
                self.relations.abort(body.stream_start.xid, body.stream_start.xid)
            return StreamStart(body.stream_start.xid, body.stream_start.first_segment != 0)
        elif message.tag == c"E":
            return StreamStop()
        elif message.tag == c"A":
            self.relations.abort(body.stream_abort.xid, body.stream_abort.subxid)
            return make_stream_abort(&body.stream_abort)
        elif message.tag == c"c":
            self.relations.settle(body.stream_commit.xid)
            self.end(body.stream_commit.commit.end_lsn)
            return make_stream_commit(&body.stream_commit)
        prepare = make_prepared(message)
        self.relations.settle(body.prepared.xid)
        self.end(body.prepared.end_lsn)
        return prepare

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

    cdef object insert(self, const pgr_message *message):
        cdef Layout layout = self.described(message, pgr_message_body(message))
        insert = new_instance(&INSERT)
        put(insert, &INSERT, 0, layout.relation)
        put(insert, &INSERT, 1, self.row(message, &message.body.change.new_tuple, layout))
        put(insert, &INSERT, 2, xid_of(message))
        return insert

    cdef object update(self, const pgr_message *message):
        cdef Layout layout = self.described(message, pgr_message_body(message))
        cdef const pgr_tuple *old = &message.body.change.old_tuple
        update = new_instance(&UPDATE)
        put(update, &UPDATE, 0, layout.relation)
        put(update, &UPDATE, 1, self.row(message, old, layout) if old.mark == c"K" else None)
        put(update, &UPDATE, 2, self.row(message, old, layout) if old.mark == c"O" else None)
        put(update, &UPDATE, 3, self.row(message, &message.body.change.new_tuple, layout))
        put(update, &UPDATE, 4, xid_of(message))
        return update

    cdef object delete(self, const pgr_message *message):
        cdef Layout layout = self.described(message, pgr_message_body(message))
        cdef const pgr_tuple *old = &message.body.change.old_tuple
        delete = new_instance(&DELETE)
        put(delete, &DELETE, 0, layout.relation)
        put(delete, &DELETE, 1, self.row(message, old, layout) if old.mark == c"K" else None)
        put(delete, &DELETE, 2, self.row(message, old, layout) if old.mark == c"O" else None)
        put(delete, &DELETE, 3, xid_of(message))
        return delete

    cdef Row row(self, const pgr_message *message, const pgr_tuple *source, Layout layout):
        if source.column_count != layout.width:
            # The count stands right before the columns.
            raise flaw_at(
                message, COLUMN_COUNT, source.columns.bytes - 2, layout.width, source.column_count
            )
        cdef Row row = row_of(message, source, layout)
        row.lsn = self.lsn
        row.has_lsn = self.has_lsn
        return row

    cdef object truncate(self, const pgr_message *message):
        cdef const pgr_truncate *body = &message.body.truncate
        cdef uint32_t i
        relations = [
            self.described(message, body.relations.bytes + 4 * <size_t>i).relation
            for i in range(body.relation_count)
        ]
        return Truncate(
            tuple(relations), body.cascade != 0, body.restart_identity != 0, xid_of(message)
        )

    cdef object describe_type(self, const pgr_message *message):
        """Make a Type, and take it in for the relations that come after it."""
        cdef const pgr_type *body = &message.body.type
        schema = make_text(message, body.schema, f"the schema of type {body.oid}") or "pg_catalog"
        name = make_text(message, body.name, f"the name of type {body.oid}")
        self.types.describe(body.oid, schema, name)
        return Type(body.oid, schema, name, xid_of(message))

    cdef object describe(self, const pgr_message *message):
        """Make a Relation, and keep it for those whom it is told."""
        cdef const pgr_relation *body = &message.body.relation
        cdef pgr_cursor cursor = pgr_message_cursor(message, body.attributes)
        cdef pgr_attribute attribute
        cdef int i
        owner = f"relation {body.oid}"
        schema = make_text(message, body.schema, f"the schema of {owner}") or "pg_catalog"
        name = make_text(message, body.name, f"the name of {owner}")
        columns = []
        for i in range(body.attribute_count):
            if pgr_attribute_next(&cursor, &attribute) != PGR_OK:
                raise flaw_of(&cursor.error)
            where = f"the name of column {i + 1} of {owner}"
            columns.append(Column(
                make_text(message, attribute.name, where), attribute.type_oid,
                attribute.type_modifier, attribute.is_key != 0,
            ))
        relation = Relation(
            body.oid, schema, name, chr(body.replica_identity), tuple(columns), xid_of(message)
        )
        self.recent = Layout(relation, self.types)
        if message.marked:
            self.relations.describe_streamed(
                self.stream.block_xid, body.oid, self.recent, message.xid
            )
        else:
            self.relations.describe(body.oid, self.recent)
        return relation


@cython.final
cdef class Changes:
    """The decoded messages of a batch; see `pgrepl.codec.abc.Changes`."""

    cdef Decoder decoder
    cdef WalBatch batch
    cdef size_t next            # of the batch's XLogData
    cdef readonly object end    # what ended the transaction
    cdef readonly object origin

    def __iter__(self):
        return self

    def __next__(self):
        cdef size_t i = self.next
        if i == self.batch.run.xlogdata:
            raise StopIteration
        self.next = i + 1
        return self.decode(i)

    cdef object decode(self, size_t i):
        cdef pgr_wal_columns *columns = &self.batch.table.columns
        cdef Decoder decoder = self.decoder
        decoder.lsn = columns.wal_start[i]
        decoder.has_lsn = decoder.lsn != 0
        return decoder.take(self.batch.bytes + columns.offset[i], columns.size[i])

    cdef uint8_t tag(self) noexcept:
        """Return the tag of the next message, 0 where there is none."""
        cdef pgr_wal_columns *columns = &self.batch.table.columns
        if self.next == self.batch.run.xlogdata or columns.size[self.next] == 0:
            return 0
        return self.batch.bytes[columns.offset[self.next]]

    def peek(self):
        """Return the tag of the next message, None at the end of the batch."""
        if self.next == self.batch.run.xlogdata:
            return None
        return chr(self.tag())

    def of_transaction(self):
        """Iterate over the changes of the transaction that is open."""
        cdef TransactionChanges changes = TransactionChanges.__new__(TransactionChanges)
        self.end = self.origin = None
        changes.source = self
        return changes


@cython.final
cdef class TransactionChanges:
    """The rest of a transaction, as far as a batch has it."""

    cdef Changes source

    def __iter__(self):
        return self

    def __next__(self):
        cdef Changes source = self.source
        cdef uint8_t tag
        while source.end is None and source.next < source.batch.run.xlogdata:
            tag = source.tag()
            source.next += 1
            message = source.decode(source.next - 1)
            if tag in (c"I", c"U", c"D", c"T", c"M"):
                return message
            if tag in (c"C", c"P"):
                source.end = message
            elif tag == c"O":
                source.origin = message
        raise StopIteration


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


cdef object flaw_of(const pgr_error *error):
    return Flaw(error.fault, error.tag, error.offset, error.expected, error.got, "")


cdef object flaw_at(
    const pgr_message *message, int fault, const uint8_t *field, int64_t expected, int64_t got,
    where=""
):
    return Flaw(fault, message.tag, field - message.start, expected, got, where)


cdef inline object xid_of(const pgr_message *message):
    """Return the xid of a message in a stream block, None of any other."""
    if message.marked:
        return message.xid
    return None


cdef object make_lsn(uint64_t position):
    """Make an Lsn without its checks: any 64 bits are one."""
    arguments = (position,)
    return int_type.tp_new(<type>lsn_type, <PyObject *>arguments, NULL)


cdef object make_text(const pgr_message *message, pgr_span text, where):
    try:
        return PyUnicode_DecodeUTF8(<const char *>text.bytes, <Py_ssize_t>text.size, NULL)
    except UnicodeDecodeError:
        raise flaw_at(message, ENCODING, text.bytes, 0, 0, where)


cdef object make_begin(const pgr_begin *body):
    begin = new_instance(&BEGIN)
    put(begin, &BEGIN, 0, make_lsn(body.final_lsn))
    put(begin, &BEGIN, 1, body.commit_time)
    put(begin, &BEGIN, 2, body.xid)
    return begin


cdef object make_commit(const pgr_commit *body):
    commit = new_instance(&COMMIT)
    put(commit, &COMMIT, 0, make_lsn(body.commit_lsn))
    put(commit, &COMMIT, 1, make_lsn(body.end_lsn))
    put(commit, &COMMIT, 2, body.commit_time)
    return commit


cdef object make_origin(const pgr_message *message):
    cdef const pgr_origin *body = &message.body.origin
    return Origin(make_lsn(body.commit_lsn), make_text(message, body.name, "the origin's name"))


cdef object make_message(const pgr_message *source):
    cdef const pgr_logical *body = &source.body.logical
    content = PyBytes_FromStringAndSize(
        <const char *>body.content.bytes, <Py_ssize_t>body.content.size
    )
    message = new_instance(&MESSAGE)
    put(message, &MESSAGE, 0, body.transactional != 0)
    put(message, &MESSAGE, 1, make_lsn(body.lsn))
    put(message, &MESSAGE, 2, make_text(source, body.prefix, "the prefix"))
    put(message, &MESSAGE, 3, content)
    put(message, &MESSAGE, 4, xid_of(source))
    return message


cdef object make_stream_commit(const pgr_stream_commit *body):
    cdef const pgr_commit *commit = &body.commit
    return StreamCommit(
        body.xid, make_lsn(commit.commit_lsn), make_lsn(commit.end_lsn), commit.commit_time
    )


cdef object make_stream_abort(const pgr_stream_abort *body):
    if not body.detailed:
        return StreamAbort(body.xid, body.subxid)
    return StreamAbort(body.xid, body.subxid, make_lsn(body.abort_lsn), body.abort_time)


cdef object make_prepared(const pgr_message *message):
    cdef const pgr_prepared *body = &message.body.prepared
    if message.tag == c"b":
        cls = BeginPrepare
    elif message.tag == c"P":
        cls = Prepare
    elif message.tag == c"K":
        cls = CommitPrepared
    else:
        cls = StreamPrepare
    gid = make_text(message, body.gid, "the gid")
    return cls(make_lsn(body.lsn), make_lsn(body.end_lsn), body.time, body.xid, gid)


cdef object make_rollback_prepared(const pgr_message *message):
    cdef const pgr_rollback_prepared *body = &message.body.rollback_prepared
    return RollbackPrepared(
        make_lsn(body.prepare_end_lsn), make_lsn(body.rollback_end_lsn),
        body.prepare_time, body.rollback_time, body.xid,
        make_text(message, body.gid, "the gid"),
    )
