# What makes and reads the transactions that `at_hand` finds: a part of pgoutput.pyx as well.

# Places in a mould's slots of what is received and of what is given.
cdef enum:
    XID
    COMMIT_LSN
    COMMIT_TIME
    RUN
    END_LSN
    HAS_ENDED
    UNREADABLE
    ACKNOWLEDGED
    RECEIVED = 0


@cython.final
cdef class Mould:
    """Mould(received, given, reading, read, rest)\n--\n
    Makes transactions that a batch has as a whole, each a copy of two templates.

    See the contract, `codec.abc`.
    """

    cdef readonly object received   # what is known of the one that was made last
    cdef tuple templates
    cdef Slots received_slots
    cdef Slots given_slots
    cdef object reading
    cdef object read
    cdef object rest

    def __cinit__(self, received, given, reading, read, rest):
        self.received_slots = all_slots_of(type(received), (
            "xid", "commit_lsn", "commit_time", "run", "end_lsn", "has_ended", "unreadable",
            "acknowledged",
        ))
        self.given_slots = all_slots_of(type(given), ("_received",))
        self.received, self.templates = received, (received, given)
        self.reading, self.read, self.rest = reading, read, rest

    cdef object make(self, Changes source, const Outline *outline):
        cdef Slots *slots = &self.received_slots
        cdef Run run = Run.__new__(Run)
        received = copy_of(self.templates[0], slots)
        given = copy_of(self.templates[1], &self.given_slots)
        run.source, run.received, run.mould = source, received, self
        run.end_lsn = outline.end_lsn
        replace(received, slots, RUN, run)
        replace(received, slots, XID, outline.xid)
        replace(received, slots, COMMIT_LSN, lsn_of(outline.commit_lsn))
        replace(received, slots, COMMIT_TIME, outline.commit_time)
        replace(given, &self.given_slots, RECEIVED, received)
        track(received)
        track(given)
        self.received = received
        return given


@cython.final
cdef class Run:
    """The changes of a transaction that a batch has as a whole, for `for` and for `async for`.

    It gives them as long as it is the transaction's `run`. Where that is so no longer, since it was
    skipped or passed over for instance, the `rest` comes as the mould says.
    """

    cdef Changes source
    cdef object received        # None: it has ended
    cdef Mould mould
    cdef object rest
    cdef uint64_t end_lsn

    def __iter__(self):
        return self

    def __next__(self):
        if self.received is None:
            raise StopIteration
        if not self.goes_on():
            return next(self.rest)
        change = self.step()
        if change is None:
            raise StopIteration
        return change

    def __aiter__(self):
        return self

    def __anext__(self):
        if self.received is None:
            return ready(None)
        if not self.goes_on():
            return self.rest.__anext__()
        return ready(self.step())

    cdef bint goes_on(self) except -1:
        if slot(self.received, &self.mould.received_slots, RUN) == <PyObject *>self:
            return True
        if self.rest is None:
            self.rest = self.mould.rest(self.received, self.mould.reading)
        return False

    cdef object step(self):
        """Return the next change, None behind the last one."""
        try:
            change = next_of_whole(self.source)
            if change is not None:
                return change
            pass_bare(self.source)
        except BaseException as error:
            self.mould.reading.has_failed(error)
            raise
        self.end()
        return None

    cdef int end(self) except -1:
        cdef Slots *slots = &self.mould.received_slots
        received, self.received = self.received, None
        replace(received, slots, END_LSN, lsn_of(self.end_lsn))
        replace(received, slots, HAS_ENDED, True)
        replace(received, slots, UNREADABLE, self.mould.read)
        replace(received, slots, RUN, None)
        if slot(received, slots, ACKNOWLEDGED) != <PyObject *>None:
            self.mould.reading.end(received)
        return 0


@cython.final
@cython.freelist(8)
cdef class Ready:
    """An awaitable whose result is there: nothing waits, and no coroutine is made."""

    cdef object result      # None: there are no more

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self.result is None:
            raise StopAsyncIteration
        raise StopIteration(self.result)


def ready(result):
    """Return an awaitable for what is there; None: for the end of an asynchronous iteration."""
    cdef Ready made = Ready.__new__(Ready)
    made.result = result
    return made


cdef PySendResult send(PyObject *awaitable, PyObject *value, PyObject **result) noexcept:
    """What `await` calls, where a class has it: the result comes without a StopIteration."""
    cdef Ready made = <Ready>awaitable
    result[0] = NULL
    if made.result is None:
        PyErr_SetNone(StopAsyncIteration)
        return PYGEN_ERROR
    Py_INCREF(made.result)
    result[0] = <PyObject *>made.result
    return PYGEN_RETURN


let_send(<PyTypeObject *>Ready, send)
