# Messages without rows, made of what the core has read: a part of pgoutput.pyx.

cdef object make_begin(const pgr_begin *body):
    begin = new_instance(&BEGIN)
    put(begin, &BEGIN, 0, lsn_of(body.final_lsn))
    put(begin, &BEGIN, 1, body.commit_time)
    put(begin, &BEGIN, 2, body.xid)
    return begin


cdef object make_commit(const pgr_commit *body):
    commit = new_instance(&COMMIT)
    put(commit, &COMMIT, 0, lsn_of(body.commit_lsn))
    put(commit, &COMMIT, 1, lsn_of(body.end_lsn))
    put(commit, &COMMIT, 2, body.commit_time)
    return commit


cdef object make_origin(const pgr_message *message):
    cdef const pgr_origin *body = &message.body.origin
    return Origin(lsn_of(body.commit_lsn), text_of(body.name))


cdef object make_stream_commit(const pgr_stream_commit *body):
    cdef const pgr_commit *commit = &body.commit
    return StreamCommit(
        body.xid, lsn_of(commit.commit_lsn), lsn_of(commit.end_lsn), commit.commit_time
    )


cdef object make_stream_abort(const pgr_stream_abort *body):
    if not body.detailed:
        return StreamAbort(body.xid, body.subxid)
    return StreamAbort(body.xid, body.subxid, lsn_of(body.abort_lsn), body.abort_time)


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
    gid = text_of(body.gid)
    return cls(lsn_of(body.lsn), lsn_of(body.end_lsn), body.time, body.xid, gid)


cdef object make_rollback_prepared(const pgr_message *message):
    cdef const pgr_rollback_prepared *body = &message.body.rollback_prepared
    return RollbackPrepared(
        lsn_of(body.prepare_end_lsn), lsn_of(body.rollback_end_lsn),
        body.prepare_time, body.rollback_time, body.xid,
        text_of(body.gid),
    )
