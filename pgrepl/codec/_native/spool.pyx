"""Streamed transactions put aside and replayed, native: the twin of pgrepl/codec/_pure/spool.py.

A payload that the core has checked is copied to a piece of its transaction, and no Python runs for
it unless the piece is full. A replay reads it with the core once more, which is cheap, and then
makes of it what the decoder would have made. Whatever stands in a file may have been damaged there:
every size is checked before it is used.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyTypeObject
from cpython.list cimport PyList_GET_ITEM
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.string cimport memcpy

from .changes cimport make_change, make_message, make_truncate
from .pgoutput cimport PGR_OK, pgr_error, pgr_message, pgr_pgoutput_read
from .whole cimport seal

from ...errors import UsageError
from ..faults import Flaw
from ..stored import HEADER, RECORD, damaged, entered


cdef struct Record:
    # As RECORD has it: behind it stands the payload.
    uint32_t size
    uint32_t binding
    uint64_t lsn


cdef struct Found:
    # A record that was read: its message, and what that refers to.
    pgr_message message
    uint32_t binding
    const uint8_t *indexes      # of a Truncate
    uint64_t lsn
    uint32_t end                # where the next record begins


cdef enum:
    HEADER_SIZE = 4
    INDEX_SIZE = 4

if HEADER.size != HEADER_SIZE or RECORD.size != sizeof(Record):
    raise ImportError("expected the records of a spool to be as pgrepl/codec/spool.py has them")


cdef inline uint8_t *bytes_of(bytearray piece) noexcept:
    return <uint8_t *>PyByteArray_AS_STRING(piece)


cdef inline uint32_t used_of(bytearray piece) noexcept:
    """Return how much of a piece is used, and never more than there is."""
    cdef uint32_t used
    memcpy(&used, bytes_of(piece), sizeof(used))
    return min(used, <uint32_t>PyByteArray_GET_SIZE(piece))


cdef inline size_t room_of(bytearray piece) noexcept:
    return <size_t>PyByteArray_GET_SIZE(piece) - used_of(piece)


@cython.final
cdef class Writer:
    """Puts a transaction's records into its pieces."""

    def __cinit__(self, stored):
        self.stored = stored
        self.indexes = {}

    cdef Layout known(self, Layout layout):
        """Return the layout that is kept already, where one says the same as this one."""
        return self.stored.bound[self.stored.bind(layout)]

    cdef uint32_t bind(self, Layout layout) except? 0:
        """Return the index of what the relation of a change means now."""
        if layout is self.recent:
            return self.recent_index
        found = self.indexes.get(layout.oid)
        if found is None or found[0] is not layout:
            found = self.indexes[layout.oid] = layout, self.stored.bind(layout)
        self.recent = layout
        self.recent_index = found[1]
        return self.recent_index

    cdef bytes bind_all(self, tuple layouts):
        """Return the indexes of what the relations of a Truncate mean now, as a record has them."""
        cdef bytes indexes = PyBytes_FromStringAndSize(NULL, len(layouts) * INDEX_SIZE)
        cdef Py_ssize_t i
        cdef uint32_t index
        for i in range(len(layouts)):
            index = self.bind(<Layout>PyTuple_GET_ITEM(layouts, i))
            memcpy(PyBytes_AS_STRING(indexes) + i * INDEX_SIZE, &index, INDEX_SIZE)
        return indexes

    cdef int append(
        self, const uint8_t *payload, size_t size, uint64_t lsn, uint32_t binding,
        bytes indexes=b""
    ) except -1:
        """Put a checked payload aside, with what belongs behind it."""
        cdef size_t behind = <size_t>PyBytes_GET_SIZE(indexes)
        cdef size_t needed = sizeof(Record) + size + behind
        cdef Record record = Record(<uint32_t>(size + behind), binding, lsn)
        cdef uint32_t used
        cdef uint8_t *at
        # Whatever Python does while it makes room, what is written to is as it is found then.
        while self.piece is None or room_of(self.piece) < needed:
            self.piece = self.stored.new_piece(needed)
        used = used_of(self.piece)
        at = bytes_of(self.piece) + used
        memcpy(at, &record, sizeof(Record))
        memcpy(at + sizeof(Record), payload, size)
        memcpy(at + sizeof(Record) + size, PyBytes_AS_STRING(indexes), behind)
        used += <uint32_t>needed
        memcpy(bytes_of(self.piece), &used, sizeof(used))
        return 0

    def release(self):
        """Let the piece go; ask for another one before the next record."""
        self.piece = None


cdef Writer writer_of(stored):
    """Return the writer of a transaction, which has one from its first block on."""
    writer = stored.writer
    if not isinstance(writer, Writer):
        writer = stored.writer = Writer.__new__(Writer, stored)
    return writer


