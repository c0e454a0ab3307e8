# Transactions that a batch has as a whole, a part of pgoutput.pyx as well: nothing is made for what
# begins and ends them, and no Python runs for one but whoever reads it.
#
# Looked for is what is ordinary: Begin, changes and what describes relations, Commit, in order.
# All else is left where it is, for the general way: what comes with an origin, was prepared or
# streamed, goes on in another batch, or is wrong, which is said there.

cdef enum:
    BEGIN_SIZE = 21
    COMMIT_SIZE = 26


cdef struct Outline:
    uint64_t commit_lsn
    uint64_t end_lsn
    int64_t commit_time
    uint64_t changes
    uint32_t xid
    uint32_t unused


cdef bint look_ahead(Changes source, Outline *found) noexcept:
    """Say whether a whole transaction comes next, and what there is to know of it. Reads nothing
    that the batch does not have, and checks what takes more than one message; the decoder checks
    each of them."""
    cdef pgr_wal_columns *columns = &source.batch.table.columns
    cdef const uint8_t *bytes = source.batch.bytes
    cdef Decoder decoder = source.decoder
    cdef size_t i = source.next
    cdef size_t end = source.batch.run.xlogdata
    cdef const uint8_t *at
    if i == end or columns.size[i] != BEGIN_SIZE or decoder.state != READY:
        return False
    at = bytes + columns.offset[i]
    if at[0] != c"B" or decoder.stream.in_block or decoder.unsettled:
        return False
    found.commit_lsn = pgr_load64(at + 1)
    if found.commit_lsn < decoder.ended:
        return False
    found.commit_time = <int64_t>pgr_load64(at + 9)
    found.xid = pgr_load32(at + 17)
    found.unused = 0
    found.changes = 0
    while True:
        i += 1
        if i == end or columns.size[i] == 0:
            return False
        at = bytes + columns.offset[i]
        if at[0] in (c"I", c"U", c"D", c"T", c"M"):
            found.changes += 1
        elif at[0] == c"C":
            break
        elif at[0] not in (c"R", c"Y"):
            return False
    if columns.size[i] != COMMIT_SIZE or pgr_load64(at + 2) != found.commit_lsn:
        return False
    found.end_lsn = pgr_load64(at + 10)
    return found.end_lsn >= found.commit_lsn


cdef int pass_bare(Changes source) except -1:
    """Decode the Begin or Commit that comes next, of which all is known, and make nothing."""
    source.decoder.bare = True
    try:
        source.decode()
    finally:
        source.decoder.bare = False
    return 0


cdef uint64_t gather_whole(
    Changes source, list changes, list parts, Py_ssize_t max_rows
) except? 0:
    """See `Changes.gather`."""
    cdef Outline outline
    cdef uint64_t end_lsn = 0
    cdef Py_ssize_t first = len(changes)
    cdef bytearray outlines = bytearray()
    while look_ahead(source, &outline):
        if <Py_ssize_t>outline.changes > max_rows - len(changes):
            break
        pass_bare(source)
        while (change := next_of_whole(source)) is not None:
            changes.append(change)
        pass_bare(source)
        end_lsn = outline.end_lsn
        append_bytes(outlines, &outline, sizeof(Outline))
    if end_lsn:
        parts.append((outlines, first, 0))
    return end_lsn


cdef object next_of_whole(Changes source):
    """Decode the next change of a transaction that is at hand as a whole; None: its end is next."""
    cdef uint8_t tag
    while source.next < source.batch.run.xlogdata:
        tag = source.tag()
        if tag == c"C":
            return None
        message = source.decode()
        if tag not in (c"R", c"Y"):
            return message
    raise UsageError(entered)  # somebody was here while a relation was described


cdef int append_bytes(bytearray target, const void *bytes, size_t size) except -1:
    cdef Py_ssize_t before = len(target)
    PyByteArray_Resize(target, before + <Py_ssize_t>size)
    memcpy(PyByteArray_AS_STRING(target) + before, bytes, size)
    return 0
