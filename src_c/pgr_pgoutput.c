#include "pgr_pgoutput.h"

/* Each flag byte knows its bits; a bit without a meaning is a message that we would misread. */
enum {
    ATTRIBUTE_KEY = 1,
    MESSAGE_TRANSACTIONAL = 1,
    TRUNCATE_CASCADE = 1,
    TRUNCATE_RESTART_IDENTITY = 2,
    STREAM_FIRST_SEGMENT = 1
};

/* Where a message can stand, and whether it has an xid inside of a stream block. */
enum {
    OUTSIDE = 1, /* of stream blocks */
    INSIDE = 2,
    MARKED = 4,
    ANYWHERE = OUTSIDE | INSIDE,
    /* Looked at where the order is. Stream blocks hold parts of other transactions. */
    BETWEEN = 8, /* no transaction is open */
    WITHIN = 16, /* one is, or a stream block */
    BEGINS = 32 | BETWEEN,
    ENDS = 64
};

typedef struct rule {
    uint8_t since; /* protocol version; 0: no message has this tag */
    uint8_t place;
} rule;

static const rule RULES[UINT8_MAX + 1] = {
    ['B'] = {1, OUTSIDE | BEGINS},
    ['C'] = {1, OUTSIDE | ENDS},
    ['O'] = {1, ANYWHERE | WITHIN},
    ['R'] = {1, ANYWHERE | MARKED},
    ['Y'] = {1, ANYWHERE | MARKED},
    ['I'] = {1, ANYWHERE | MARKED | WITHIN},
    ['U'] = {1, ANYWHERE | MARKED | WITHIN},
    ['D'] = {1, ANYWHERE | MARKED | WITHIN},
    ['T'] = {1, ANYWHERE | MARKED | WITHIN},
    ['M'] = {1, ANYWHERE | MARKED}, /* WITHIN if it is transactional */
    ['S'] = {2, OUTSIDE | BETWEEN},
    ['E'] = {2, INSIDE},
    ['c'] = {2, OUTSIDE | BETWEEN},
    ['A'] = {1, OUTSIDE}, /* as PostgreSQL 18 sees it */
    ['b'] = {3, OUTSIDE | BEGINS},
    ['P'] = {3, OUTSIDE | ENDS},
    ['K'] = {3, OUTSIDE | BETWEEN},
    ['r'] = {3, OUTSIDE | BETWEEN},
    ['p'] = {3, OUTSIDE | BETWEEN},
};

static uint8_t read_flags(pgr_cursor *cursor, uint8_t known) {
    uint8_t flags = pgr_cursor_u8(cursor);
    if ((flags & ~known) != 0)
        pgr_cursor_fail(cursor, PGR_FAULT_FLAGS, cursor->at - 1, known, flags);
    return flags;
}

static uint16_t read_count16(pgr_cursor *cursor) {
    uint16_t count = pgr_cursor_u16(cursor);
    if (count <= INT16_MAX)
        return count;
    pgr_cursor_fail(cursor, PGR_FAULT_COUNT, cursor->at - 2, 0, (int64_t)count - 0x10000);
    return 0;
}

pgr_status pgr_attribute_next(pgr_cursor *cursor, pgr_attribute *attribute) {
    attribute->is_key = read_flags(cursor, ATTRIBUTE_KEY);
    attribute->name = pgr_cursor_cstr(cursor);
    attribute->type_oid = pgr_cursor_u32(cursor);
    attribute->type_modifier = pgr_cursor_i32(cursor);
    return cursor->status;
}

/*
 * Pass over columns that are as they should be, at most `count`; return how many are left. Each
 * kind and size is looked at once. It stops at whatever is at fault, for pgr_column_next to say so.
 */
