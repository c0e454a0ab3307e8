#include "pgr_pgoutput.h"

/* Each flag byte knows its bits; a bit without a meaning is a message that we would misread. */
enum {
    ATTRIBUTE_KEY = 1,
    MESSAGE_TRANSACTIONAL = 1,
    TRUNCATE_CASCADE = 1,
    TRUNCATE_RESTART_IDENTITY = 2
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

/* A signed length or count of 32 bits, 0 and more; below 0 it is this fault. */
static uint32_t read_count32(pgr_cursor *cursor, pgr_fault fault) {
    int32_t count = pgr_cursor_i32(cursor);
    if (count >= 0)
        return (uint32_t)count;
    pgr_cursor_fail(cursor, fault, cursor->at - 4, 0, count);
    return 0;
}

pgr_status pgr_column_next(pgr_cursor *cursor, pgr_column *column) {
    column->kind = pgr_cursor_u8(cursor);
    column->value = (pgr_span){cursor->at, 0};
    switch (column->kind) {
    case 't':
    case 'b':
        column->value = pgr_cursor_bytes(cursor, read_count32(cursor, PGR_FAULT_COLUMN_LENGTH));
        break;
    case 'n':
    case 'u':
        break;
    default:
        pgr_cursor_fail(cursor, PGR_FAULT_COLUMN_KIND, cursor->at - 1, 0, column->kind);
    }
    return cursor->status;
}

pgr_status pgr_attribute_next(pgr_cursor *cursor, pgr_attribute *attribute) {
    attribute->is_key = read_flags(cursor, ATTRIBUTE_KEY);
    attribute->name = pgr_cursor_cstr(cursor);
    attribute->type_oid = pgr_cursor_u32(cursor);
    attribute->type_modifier = pgr_cursor_i32(cursor);
    return cursor->status;
}

/* Read a tuple behind its mark. */
static void read_tuple(pgr_cursor *cursor, uint8_t mark, pgr_tuple *tuple) {
    tuple->mark = mark;
    tuple->column_count = read_count16(cursor);
    tuple->columns.bytes = cursor->at;
    pgr_column column;
    for (uint16_t i = 0; i < tuple->column_count; i++)
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
    truncate->relation_count = read_count32(cursor, PGR_FAULT_COUNT);
    uint8_t flags = read_flags(cursor, TRUNCATE_CASCADE | TRUNCATE_RESTART_IDENTITY);
    truncate->cascade = (flags & TRUNCATE_CASCADE) != 0;
    truncate->restart_identity = (flags & TRUNCATE_RESTART_IDENTITY) != 0;
    truncate->relations = pgr_cursor_bytes(cursor, (uint64_t)truncate->relation_count * 4);
}

static void read_logical(pgr_cursor *cursor, pgr_logical *logical) {
    logical->transactional = read_flags(cursor, MESSAGE_TRANSACTIONAL);
    logical->lsn = pgr_cursor_u64(cursor);
    logical->prefix = pgr_cursor_cstr(cursor);
    logical->content = pgr_cursor_bytes(cursor, read_count32(cursor, PGR_FAULT_COUNT));
}

static void read_body(pgr_cursor *cursor, pgr_message *message) {
    switch (message->tag) {
    case 'B':
        read_begin(cursor, &message->body.begin);
        break;
    case 'C':
        read_commit(cursor, &message->body.commit);
        break;
    case 'O':
        read_origin(cursor, &message->body.origin);
        break;
    case 'R':
        read_relation(cursor, &message->body.relation);
        break;
    case 'Y':
        read_type(cursor, &message->body.type);
        break;
    case 'I':
    case 'U':
    case 'D':
        read_change(cursor, message->tag, &message->body.change);
        break;
    case 'T':
        read_truncate(cursor, &message->body.truncate);
        break;
    case 'M':
        read_logical(cursor, &message->body.logical);
        break;
    default:
        pgr_cursor_fail(cursor, PGR_FAULT_LOGICAL_TAG, message->start, 0, message->tag);
    }
}

pgr_status pgr_pgoutput_read(const uint8_t *bytes, size_t size, pgr_message *message,
                             pgr_error *error) {
    if (size == 0)
        return pgr_fail(error, PGR_FAULT_LOGICAL_EMPTY, 0, 0, 1, 0);
    message->tag = bytes[0];
    message->start = bytes;
    pgr_cursor cursor = pgr_message_cursor(message, (pgr_span){bytes + 1, size - 1});
    read_body(&cursor, message);
    size_t left = pgr_cursor_left(&cursor);
    if (left > 0)
        pgr_cursor_fail(&cursor, PGR_FAULT_TRAILING, cursor.at, 0, (int64_t)left);
    if (cursor.status != PGR_OK)
        *error = cursor.error;
    return cursor.status;
}
