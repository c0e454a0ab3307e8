"""Streamed transactions put aside and replayed, native: the twin of _pure/spool.py.

A payload that the core has checked is copied to a piece of its transaction, and no Python runs for
it unless the piece is full. A replay reads it with the core once more, which is cheap, and then
makes of it what the decoder would have made. Whatever stands in a file may have been damaged there:
every size is checked before it is used.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from libc.string cimport memcpy

from .changes cimport make_change, make_message, make_truncate
from .pgoutput cimport PGR_OK, pgr_error, pgr_message, pgr_pgoutput_read

from .._pure.cursor import Flaw
from ..spool import HEADER, RECORD, damaged


cdef struct Record:
    # As RECORD has it: behind it stands the payload.
    uint32_t size
    uint32_t binding
    uint64_t lsn


cdef enum:
    HEADER_SIZE = 4

if HEADER.size != HEADER_SIZE or RECORD.size != sizeof(Record):
    raise ImportError("expected the records of a spool to be as pgrepl/codec/spool.py has them")


cdef inline uint8_t *bytes_of(bytearray piece) noexcept:
    return <uint8_t *>PyByteArray_AS_STRING(piece)


cdef inline uint32_t used_of(bytearray piece) noexcept:
    """Return how much of a piece is used, and never more than there is."""
    cdef uint32_t used
    memcpy(&used, bytes_of(piece), sizeof(used))
    return min(used, <uint32_t>PyByteArray_GET_SIZE(piece))


@cython.final
cdef class Writer:
    """Puts a transaction's records into its pieces."""

    def __cinit__(self, stored):
        self.stored = stored
        self.bound = stored.bound
        self.indexes = {}

    cdef uint32_t bind(self, Layout layout) except? 0:
        """Return the index of what the relation of a change means now."""
        cdef Layout known
        if layout is self.recent:
            return self.recent_index
        found = self.indexes.get(layout.oid)
        if found is not None:
            # One that was described again as it was before is not kept twice, or a transaction
            # whose savepoints are rolled back again and again would fill the memory with them.
            known = self.bound[found]
            if known.relation != layout.relation or known.types != layout.types:
                found = None
        if found is None:
            found = len(self.bound)
            self.bound.append(layout)
            self.indexes[layout.oid] = found
        self.recent = layout
        self.recent_index = found
        return self.recent_index

    cdef uint32_t bind_all(self, tuple layouts) except? 0:
        """Return the index of what the relations of a Truncate mean now."""
        cdef Layout layout
        indexes = []
        for layout in layouts:
            indexes.append(self.bind(layout))
        key = tuple(indexes)
        found = self.indexes.get(key)
        if found is None:
            found = self.indexes[key] = len(self.bound)
            self.bound.append(layouts)
        return found

    cdef int append(
        self, const uint8_t *payload, size_t size, uint64_t lsn, uint32_t binding
    ) except -1:
        """Put a checked payload aside."""
        cdef size_t needed = sizeof(Record) + size
        cdef Record record = Record(<uint32_t>size, binding, lsn)
        cdef uint32_t used = 0
        cdef uint8_t *at
        if self.piece is not None:
            used = used_of(self.piece)
        if self.piece is None or <size_t>PyByteArray_GET_SIZE(self.piece) - used < needed:
            with self.stored.moving():
                self.piece = self.stored.room(needed)
            used = HEADER_SIZE
        at = bytes_of(self.piece) + used
        memcpy(at, &record, sizeof(Record))
        memcpy(at + sizeof(Record), payload, size)
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
        writer = stored.writer = Writer(stored)
    return writer


@cython.final
cdef class Replay:
    """The changes of a transaction that was put aside; see `pgrepl.codec.abc.Replay`."""

    cdef object stored
    cdef list bound
    cdef object void
    cdef bytearray piece
    cdef uint32_t at            # in the piece: of the next record
    cdef uint32_t used
    cdef pgr_stream stream      # as it is within a block of the transaction
    cdef uint32_t part          # the (sub)transaction looked at last, and whether it counts
    cdef bint counts
    cdef bint ended

    @property
    def origin(self):
        """Where the transaction comes from, or None."""
        return self.stored.origin

    def __iter__(self):
        return self

    def __next__(self):
        cdef pgr_message message
        cdef Record record
        if not self.find(&message, &record):
            raise StopIteration
        cdef bytearray _kept = self.piece  # whatever runs meanwhile
        binding = self.bound[record.binding] if record.binding < len(self.bound) else None
        try:
            if message.tag == c"M":
                change = make_message(&message)
            elif message.tag == c"T":
                change = make_truncate(&message, binding, record.lsn, record.lsn != 0)
            elif binding is None:
                raise damaged()
            else:
                change = make_change(&message, binding, record.lsn, record.lsn != 0)
        except (Flaw, TypeError):
            raise damaged() from None
        self.at += <uint32_t>sizeof(Record) + record.size
        return change

    def peek(self):
        """Return the tag of the next change, None behind the last one."""
        cdef pgr_message message
        cdef Record record
        return chr(message.tag) if self.find(&message, &record) else None

    def release(self):
        """Pass over what was not read, and give back what it takes."""
        self.ended = True
        self.piece = None
        self.stored.close()

    cdef bint find(self, pgr_message *message, Record *record) except -1:
        """Read the next record that counts; False: there is none."""
        cdef const uint8_t *payload
        cdef pgr_error error
        while not self.ended:
            if self.piece is None or self.at == self.used:
                self.turn()
                continue
            if self.used - self.at < sizeof(Record):
                raise damaged()
            memcpy(record, bytes_of(self.piece) + self.at, sizeof(Record))
            if self.used - self.at - sizeof(Record) < record.size:
                raise damaged()
            payload = bytes_of(self.piece) + self.at + sizeof(Record)
            if pgr_pgoutput_read(
                &self.stream, payload, record.size, message, &error
            ) != PGR_OK or message.tag not in (c"I", c"U", c"D", c"T", c"M"):
                raise damaged()
            if message.xid != self.part:
                self.part = message.xid
                self.counts = message.xid not in self.void
            if self.counts:
                return True
            self.at += <uint32_t>sizeof(Record) + record.size
        return False

    cdef int turn(self) except -1:
        """Go on to the next piece, or to the end."""
        with self.stored.moving():
            self.piece = self.stored.next_piece(self.piece)
        if self.piece is None:
            self.release()
            return 0
        self.at = HEADER_SIZE
        self.used = used_of(self.piece)
        return 0


cdef object replay_of(stored, const pgr_stream *stream, uint32_t xid):
    """Return the changes of a transaction that is taken out of a spool."""
    cdef Replay replay = Replay.__new__(Replay)
    replay.stored = stored
    replay.bound = stored.bound
    replay.void = stored.aborted
    replay.stream = stream[0]
    replay.stream.in_block = True
    replay.stream.block_xid = xid
    replay.part = xid
    replay.counts = True
    return replay