static uint16_t pass_columns(pgr_cursor *cursor, uint16_t count) {
    const uint8_t *at = cursor->at, *end = cursor->end;
    for (; count > 0 && at < end; count--) {
        uint8_t kind = *at;
        size_t left = (size_t)(end - at);
        if (kind == 't' || kind == 'b') {
            if (left < 5)
                break;
            uint32_t size = pgr_load32(at + 1);
            if (size > INT32_MAX || size > left - 5)
                break;
            at += 5 + (size_t)size;
        } else if (kind == 'n' || kind == 'u') {
            at++;
        } else {
            break;
        }
    }
    cursor->at = at;
    return count;
}

/* Read a tuple behind its mark. */
static void read_tuple(pgr_cursor *cursor, uint8_t mark, pgr_tuple *tuple) {
    tuple->mark = mark;
    tuple->column_count = read_count16(cursor);
    tuple->columns.bytes = cursor->at;
    pgr_column column;
    for (uint16_t left = pass_columns(cursor, tuple->column_count); left > 0; left--)
        if (pgr_column_next(cursor, &column) != PGR_OK)
            break;
    tuple->columns.size = (size_t)(cursor->at - tuple->columns.bytes);
}

static void wrong_mark(pgr_cursor *cursor, uint8_t mark) {
    pgr_cursor_fail(cursor, PGR_FAULT_TUPLE_MARK, cursor->at - 1, 0, mark);
}

static void read_new_tuple(pgr_cursor *cursor, uint8_t mark, pgr_change *change) {
    if (mark == 'N')
        read_tuple(cursor, mark, &change->new_tuple);
    else
        wrong_mark(cursor, mark);
}

static void read_change(pgr_cursor *cursor, uint8_t tag, pgr_change *change) {
    change->old_tuple.mark = 0;
    change->new_tuple.mark = 0;
    change->relation = pgr_cursor_u32(cursor);
    uint8_t mark = pgr_cursor_u8(cursor);
    if (tag != 'I' && (mark == 'K' || mark == 'O')) {
        read_tuple(cursor, mark, &change->old_tuple);
        if (tag == 'U')
            read_new_tuple(cursor, pgr_cursor_u8(cursor), change);
    } else if (tag != 'D') {
        read_new_tuple(cursor, mark, change);
    } else {
        wrong_mark(cursor, mark);
    }
}

static void read_begin(pgr_cursor *cursor, pgr_begin *begin) {
    begin->final_lsn = pgr_cursor_u64(cursor);
    begin->commit_time = pgr_cursor_i64(cursor);
    begin->xid = pgr_cursor_u32(cursor);
}

static void read_commit(pgr_cursor *cursor, pgr_commit *commit) {
    read_flags(cursor, 0);
    commit->commit_lsn = pgr_cursor_u64(cursor);
    commit->end_lsn = pgr_cursor_u64(cursor);
    commit->commit_time = pgr_cursor_i64(cursor);
}

static void read_origin(pgr_cursor *cursor, pgr_origin *origin) {
    origin->commit_lsn = pgr_cursor_u64(cursor);
    origin->name = pgr_cursor_cstr(cursor);
}

static void read_relation(pgr_cursor *cursor, pgr_relation *relation) {
    relation->oid = pgr_cursor_u32(cursor);
    relation->schema = pgr_cursor_cstr(cursor);
    relation->name = pgr_cursor_cstr(cursor);
    uint8_t identity = pgr_cursor_u8(cursor);
    if (identity != 'd' && identity != 'n' && identity != 'f' && identity != 'i')
        pgr_cursor_fail(cursor, PGR_FAULT_IDENTITY, cursor->at - 1, 0, identity);
    relation->replica_identity = identity;
    relation->attribute_count = read_count16(cursor);
    relation->attributes.bytes = cursor->at;
    pgr_attribute attribute;
    for (uint16_t i = 0; i < relation->attribute_count; i++)
        if (pgr_attribute_next(cursor, &attribute) != PGR_OK)
            break;
    relation->attributes.size = (size_t)(cursor->at - relation->attributes.bytes);
}

