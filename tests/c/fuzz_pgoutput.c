/*
 * A conversation of pgoutput of any bytes: how it was asked for, then messages, each behind its
 * size. What was read lies within the message and can be walked through again, also when somebody
 * has written to the bytes meanwhile; a fault leaves the stream where it was.
 */
#include "fuzz_driver.h"
#include "pgr_pgoutput.h"

/* Version and flags, then the sizes of messages in a byte each. */
#define BEGIN                                                                                      \
    "\x15"                                                                                         \
    "B\0\0\0\1\xF7\x3E\2\x20\0\2\xD6\1\2\3\4\5\0\0\2\xDC"
#define RELATION                                                                                   \
    "\x2B"                                                                                         \
    "R\0\0\x40\1public\0item\0d\0\2"                                                               \
    "\1id\0\0\0\0\x17\xFF\xFF\xFF\xFF"                                                             \
    "\0n\0\0\0\0\x19\xFF\xFF\xFF\xFF"
#define INSERT                                                                                     \
    "\x0F"                                                                                         \
    "I\0\0\x40\1N\0\2t\0\0\0\1"                                                                    \
    "1n"
#define UPDATE                                                                                     \
    "\x12"                                                                                         \
    "U\0\0\x40\1K\0\1t\0\0\0\1"                                                                    \
    "1N\0\1u"
#define COMMIT                                                                                     \
    "\x1A"                                                                                         \
    "C\0\0\0\0\1\xF7\x3E\2\x20\0\0\0\1\xF7\x3E\2\x50\0\2\xD6\1\2\3\4\5"
#define TRUNCATE                                                                                   \
    "\x0E"                                                                                         \
    "T\0\0\0\2\3\0\0\x40\1\0\0\x40\2"
#define MESSAGE                                                                                    \
    "\x13"                                                                                         \
    "M\1\0\0\0\1\xF7\x3E\2\x20p\0\0\0\0\3abc"
#define START                                                                                      \
    "\6"                                                                                           \
    "S\0\0\2\xE4\1"
#define MARKED                                                                                     \
    "\x0D"                                                                                         \
    "I\0\0\2\xE4\0\0\x40\1N\0\1n"
#define STOP                                                                                       \
    "\1"                                                                                           \
    "E"
#define ABORT                                                                                      \
    "\x19"                                                                                         \
    "A\0\0\2\xE4\0\0\2\xE5\0\0\0\1\xF7\x3E\2\x20\0\2\xD6\1\2\3\4\5"
#define TYPE                                                                                       \
    "\x0C"                                                                                         \
    "Y\0\0\x40\3s\0mood\0"
#define ORIGIN                                                                                     \
    "\x0F"                                                                                         \
    "O\0\0\0\1\xF7\x3E\2\x20"                                                                      \
    "elsew\0"

static const sample SAMPLES[] = {
    SAMPLE("\x0C" BEGIN ORIGIN RELATION INSERT UPDATE COMMIT),
    SAMPLE("\1" BEGIN TRUNCATE MESSAGE COMMIT),
    SAMPLE("\x13" START MARKED STOP ABORT),
    SAMPLE("\2" TYPE RELATION INSERT),
};

static size_t walk_columns(const pgr_message *message, const pgr_tuple *tuple, int changed) {
    pgr_cursor cursor = pgr_message_cursor(message, tuple->columns);
    size_t bytes = 0;
    for (uint16_t i = 0; i < tuple->column_count; i++) {
        pgr_column column;
        if (pgr_column_next(&cursor, &column) != PGR_OK) {
            assert(changed);
            break;
        }
        for (size_t at = 0; at < column.value.size; at++)
            bytes += column.value.bytes[at];
    }
    assert(changed || pgr_cursor_left(&cursor) == 0);
    return bytes;
}

static size_t walk_span(pgr_span span) {
    size_t bytes = 0;
    for (size_t at = 0; at < span.size; at++)
        bytes += span.bytes[at];
    return bytes;
}

static size_t walk_relation(const pgr_message *message, int changed) {
    const pgr_relation *relation = &message->body.relation;
    pgr_cursor cursor = pgr_message_cursor(message, relation->attributes);
    size_t bytes = walk_span(relation->schema) + walk_span(relation->name);
    for (uint16_t i = 0; i < relation->attribute_count; i++) {
        pgr_attribute attribute;
        if (pgr_attribute_next(&cursor, &attribute) != PGR_OK) {
            assert(changed);
            break;
        }
        bytes += walk_span(attribute.name);
    }
    return bytes;
}

/* Looks at every byte that a message refers to, as whoever makes something of it does. */
static size_t walk(const pgr_message *message, int changed) {
    const pgr_body *body = &message->body;
    size_t bytes = 0;
    switch (message->tag) {
    case 'I':
    case 'U':
    case 'D':
        if (body->change.old_tuple.mark)
            bytes += walk_columns(message, &body->change.old_tuple, changed);
        if (body->change.new_tuple.mark)
            bytes += walk_columns(message, &body->change.new_tuple, changed);
        return bytes + *pgr_message_body(message);
    case 'R':
        return walk_relation(message, changed);
    case 'Y':
        return walk_span(body->type.schema) + walk_span(body->type.name);
    case 'O':
        return walk_span(body->origin.name);
    case 'T':
        assert(body->truncate.relations.size == 4 * (size_t)body->truncate.relation_count);
        return walk_span(body->truncate.relations);
    case 'M':
        return walk_span(body->logical.prefix) + walk_span(body->logical.content);
    case 'b':
    case 'P':
    case 'K':
    case 'p':
        return walk_span(body->prepared.gid);
    case 'r':
        return walk_span(body->rollback_prepared.gid);
    default:
        return 0;
    }
}

static int same_stream(const pgr_stream *one, const pgr_stream *other) {
    return one->in_block == other->in_block && one->block_xid == other->block_xid &&
           one->transaction == other->transaction;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    pgr_stream stream = {.proto_version = (uint8_t)(1 + data[0] % 4),
                         .parallel = (data[0] & 16) != 0,
                         .ordered = (data[0] & 8) != 0};
    size_t seen = 0;
    for (size_t at = 1; at < size;) {
        size_t length = data[at++];
        if (length > size - at)
            length = size - at;
        uint8_t *payload = malloc(length > 0 ? length : 1);
        assert(payload != NULL);
        memcpy(payload, data + at, length);
        pgr_stream before = stream;
        pgr_message message;
        pgr_error error;
        if (pgr_pgoutput_read(&stream, payload, length, &message, &error) == PGR_OK) {
            assert(message.marked || message.xid == 0);
            seen += walk(&message, 0);
            scramble(payload, length, (uint8_t)size);
            seen += walk(&message, 1);
        } else {
            assert(error.fault != PGR_FAULT_NONE && error.offset <= length);
            assert(same_stream(&before, &stream));
        }
        free(payload);
        at += length;
    }
    return seen == SIZE_MAX;
}

FUZZ("fuzz_pgoutput", SAMPLES)