@cython.final
cdef class Replay:
    """The changes of a streamed transaction, read from where they were put aside.

    They mean what they meant when they came, whatever relations were described since. Raises
    `SpoolError` when they cannot be read, and `UsageError` when the spool was closed. What it
    takes, in memory or on disk, is given back at its end, or when nobody has it any more.
    """

    cdef object stored
    cdef list bound
    cdef object void
    cdef bytearray piece
    cdef uint64_t behind        # bytes of the pieces before that
    cdef uint32_t at            # in the piece: of the next record
    cdef uint32_t used
    cdef pgr_stream stream      # as it is within a block of the transaction
    cdef uint32_t part          # the (sub)transaction looked at last, and whether it counts
    cdef bint counts
    cdef bint ended
    cdef bint reading           # somebody is: Python runs meanwhile, and could come here again
    cdef bint keeps             # what is read, for others to read it too

    @property
    def origin(self):
        """Where the transaction comes from, or None."""
        return self.stored.origin

    def __iter__(self):
        return self

    def __next__(self):
        cdef Found found
        cdef bytearray piece
        self.enter()
        try:
            piece = self.find(&found)
            if piece is None:
                raise StopIteration
            change = self.make(&found)
            self.at = found.end
            return change
        finally:
            self.reading = False

    def peek(self):
        """Return the tag of the next change, None behind the last one."""
        cdef Found found
        cdef bytearray piece
        self.enter()
        try:
            piece = self.find(&found)
            return None if piece is None else chr(found.message.tag)
        finally:
            self.reading = False

    def release(self):
        """Pass over what was not read, and give back what it takes."""
        self.ended = True
        self.piece = None
        if not self.keeps:
            self.stored.close()

    def keep(self):
        """Have the changes kept, to be read as often as wanted, but not by this."""
        self.ended = True
        return kept_of(self.stored, &self.stream)

    cdef int enter(self) except -1:
        if self.reading:
            raise UsageError(entered)
        self.reading = True
        return 0

    cdef object make(self, Found *found):
        """Make the change of a record."""
        cdef const pgr_message *message = &found.message
        try:
            if message.tag == c"M":
                return make_message(message)
            elif message.tag == c"T":
                return make_truncate(
                    message, self.truncated(found), found.lsn, found.lsn != 0
                )
            return make_change(message, self.layout(found.binding), found.lsn, found.lsn != 0)
        except Flaw:
            raise damaged() from None

    cdef Layout layout(self, uint32_t index):
        if index >= <size_t>len(self.bound):
            raise damaged()
        return <Layout?>PyList_GET_ITEM(self.bound, index)

    cdef tuple truncated(self, Found *found):
        """Return the layouts of the relations of a Truncate."""
        cdef uint32_t i, index
        layouts = []
        for i in range(found.binding):
            memcpy(&index, found.indexes + i * <size_t>INDEX_SIZE, INDEX_SIZE)
            layouts.append(self.layout(index))
        return tuple(layouts)

    cdef bytearray find(self, Found *found):
        """Read the next record that counts, and return the piece that it is in, or None.

        Whatever becomes of this object meanwhile, what was found lies in that piece.
        """
        cdef bytearray piece
        while not self.ended:
            piece = self.piece
            if piece is None or self.at == self.used:
                self.turn()
                continue
            read_record(piece, self.at, self.used, &self.stream, found)
            if found.message.xid != self.part:
                self.counts = found.message.xid not in self.void
                self.part = found.message.xid
            if self.counts:
                return piece
            self.at = found.end
        return None

    cdef int turn(self) except -1:
        """Go on to the next piece, or to the end."""
        if self.piece is not None:
            self.behind += self.used
        if self.keeps:
            self.piece = self.stored.piece_at(self.behind)
        else:
            self.piece = self.stored.take_piece(self.behind, self.piece)
        if self.piece is None:
            self.release()
            return 0
        self.at = HEADER_SIZE
        self.used = used_of(self.piece)
        return 0


@cython.final
cdef class Kept:
    """The changes of a transaction, to be read again; see `pgrepl.codec.abc.Kept`."""

    cdef object stored
    cdef pgr_stream stream

    def __iter__(self):
        cdef Replay replay
        replay = replay_in(self.stored, &self.stream)
        replay.keeps = True
        return replay


cdef int read_record(
    bytearray piece, uint32_t at, uint32_t used, pgr_stream *stream, Found *found
) except -1:
    """Read the record at a place of a piece, whose bytes may be anything."""
    cdef const uint8_t *payload = bytes_of(piece) + at + sizeof(Record)
    cdef Record record
    cdef size_t behind = 0
    cdef pgr_error error
    if used - at < sizeof(Record):
        raise damaged()
    memcpy(&record, payload - sizeof(Record), sizeof(Record))
    if used - at - sizeof(Record) < record.size:
        raise damaged()
    if record.size > 0 and payload[0] == c"T":
        behind = <size_t>record.binding * INDEX_SIZE
        if behind > record.size:
            raise damaged()
    if pgr_pgoutput_read(
        stream, payload, record.size - behind, &found.message, &error
    ) != PGR_OK or found.message.tag not in (c"I", c"U", c"D", c"T", c"M"):
        raise damaged()
    if found.message.tag == c"T" and found.message.body.truncate.relation_count != record.binding:
        raise damaged()
    found.binding = record.binding
    found.lsn = record.lsn
    found.indexes = payload + record.size - behind
    found.end = at + <uint32_t>sizeof(Record) + record.size
    return 0


cdef object replay_of(stored, const pgr_stream *stream, uint32_t xid):
    """Return the changes of a transaction that is taken out of a spool."""
    cdef pgr_stream within = stream[0]
    within.in_block = True
    within.block_xid = xid
    return replay_in(stored, &within)


cdef object kept_of(stored, const pgr_stream *stream):
    """Return the changes of a whole transaction, as they came in this state of the stream."""
    cdef Kept kept = Kept.__new__(Kept)
    stored.finish()
    kept.stored = stored
    kept.stream = stream[0]
    return kept


cdef Replay replay_in(stored, const pgr_stream *stream):
    cdef Replay replay = Replay.__new__(Replay)
    replay.stored = stored
    replay.bound = stored.bound
    replay.void = stored.aborted
    replay.stream = stream[0]
    replay.part = stream.block_xid
    replay.counts = True
    return replay


seal(<PyTypeObject *>Writer)
seal(<PyTypeObject *>Replay)
seal(<PyTypeObject *>Kept)