static void read_type(pgr_cursor *cursor, pgr_type *type) {
    type->oid = pgr_cursor_u32(cursor);
    type->schema = pgr_cursor_cstr(cursor);
    type->name = pgr_cursor_cstr(cursor);
}

static void read_truncate(pgr_cursor *cursor, pgr_truncate *truncate) {
    truncate->relation_count = pgr_cursor_count32(cursor, PGR_FAULT_COUNT);
    uint8_t flags = read_flags(cursor, TRUNCATE_CASCADE | TRUNCATE_RESTART_IDENTITY);
    truncate->cascade = (flags & TRUNCATE_CASCADE) != 0;
    truncate->restart_identity = (flags & TRUNCATE_RESTART_IDENTITY) != 0;
    truncate->relations = pgr_cursor_bytes(cursor, (uint64_t)truncate->relation_count * 4);
}

static void read_logical(pgr_cursor *cursor, pgr_logical *logical) {
    logical->transactional = read_flags(cursor, MESSAGE_TRANSACTIONAL);
    logical->lsn = pgr_cursor_u64(cursor);
    logical->prefix = pgr_cursor_cstr(cursor);
    logical->content = pgr_cursor_bytes(cursor, pgr_cursor_count32(cursor, PGR_FAULT_COUNT));
}

static void read_stream_start(pgr_cursor *cursor, pgr_stream_start *start) {
    start->xid = pgr_cursor_u32(cursor);
    start->first_segment = read_flags(cursor, STREAM_FIRST_SEGMENT);
}

static void read_stream_commit(pgr_cursor *cursor, pgr_stream_commit *stream_commit) {
    stream_commit->xid = pgr_cursor_u32(cursor);
    read_commit(cursor, &stream_commit->commit);
}

static void read_stream_abort(pgr_cursor *cursor, uint8_t detailed, pgr_stream_abort *abort) {
    abort->xid = pgr_cursor_u32(cursor);
    abort->subxid = pgr_cursor_u32(cursor);
    abort->detailed = detailed;
    if (detailed) {
        abort->abort_lsn = pgr_cursor_u64(cursor);
        abort->abort_time = pgr_cursor_i64(cursor);
    }
}

static void read_prepared(pgr_cursor *cursor, uint8_t tag, pgr_prepared *prepared) {
    if (tag != 'b')
        read_flags(cursor, 0);
    prepared->lsn = pgr_cursor_u64(cursor);
    prepared->end_lsn = pgr_cursor_u64(cursor);
    prepared->time = pgr_cursor_i64(cursor);
    prepared->xid = pgr_cursor_u32(cursor);
    prepared->gid = pgr_cursor_cstr(cursor);
}

static void read_rollback_prepared(pgr_cursor *cursor, pgr_rollback_prepared *rollback) {
    read_flags(cursor, 0);
    rollback->prepare_end_lsn = pgr_cursor_u64(cursor);
    rollback->rollback_end_lsn = pgr_cursor_u64(cursor);
    rollback->prepare_time = pgr_cursor_i64(cursor);
    rollback->rollback_time = pgr_cursor_i64(cursor);
    rollback->xid = pgr_cursor_u32(cursor);
    rollback->gid = pgr_cursor_cstr(cursor);
}

/* Read the body of a message that its rule allows here. */
static void read_body(pgr_cursor *cursor, const pgr_stream *stream, pgr_message *message) {
    pgr_body *body = &message->body;
    switch (message->tag) {
    case 'I':
    case 'U':
    case 'D':
        read_change(cursor, message->tag, &body->change);
        break;
    case 'B':
        read_begin(cursor, &body->begin);
        break;
    case 'C':
        read_commit(cursor, &body->commit);
        break;
    case 'O':
        read_origin(cursor, &body->origin);
        break;
    case 'R':
        read_relation(cursor, &body->relation);
        break;
    case 'Y':
        read_type(cursor, &body->type);
        break;
    case 'T':
        read_truncate(cursor, &body->truncate);
        break;
    case 'M':
        read_logical(cursor, &body->logical);
        break;
    case 'S':
        read_stream_start(cursor, &body->stream_start);
        break;
    case 'c':
        read_stream_commit(cursor, &body->stream_commit);
        break;
    case 'A':
        read_stream_abort(cursor, stream->parallel, &body->stream_abort);
        break;
    case 'r':
        read_rollback_prepared(cursor, &body->rollback_prepared);
        break;
    case 'b':
    case 'P':
    case 'K':
    case 'p':
        read_prepared(cursor, message->tag, &body->prepared);
        break;
    default:
        break; /* StreamStop has no body */
    }
}

