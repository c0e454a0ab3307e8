"""What a transaction consists of, native: the twin of pgrepl/codec/_pure/changes.py.

Insert, Update, Delete, Truncate and Message are made here of what the core has read, for whoever
knows what the OIDs in them mean: the decoder when they come, a replay when they were put aside. So
are the pieces that other messages are made of too.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject, PyTypeObject
from cpython.unicode cimport PyUnicode_DecodeUTF8

from .pgoutput cimport pgr_logical, pgr_tuple
from .rows cimport Row, row_of
from .slots cimport Slots, new_instance, put, slots_of, track

from ...lsn import Lsn
from ...messages import Delete, Insert, Message, Truncate, Update
from ..faults import Fault, Flaw


cdef int COLUMN_COUNT = Fault.COLUMN_COUNT

# These come by the million.
cdef Slots INSERT = slots_of(Insert, ("relation", "new", "xid"))
cdef Slots UPDATE = slots_of(Update, ("relation", "key", "old", "new", "xid"))
cdef Slots DELETE = slots_of(Delete, ("relation", "key", "old", "xid"))
cdef Slots MESSAGE = slots_of(Message, ("transactional", "lsn", "prefix", "content", "xid"))

cdef PyTypeObject *lsn_type = <PyTypeObject *>Lsn
cdef PyTypeObject *int_type = <PyTypeObject *>int


cdef object flaw_of(const pgr_error *error):
    return Flaw(error.fault, error.tag, error.offset, error.expected, error.got, "")


cdef object flaw_at(
    const pgr_message *message, int fault, const uint8_t *field, int64_t expected, int64_t got,
    where=""
):
    return Flaw(fault, message.tag, field - message.start, expected, got, where)


cdef object xid_of(const pgr_message *message):
    """Return the xid of a message in a stream block, None of any other."""
    if message.marked:
        return message.xid
    return None


cdef object lsn_of(uint64_t position):
    """Make an Lsn without its checks: any 64 bits are one."""
    arguments = (position,)
    return int_type.tp_new(<type>lsn_type, <PyObject *>arguments, NULL)


cdef object text_of(pgr_span text):
    """Make a name; bytes of it that are not UTF-8 are written as in ``\\xe9``."""
    return PyUnicode_DecodeUTF8(<const char *>text.bytes, <Py_ssize_t>text.size, "backslashreplace")


cdef inline int check_width(
    const pgr_message *message, const pgr_tuple *source, Layout layout
) except -1:
    if source.column_count != layout.width:
        # The count stands right before the columns.
        raise flaw_at(
            message, COLUMN_COUNT, source.columns.bytes - 2, layout.width, source.column_count
        )
    return 0


cdef int check_widths(const pgr_message *message, Layout layout) except -1:
    """Find what `make_change` would find, in the same order, and make nothing."""
    if message.body.change.old_tuple.mark != 0:
        check_width(message, &message.body.change.old_tuple, layout)
    if message.body.change.new_tuple.mark != 0:
        check_width(message, &message.body.change.new_tuple, layout)
    return 0


cdef object make_change(const pgr_message *message, Layout layout, uint64_t lsn, bint has_lsn):
    """Make an Insert, Update or Delete of a relation with this layout."""
    cdef const pgr_tuple *old = &message.body.change.old_tuple
    cdef const pgr_tuple *new = &message.body.change.new_tuple
    cdef Row old_row = None, new_row = None
    if old.mark != 0:
        old_row = make_row(message, old, layout, lsn, has_lsn)
        if old.mark == c"K":
            old_row.find_key()
    if new.mark != 0:
        new_row = make_row(message, new, layout, lsn, has_lsn)
    if message.tag == c"I":
        change = new_instance(&INSERT)
        put(change, &INSERT, 0, layout.relation)
        put(change, &INSERT, 1, new_row)
        put(change, &INSERT, 2, xid_of(message))
    elif message.tag == c"U":
        change = new_instance(&UPDATE)
        put(change, &UPDATE, 0, layout.relation)
        put(change, &UPDATE, 1, old_row if old.mark == c"K" else None)
        put(change, &UPDATE, 2, old_row if old.mark == c"O" else None)
        put(change, &UPDATE, 3, new_row)
        put(change, &UPDATE, 4, xid_of(message))
    else:
        change = new_instance(&DELETE)
        put(change, &DELETE, 0, layout.relation)
        put(change, &DELETE, 1, old_row if old.mark == c"K" else None)
        put(change, &DELETE, 2, old_row if old.mark == c"O" else None)
        put(change, &DELETE, 3, xid_of(message))
    if not layout.plain:
        track(change)
    return change


cdef inline Row make_row(
    const pgr_message *message, const pgr_tuple *source, Layout layout, uint64_t lsn, bint has_lsn
):
    check_width(message, source, layout)
    cdef Row row = row_of(message, source, layout)
    row.position = lsn
    row.has_position = has_lsn
    return row


cdef object make_truncate(
    const pgr_message *message, tuple layouts, uint64_t lsn, bint has_lsn
):
    """Make a Truncate of the relations with these layouts."""
    cdef const pgr_truncate *body = &message.body.truncate
    cdef Layout layout
    relations = []
    for layout in layouts:
        relations.append(layout.relation)
    return Truncate(
        tuple(relations), body.cascade != 0, body.restart_identity != 0, xid_of(message),
        lsn=lsn_of(lsn) if has_lsn else None,
    )


cdef object make_message(const pgr_message *source):
    cdef const pgr_logical *body = &source.body.logical
    content = PyBytes_FromStringAndSize(
        <const char *>body.content.bytes, <Py_ssize_t>body.content.size
    )
    message = new_instance(&MESSAGE)
    put(message, &MESSAGE, 0, body.transactional != 0)
    put(message, &MESSAGE, 1, lsn_of(body.lsn))
    put(message, &MESSAGE, 2, text_of(body.prefix))
    put(message, &MESSAGE, 3, content)
    put(message, &MESSAGE, 4, xid_of(source))
    return message
