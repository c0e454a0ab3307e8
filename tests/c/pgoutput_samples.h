/*
 * What the tests of pgr_pgoutput share: a payload of each kind, and readers that look at all that was
 * read. Each payload is copied into memory of exactly its size, so that the address sanitizer sees a
 * single byte too many.
 */
#ifndef PGOUTPUT_SAMPLES_H
#define PGOUTPUT_SAMPLES_H

#undef NDEBUG
#include "pgr_pgoutput.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A literal with embedded zeros and its size, without the NUL that C adds. */
#define BYTES(literal) (const uint8_t *)(literal), sizeof(literal) - 1
#define ZEROS8 "\0\0\0\0\0\0\0\0"

#define RELATION                                                                                   \
    "R\0\0\x40\x05public\0item\0d\0\2\1id\0\0\0\0\x17\xff\xff\xff\xff\0note\0\0\0\0\x19\0\0\0\x08"
#define MARK "\0\0\2\xe5"
#define ROLLBACK                                                                                   \
    "r\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2"                                                          \
    "\0\0\0\0\0\0\0\3\xff\xff\xff\xff\xff\xff\xff\xfc\0\0\2\xe4gid\0"
#define UPDATE "U\0\0\x40\x05K\0\2t\0\0\0\0011nN\0\2t\0\0\0\0012u"

typedef struct sample {
    const uint8_t *bytes;
    size_t size;
} sample;

/* What can stand outside of stream blocks, in version 4 with streaming = parallel. */
static const sample SAMPLES[] = {
    {BYTES("B\0\0\0\1\xf7\x3e\2\x20\0\3\x03\xd8\x83\x1c\xc5\x36\0\0\2\xdc")},
    {BYTES("C\0\0\0\0\1\xf7\x3e\2\x20\0\0\0\1\xf7\x3e\2\x50" ZEROS8)},
    {BYTES("O" ZEROS8 "elsewhere\0")},
    {BYTES(RELATION)},
    {BYTES("Y\0\0\x40\1public\0mood\0")},
    {BYTES("I\0\0\x40\5N\0\4nut\0\0\0\3abcb\0\0\0\2\0\xff")},
    {BYTES("I\0\0\x40\5N\0\0")},
    {BYTES(UPDATE)},
    {BYTES("U\0\0\x40\5O\0\1nN\0\1t\0\0\0\0")},
    {BYTES("U\0\0\x40\5N\0\1u")},
    {BYTES("D\0\0\x40\5K\0\1n")},
    {BYTES("D\0\0\x40\5O\0\1n")},
    {BYTES("T\0\0\0\2\3\0\0\x40\5\xff\xff\xff\xff")},
    {BYTES("M\1\0\0\0\1\xf7\x3e\2\x20pre\0\0\0\0\7content")},
    {BYTES("S\0\0\2\xe4\1")},
    {BYTES("c\0\0\2\xe4\0\0\0\0\1\xf7\x3e\2\x20\0\0\0\1\xf7\x3e\2\x50" ZEROS8)},
    {BYTES("A\0\0\2\xe4\0\0\2\xe5\0\0\0\1\xf7\x3e\2\x20\0\3\x03\xd8\x83\x1c\xc5\x36")},
    {BYTES("b\0\0\0\1\xf7\x3e\2\x20\0\0\0\1\xf7\x3e\2\x50" ZEROS8 "\0\0\2\xe4gid\0")},
    {BYTES("P\0\0\0\0\1\xf7\x3e\2\x20\0\0\0\1\xf7\x3e\2\x50" ZEROS8 "\0\0\2\xe4gid\0")},
    {BYTES("K\0\0\0\0\1\xf7\x3e\2\x20\0\0\0\1\xf7\x3e\2\x50" ZEROS8 "\0\0\2\xe4gid\0")},
    {BYTES("p\0\0\0\0\1\xf7\x3e\2\x20\0\0\0\1\xf7\x3e\2\x50" ZEROS8 "\0\0\2\xe4\0")},
    {BYTES(ROLLBACK)},
};
enum { SAMPLE_COUNT = sizeof SAMPLES / sizeof SAMPLES[0] };

/* What can stand in a stream block. */
static const sample STREAMED[] = {
    {BYTES("E")},
    {BYTES("O" ZEROS8 "elsewhere\0")},
    {BYTES("R" MARK "\0\0\x40\x05public\0item\0d\0\1\1id\0\0\0\0\x17\xff\xff\xff\xff")},
    {BYTES("Y" MARK "\0\0\x40\1public\0mood\0")},
    {BYTES("I" MARK "\0\0\x40\5N\0\2nt\0\0\0\3abc")},
    {BYTES("U" MARK "\0\0\x40\5K\0\1uN\0\1t\0\0\0\0")},
    {BYTES("D" MARK "\0\0\x40\5O\0\1n")},
    {BYTES("T" MARK "\0\0\0\1\3\0\0\x40\5")},
    {BYTES("M" MARK "\1\0\0\0\1\xf7\x3e\2\x20pre\0\0\0\0\7content")},
};
enum { STREAMED_COUNT = sizeof STREAMED / sizeof STREAMED[0] };

static const pgr_stream PARALLEL = {.proto_version = 4, .parallel = 1};
static const pgr_stream IN_BLOCK = {.proto_version = 2, .in_block = 1, .block_xid = 740};