/* Whether the stream's version has this message, and may have it at this place. */
static void check_rule(pgr_cursor *cursor, const pgr_stream *stream, uint8_t tag, rule rule) {
    if (rule.since == 0 || rule.since > stream->proto_version)
        pgr_cursor_fail(cursor, PGR_FAULT_LOGICAL_TAG, cursor->start, stream->proto_version, tag);
    else if (stream->in_block && !(rule.place & INSIDE))
        pgr_cursor_fail(cursor, PGR_FAULT_STREAM_OPEN, cursor->start, 0, stream->block_xid);
    else if (!stream->in_block && !(rule.place & OUTSIDE))
        pgr_cursor_fail(cursor, PGR_FAULT_STREAM_CLOSED, cursor->start, 0, 0);
}

/* Whether transactions begin and end as they should. */
static void check_order(pgr_cursor *cursor, const pgr_stream *stream, const pgr_message *message,
                        uint8_t place) {
    uint8_t open = stream->transaction;
    int within = (place & WITHIN) || (message->tag == 'M' && message->body.logical.transactional);
    if ((within && !open && !stream->in_block) || ((place & ENDS) && !open))
        pgr_cursor_fail(cursor, PGR_FAULT_TRANSACTION_CLOSED, cursor->start, 0, 0);
    else if (((place & BETWEEN) && open) ||
             ((place & ENDS) && open != (message->tag == 'C' ? 'B' : 'b')))
        pgr_cursor_fail(cursor, PGR_FAULT_TRANSACTION_OPEN, cursor->start, 0, open);
}

/* Take note of what has begun or ended with a message. */
static void advance(pgr_stream *stream, const pgr_message *message, uint8_t place) {
    if (message->tag == 'S') {
        stream->in_block = 1;
        stream->block_xid = message->body.stream_start.xid;
    } else if (message->tag == 'E') {
        stream->in_block = 0;
    } else if ((place & BEGINS) == BEGINS) {
        stream->transaction = message->tag;
    } else if (place & ENDS) {
        stream->transaction = 0;
    }
}

pgr_status pgr_pgoutput_read(pgr_stream *stream, const uint8_t *bytes, size_t size,
                             pgr_message *message, pgr_error *error) {
    if (size == 0)
        return pgr_fail(error, PGR_FAULT_LOGICAL_EMPTY, 0, 0, 1, 0);
    message->tag = bytes[0];
    message->start = bytes;
    rule rule = RULES[message->tag];
    pgr_cursor cursor = pgr_message_cursor(message, (pgr_span){bytes + 1, size - 1});
    check_rule(&cursor, stream, message->tag, rule);
    message->marked = stream->in_block && rule.place & MARKED;
    message->xid = message->marked ? pgr_cursor_u32(&cursor) : 0;
    read_body(&cursor, stream, message);
    size_t left = pgr_cursor_left(&cursor);
    if (left > 0)
        pgr_cursor_fail(&cursor, PGR_FAULT_TRAILING, cursor.at, 0, (int64_t)left);
    if (stream->ordered && cursor.status == PGR_OK)
        check_order(&cursor, stream, message, rule.place);
    if (cursor.status == PGR_OK)
        advance(stream, message, rule.place);
    else
        *error = cursor.error;
    return cursor.status;
}
