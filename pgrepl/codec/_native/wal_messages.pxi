# What a WalBatch makes: a part of wal.pyx, which fills them.

# No cycle can pass through these: they refer to chunks, bytes and columns only.
@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class XLogData:
    """XLogData(wal_start, wal_end, server_time, data)\n--\n
    One WAL data message. Supports the buffer protocol; `bytes(message)` copies the payload.

    Positions are plain integers here, since a stream brings millions of them: ``Lsn(m.wal_start)``.
    """

    __match_args__ = ("wal_start", "wal_end", "server_time", "data")

    def __init__(self, wal_start, wal_end, server_time, data):
        if self.fresh:
            self.fresh = False
            return
        if self.owner is not None:
            raise TypeError("an XLogData cannot be initialised twice")
        self.wal_start = <uint64_t>as_int(wal_start)
        self.wal_end = <uint64_t>as_int(wal_end)
        self.server_time = <int64_t>as_int(server_time)
        self.owner = bytes(memoryview(data))
        self.payload = <const uint8_t *>PyBytes_AS_STRING(self.owner)
        self.size = PyBytes_GET_SIZE(self.owner)
        self.fresh = True

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, <void *>self.payload, self.size, True, flags)

    @property
    def data(self):
        """The payload, read-only and not copied. The view keeps the whole chunk in memory."""
        return PyMemoryView_FromObject(self)

    @property
    def server_datetime(self):
        """`server_time` as an aware `datetime`."""
        return to_datetime(self.server_time)

    def __len__(self):
        return self.size

    def __bytes__(self):
        return PyBytes_FromStringAndSize(<const char *>self.payload, self.size)

    def _fields(self):
        return self.wal_start, self.wal_end, self.server_time, self.__bytes__()

    def __eq__(self, other):
        if not isinstance(other, XLogData):
            return NotImplemented
        return self._fields() == (<XLogData>other)._fields()

    def __hash__(self):
        return hash(self._fields())

    def __reduce__(self):
        return XLogData, self._fields()

    def __repr__(self):
        return (
            f"<XLogData wal_start={encode_lsn(self.wal_start)} wal_end={encode_lsn(self.wal_end)} "
            f"server_time={self.server_time} {self.size} bytes>"
        )


cdef PyMemberDef[3] slots
cdef PyTypeObject *message_type = <PyTypeObject *>XLogData


cdef int expose_slots() except -1:
    # The headers are what is read of every message.
    cdef XLogData probe = XLogData.__new__(XLogData)
    cdef PyObject *fields = <PyObject *>probe
    probe.wal_start = object()
    probe.wal_end = object()
    probe.server_time = object()
    expose(
        message_type, &slots[0], b"wal_start", b"Position of the data.", fields, probe.wal_start
    )
    expose(
        message_type, &slots[1], b"wal_end",
        b"The server's position: where its WAL ends, or wal_start again.", fields, probe.wal_end
    )
    expose(
        message_type, &slots[2], b"server_time",
        b"When it was sent, in microseconds since 2000-01-01 UTC.", fields, probe.server_time
    )
    return 0


expose_slots()


@cython.final
@cython.no_gc
cdef class PrimaryKeepalive:
    """PrimaryKeepalive(wal_end, server_time, reply_requested)\n--\n
    The server's sign of life: its position, its clock, and whether it wants an answer now."""

    __match_args__ = ("wal_end", "server_time", "reply_requested")

    def __init__(self, wal_end, server_time, reply_requested):
        if self.fresh:
            self.fresh = False
            return
        if self.known:
            raise TypeError("a PrimaryKeepalive cannot be initialised twice")
        self.position = as_int(wal_end)
        self.time = as_int(server_time)
        self.is_request = reply_requested
        self.fresh = self.known = True

    @property
    def wal_end(self):
        """Physical: what was sent so far. Logical: how far the server has read its WAL."""
        return Lsn(self.position)

    @property
    def server_time(self):
        """When the server sent it, in microseconds since 2000-01-01 00:00 UTC."""
        return self.time

    @property
    def reply_requested(self):
        """Whether the server closes the connection unless a status comes soon."""
        return self.is_request

    @property
    def server_datetime(self):
        """`server_time` as an aware `datetime`."""
        return to_datetime(self.time)

    def _fields(self):
        return self.position, self.time, self.is_request

    def __eq__(self, other):
        if not isinstance(other, PrimaryKeepalive):
            return NotImplemented
        return self._fields() == (<PrimaryKeepalive>other)._fields()

    def __hash__(self):
        return hash(self._fields())

    def __reduce__(self):
        return PrimaryKeepalive, self._fields()

    def __repr__(self):
        return (
            f"<PrimaryKeepalive wal_end={encode_lsn(self.position)} "
            f"server_time={self.time} reply_requested={self.is_request}>"
        )