static inline int holds(pgr_span span, const char *text) {
    return span.size == strlen(text) && memcmp(span.bytes, text, span.size) == 0;
}

static inline int lies_within(pgr_span span, const uint8_t *bytes, size_t size) {
    return span.bytes >= bytes && span.bytes <= bytes + size &&
           span.size <= (size_t)(bytes + size - span.bytes);
}

/* Walk over the columns of a tuple that was read, and add its bytes up so that none is skipped. */
static inline uint64_t walk_tuple(const pgr_message *message, const pgr_tuple *tuple) {
    uint64_t sum = 0;
    pgr_cursor cursor = pgr_message_cursor(message, tuple->columns);
    for (uint16_t i = 0; i < tuple->column_count; i++) {
        pgr_column column;
        assert(pgr_column_next(&cursor, &column) == PGR_OK);
        assert(lies_within(column.value, tuple->columns.bytes, tuple->columns.size));
        for (size_t at = 0; at < column.value.size; at++)
            sum += column.value.bytes[at];
    }
    assert(pgr_cursor_left(&cursor) == 0);
    return sum;
}

static inline void walk_relation(const pgr_message *message) {
    const pgr_relation *relation = &message->body.relation;
    pgr_cursor cursor = pgr_message_cursor(message, relation->attributes);
    for (uint16_t i = 0; i < relation->attribute_count; i++) {
        pgr_attribute attribute;
        assert(pgr_attribute_next(&cursor, &attribute) == PGR_OK);
        assert(attribute.is_key <= 1);
        assert(attribute.name.bytes[attribute.name.size] == 0);
    }
    assert(pgr_cursor_left(&cursor) == 0);
}

/* What has to hold of a stream and a message that was read from it. */
static inline void check_place(const pgr_stream *before, const pgr_stream *after,
                        const pgr_message *message) {
    assert(after->proto_version == before->proto_version && after->parallel == before->parallel);
    assert(message->marked <= before->in_block);
    assert(pgr_message_body(message) == message->start + (message->marked ? 5 : 1));
    if (message->tag == 'S')
        assert(!before->in_block && after->in_block &&
               after->block_xid == message->body.stream_start.xid);
    else if (message->tag == 'E')
        assert(before->in_block && !after->in_block);
    else
        assert(after->in_block == before->in_block && after->block_xid == before->block_xid);
}

static inline void walk(const pgr_message *message) {
    const pgr_change *change = &message->body.change;
    switch (message->tag) {
    case 'R':
        walk_relation(message);
        break;
    case 'T':
        assert(message->body.truncate.relations.size ==
               (size_t)message->body.truncate.relation_count * 4);
        break;
    case 'I':
    case 'U':
    case 'D':
        assert((change->new_tuple.mark == 'N') == (message->tag != 'D'));
        if (change->old_tuple.mark != 0)
            walk_tuple(message, &change->old_tuple);
        if (change->new_tuple.mark != 0)
            walk_tuple(message, &change->new_tuple);
        break;
    case 'b':
    case 'P':
    case 'K':
    case 'p':
        assert(message->body.prepared.gid.bytes[message->body.prepared.gid.size] == 0);
        break;
    default:
        break;
    }
}

/* What has to hold of every payload, right or wrong; the verdict is returned. */
static inline pgr_status read_any(pgr_stream *stream, const uint8_t *source, size_t size,
                           pgr_error *error) {
    uint8_t *bytes = malloc(size > 0 ? size : 1);
    assert(bytes != NULL);
    memcpy(bytes, source, size);
    pgr_message message;
    const pgr_stream before = *stream;
    memset(error, 0xEE, sizeof *error);
    pgr_status status = pgr_pgoutput_read(stream, bytes, size, &message, error);
    if (status == PGR_BAD) {
        assert(error->fault >= PGR_FAULT_LOGICAL_EMPTY && error->fault <= PGR_FAULT_TRANSACTION_CLOSED);
        assert(error->offset <= size);
        assert(error->tag == (size > 0 ? bytes[0] : 0));
        assert(stream->in_block == before.in_block && stream->block_xid == before.block_xid);
    } else {
        assert(status == PGR_OK && message.tag == bytes[0] && message.start == bytes);
        check_place(&before, stream, &message);
        walk(&message);
    }
    free(bytes);
    return status;
}

static inline pgr_message read_at(pgr_stream stream, const uint8_t *bytes, size_t size) {
    pgr_stream again = stream;
    pgr_message message;
    pgr_error error;
    assert(read_any(&again, bytes, size, &error) == PGR_OK);
    assert(pgr_pgoutput_read(&stream, bytes, size, &message, &error) == PGR_OK);
    return message;
}

static inline pgr_message read_ok(const uint8_t *bytes, size_t size) {
    return read_at(PARALLEL, bytes, size);
}

static inline void expect_fault_at(pgr_stream stream, const uint8_t *bytes, size_t size, pgr_fault fault,
                            uint64_t offset, int64_t expected, int64_t got) {
    pgr_error error;
    assert(read_any(&stream, bytes, size, &error) == PGR_BAD);
    assert(error.fault == fault);
    assert(error.offset == offset);
    assert(error.expected == expected);
    assert(error.got == got);
}

static inline void expect_fault(const uint8_t *bytes, size_t size, pgr_fault fault, uint64_t offset,
                         int64_t expected, int64_t got) {
    expect_fault_at(PARALLEL, bytes, size, fault, offset, expected, got);
}

#endif
