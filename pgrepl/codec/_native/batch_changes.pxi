# The messages of a batch, one at a time: a part of pgoutput.pyx, since they reach into its Decoder.

@cython.final
cdef class Changes:
    """The decoded messages of a batch, in order, each made when it is asked for.

    Whoever iterates takes what comes next, also after iterating over a transaction. Raises what
    `Decoder.feed` raises.

    With a spool, what comes between StreamStart and StreamStop is put aside, but for a Message that
    is not transactional: that has happened, whatever becomes of the transaction. When StreamCommit
    or StreamPrepare comes, `streamed` has the rest. Raises `SpoolError` when the system does not
    let it be put aside; nothing can be decoded after that. A StreamCommit of a transaction of which
    no block came, or a block without the first one, is a `DecodeError`.
    """

    cdef Decoder decoder
    cdef WalBatch batch
    cdef object spool
    cdef size_t next            # of the batch's XLogData
    cdef readonly object end    # what ended the transaction
    cdef readonly object origin

    def __iter__(self):
        return self

    def __next__(self):
        while self.next < self.batch.run.xlogdata:
            message = self.decode()
            if message is not None:
                return message
        raise StopIteration

    cdef object decode(self):
        """Decode the next message; None: it was put aside."""
        cdef pgr_wal_columns *columns = &self.batch.table.columns
        cdef Decoder decoder = self.decoder
        cdef size_t i = self.next
        decoder.ready()
        self.next = i + 1
        decoder.lsn = columns.wal_start[i]
        decoder.has_lsn = decoder.lsn != 0
        decoder.spool = self.spool
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

    def streamed(self, uint32_t xid):
        """Iterate over what a streamed transaction consists of, whose end was just decoded."""
        if self.spool is None:
            raise ValueError("expected changes that were decoded with a spool")
        return replay_of(self.spool.take(xid), &self.decoder.stream, xid)

    def put_aside(self, stored):
        """Put the changes of the transaction that is open aside."""
        cdef uint8_t tag
        self.end = self.origin = None
        self.decoder.keeper = writer_of(stored)
        try:
            while self.end is None and self.next < self.batch.run.xlogdata:
                tag = self.tag()
                message = self.decode()
                if tag in (c"C", c"P"):
                    self.end = message
                elif tag == c"O":
                    self.origin = message
        finally:
            self.decoder.keeper = None

    def kept(self, stored):
        """Iterate over what was put aside as often as wanted."""
        cdef pgr_stream stream = self.decoder.stream
        stream.ordered = stream.in_block = False  # changes alone, without what surrounds them
        return kept_of(stored, &stream)

    def settle(self):
        """Count the streamed transaction as delivered: its changes have been read."""
        if self.decoder.unsettled:
            self.decoder.end(self.decoder.unsettled)
            self.decoder.unsettled = 0

    def begin(self, Mould mould not None):
        """Begin the transaction that comes next, if the batch has all of it and it is ordinary."""
        cdef Outline outline
        if not look_ahead(self, &outline):
            return None
        pass_bare(self)
        return mould.make(self, &outline)

    def gather(self, list changes not None, list parts not None, Py_ssize_t max_rows):
        """Add the changes of ordinary transactions that the batch has as a whole."""
        return gather_whole(self, changes, parts, max_rows)

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
            message = source.decode()
            if message is None:
                continue
            if tag in (c"I", c"U", c"D", c"T", c"M"):
                return message
            if tag in (c"C", c"P"):
                source.end = message
            elif tag == c"O":
                source.origin = message
        raise StopIteration
