/*
 * pgr_pgoutput alone, with no Python around it: exact fields, exact faults, and no read outside the
 * payload, whatever it holds. Each payload is copied into memory of exactly its size, so that the
 * address sanitizer sees a single byte too many.
 */
#undef NDEBUG
#include "pgr_pgoutput.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

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

static int holds(pgr_span span, const char *text) {
    return span.size == strlen(text) && memcmp(span.bytes, text, span.size) == 0;
}

static int lies_within(pgr_span span, const uint8_t *bytes, size_t size) {
    return span.bytes >= bytes && span.bytes <= bytes + size &&
           span.size <= (size_t)(bytes + size - span.bytes);
}

/* Walk over the columns of a tuple that was read, and add its bytes up so that none is skipped. */
static uint64_t walk_tuple(const pgr_message *message, const pgr_tuple *tuple) {
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

static void walk_relation(const pgr_message *message) {
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
static void check_place(const pgr_stream *before, const pgr_stream *after,
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

static void walk(const pgr_message *message) {
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
static pgr_status read_any(pgr_stream *stream, const uint8_t *source, size_t size,
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

static pgr_message read_at(pgr_stream stream, const uint8_t *bytes, size_t size) {
    pgr_stream again = stream;
    pgr_message message;
    pgr_error error;
    assert(read_any(&again, bytes, size, &error) == PGR_OK);
    assert(pgr_pgoutput_read(&stream, bytes, size, &message, &error) == PGR_OK);
    return message;
}

static pgr_message read_ok(const uint8_t *bytes, size_t size) {
    return read_at(PARALLEL, bytes, size);
}

static void expect_fault_at(pgr_stream stream, const uint8_t *bytes, size_t size, pgr_fault fault,
                            uint64_t offset, int64_t expected, int64_t got) {
    pgr_error error;
    assert(read_any(&stream, bytes, size, &error) == PGR_BAD);
    assert(error.fault == fault);
    assert(error.offset == offset);
    assert(error.expected == expected);
    assert(error.got == got);
}

static void expect_fault(const uint8_t *bytes, size_t size, pgr_fault fault, uint64_t offset,
                         int64_t expected, int64_t got) {
    expect_fault_at(PARALLEL, bytes, size, fault, offset, expected, got);
}

static void test_transactions(void) {
    pgr_begin begin = read_ok(SAMPLES[0].bytes, SAMPLES[0].size).body.begin;
    assert(begin.final_lsn == 0x00000001F73E0220u);
    assert(begin.commit_time == 0x000303D8831CC536);
    assert(begin.xid == 732);
    pgr_commit commit = read_ok(SAMPLES[1].bytes, SAMPLES[1].size).body.commit;
    assert(commit.commit_lsn == 0x00000001F73E0220u && commit.end_lsn == 0x00000001F73E0250u);
    assert(commit.commit_time == 0);
    pgr_origin origin = read_ok(SAMPLES[2].bytes, SAMPLES[2].size).body.origin;
    assert(origin.commit_lsn == 0 && holds(origin.name, "elsewhere"));
    pgr_logical logical = read_ok(SAMPLES[13].bytes, SAMPLES[13].size).body.logical;
    assert(logical.transactional == 1 && logical.lsn == 0x00000001F73E0220u);
    assert(holds(logical.prefix, "pre") && holds(logical.content, "content"));
}

static void test_relation(void) {
    pgr_message message = read_ok(BYTES(RELATION));
    const pgr_relation *relation = &message.body.relation;
    assert(relation->oid == 0x4005 && relation->replica_identity == 'd');
    assert(holds(relation->schema, "public") && holds(relation->name, "item"));
    assert(relation->attribute_count == 2);
    pgr_cursor cursor = pgr_message_cursor(&message, relation->attributes);
    pgr_attribute attribute;
    assert(pgr_attribute_next(&cursor, &attribute) == PGR_OK);
    assert(attribute.is_key == 1 && holds(attribute.name, "id"));
    assert(attribute.type_oid == 23 && attribute.type_modifier == -1);
    assert(pgr_attribute_next(&cursor, &attribute) == PGR_OK);
    assert(attribute.is_key == 0 && holds(attribute.name, "note"));
    assert(attribute.type_oid == 25 && attribute.type_modifier == 8);
    /* Beyond the last one there is a fault, not memory. */
    assert(pgr_attribute_next(&cursor, &attribute) == PGR_BAD);
    assert(cursor.error.fault == PGR_FAULT_TRUNCATED && cursor.error.tag == 'R');
    assert(cursor.error.offset == sizeof RELATION - 1);
}

static void test_change(void) {
    pgr_message message = read_ok(BYTES(UPDATE));
    const pgr_change *change = &message.body.change;
    assert(change->relation == 0x4005);
    assert(change->old_tuple.mark == 'K' && change->old_tuple.column_count == 2);
    assert(change->new_tuple.mark == 'N' && change->new_tuple.column_count == 2);
    assert(walk_tuple(&message, &change->old_tuple) == '1');
    assert(walk_tuple(&message, &change->new_tuple) == '2');
    pgr_cursor cursor = pgr_message_cursor(&message, change->new_tuple.columns);
    pgr_column column;
    assert(pgr_column_next(&cursor, &column) == PGR_OK);
    assert(column.kind == 't' && holds(column.value, "2"));
    assert(pgr_column_next(&cursor, &column) == PGR_OK);
    assert(column.kind == 'u' && column.value.size == 0);
    assert(pgr_column_next(&cursor, &column) == PGR_BAD);
    assert(cursor.error.offset == sizeof UPDATE - 1);
}

static void test_truncate(void) {
    pgr_truncate truncate = read_ok(SAMPLES[12].bytes, SAMPLES[12].size).body.truncate;
    assert(truncate.relation_count == 2);
    assert(truncate.cascade == 1 && truncate.restart_identity == 1);
    assert(pgr_load32(truncate.relations.bytes) == 0x4005);
    assert(pgr_load32(truncate.relations.bytes + 4) == UINT32_MAX);
    truncate = read_ok(BYTES("T\0\0\0\0\2")).body.truncate;
    assert(truncate.relation_count == 0 && truncate.cascade == 0 && truncate.restart_identity == 1);
}

static void test_faults(void) {
    expect_fault(BYTES(""), PGR_FAULT_LOGICAL_EMPTY, 0, 1, 0);
    expect_fault(BYTES("Z\0\0\0\1\1"), PGR_FAULT_LOGICAL_TAG, 0, 4, 'Z');
    expect_fault(BYTES("B" ZEROS8 "\0\0"), PGR_FAULT_TRUNCATED, 9, 8, 2);
    expect_fault(BYTES("B" ZEROS8 ZEROS8 "\0\0\0\0\0"), PGR_FAULT_TRAILING, 21, 0, 1);
    expect_fault(BYTES("C\4"), PGR_FAULT_FLAGS, 1, 0, 4);
    expect_fault(BYTES("O" ZEROS8 "abc"), PGR_FAULT_UNTERMINATED, 9, 0, 3);
    expect_fault(BYTES("O" ZEROS8), PGR_FAULT_UNTERMINATED, 9, 0, 0);
    expect_fault(BYTES("R\0\0\0\1\0\0x\0\0"), PGR_FAULT_IDENTITY, 7, 0, 'x');
    expect_fault(BYTES("R\0\0\0\1\0\0d\xff\xff"), PGR_FAULT_COUNT, 8, 0, -1);
    expect_fault(BYTES("R\0\0\0\1\0\0d\0\1\2"), PGR_FAULT_FLAGS, 10, 1, 2);
    expect_fault(BYTES("I\0\0\0\1O\0\0"), PGR_FAULT_TUPLE_MARK, 5, 0, 'O');
    expect_fault(BYTES("U\0\0\0\1O\0\0K\0\0"), PGR_FAULT_TUPLE_MARK, 8, 0, 'K');
    expect_fault(BYTES("D\0\0\0\1N\0\0"), PGR_FAULT_TUPLE_MARK, 5, 0, 'N');
    expect_fault(BYTES("I\0\0\0\1N\x80\0"), PGR_FAULT_COUNT, 6, 0, -32768);
    expect_fault(BYTES("I\0\0\0\1N\x7f\xff"), PGR_FAULT_TRUNCATED, 8, 1, 0);
    expect_fault(BYTES("I\0\0\0\1N\0\1v"), PGR_FAULT_COLUMN_KIND, 8, 0, 'v');
    expect_fault(BYTES("I\0\0\0\1N\0\1t\x80\0\0\0"), PGR_FAULT_COLUMN_LENGTH, 9, 0, INT32_MIN);
    expect_fault(BYTES("I\0\0\0\1N\0\1b\x7f\xff\xff\xff!"), PGR_FAULT_TRUNCATED, 13, INT32_MAX, 1);
    expect_fault(BYTES("T\xff\xff\xff\xff\0"), PGR_FAULT_COUNT, 1, 0, -1);
    expect_fault(BYTES("T\0\0\0\0\4"), PGR_FAULT_FLAGS, 5, 3, 4);
    expect_fault(BYTES("T\x7f\xff\xff\xff\0!"), PGR_FAULT_TRUNCATED, 6, INT32_MAX * INT64_C(4), 1);
    expect_fault(BYTES("T\x40\0\0\0\0"), PGR_FAULT_TRUNCATED, 6, INT64_C(1) << 32, 0);
    expect_fault(BYTES("M\2"), PGR_FAULT_FLAGS, 1, 1, 2);
    expect_fault(BYTES("M\0" ZEROS8 "\0\xff\xff\xff\xff"), PGR_FAULT_COUNT, 11, 0, -1);
}

static void test_streams(void) {
    pgr_stream_start start = read_ok(BYTES("S\0\0\2\xe4\1")).body.stream_start;
    assert(start.xid == 740 && start.first_segment == 1);
    assert(read_ok(BYTES("S\xff\xff\xff\xff\0")).body.stream_start.first_segment == 0);
    pgr_stream_commit commit = read_ok(SAMPLES[15].bytes, SAMPLES[15].size).body.stream_commit;
    assert(commit.xid == 740 && commit.commit.commit_lsn == 0x00000001F73E0220u);
    assert(commit.commit.end_lsn == 0x00000001F73E0250u && commit.commit.commit_time == 0);
    pgr_stream_abort abort = read_ok(SAMPLES[16].bytes, SAMPLES[16].size).body.stream_abort;
    assert(abort.xid == 740 && abort.subxid == 741 && abort.detailed == 1);
    assert(abort.abort_lsn == 0x00000001F73E0220u && abort.abort_time == 0x000303D8831CC536);
    pgr_stream plain = {.proto_version = 4};
    abort = read_at(plain, BYTES("A\0\0\2\xe4\0\0\2\xe5")).body.stream_abort;
    assert(abort.xid == 740 && abort.subxid == 741 && abort.detailed == 0);
    expect_fault_at(plain, SAMPLES[16].bytes, SAMPLES[16].size, PGR_FAULT_TRAILING, 9, 0, 16);
    expect_fault(BYTES("A\0\0\2\xe4\0\0\2\xe5"), PGR_FAULT_TRUNCATED, 9, 8, 0);
    expect_fault(BYTES("S\0\0\0\1\2"), PGR_FAULT_FLAGS, 5, 1, 2);
    expect_fault(BYTES("c\0\0\0\1\1"), PGR_FAULT_FLAGS, 5, 0, 1);
}

static void test_prepared(void) {
    for (size_t i = 17; i <= 20; i++) {
        pgr_prepared prepared = read_ok(SAMPLES[i].bytes, SAMPLES[i].size).body.prepared;
        assert(prepared.lsn == 0x00000001F73E0220u && prepared.end_lsn == 0x00000001F73E0250u);
        assert(prepared.time == 0 && prepared.xid == 740);
        assert(holds(prepared.gid, i == 20 ? "" : "gid"));
    }
    pgr_rollback_prepared rollback = read_ok(BYTES(ROLLBACK)).body.rollback_prepared;
    assert(rollback.prepare_end_lsn == 1 && rollback.rollback_end_lsn == 2);
    assert(rollback.prepare_time == 3 && rollback.rollback_time == -4 && rollback.xid == 740);
    assert(holds(rollback.gid, "gid"));
    expect_fault(BYTES("P\1"), PGR_FAULT_FLAGS, 1, 0, 1);
    expect_fault(BYTES("r\1"), PGR_FAULT_FLAGS, 1, 0, 1);
    expect_fault(BYTES("b\1"), PGR_FAULT_TRUNCATED, 1, 8, 1); /* the only one with no flags */
    expect_fault(BYTES("K\0" ZEROS8 ZEROS8 ZEROS8 "\0\0\0\0gid"), PGR_FAULT_UNTERMINATED, 30, 0, 3);
}

static void test_marks(void) {
    for (size_t i = 0; i < STREAMED_COUNT; i++) {
        pgr_message message = read_at(IN_BLOCK, STREAMED[i].bytes, STREAMED[i].size);
        assert(message.marked == (message.tag != 'E' && message.tag != 'O'));
        assert(!message.marked || message.xid == 741);
    }
    pgr_message message = read_at(IN_BLOCK, STREAMED[4].bytes, STREAMED[4].size);
    assert(message.body.change.relation == 0x4005);
    assert(pgr_load32(pgr_message_body(&message)) == 0x4005);
    assert(walk_tuple(&message, &message.body.change.new_tuple) == 'a' + 'b' + 'c');
    expect_fault_at(IN_BLOCK, BYTES("I\0\0\0"), PGR_FAULT_TRUNCATED, 1, 4, 3);
    expect_fault_at(IN_BLOCK, BYTES("I" MARK "\0"), PGR_FAULT_TRUNCATED, 5, 4, 1);
}

/* Where the order is looked at, each message in and out of a transaction of either kind. */
static void test_order(void) {
    static const uint8_t OPEN[] = {0, 'B', 'b'};
    for (size_t i = 0; i < SAMPLE_COUNT; i++)
        for (size_t j = 0; j < sizeof OPEN; j++) {
            pgr_stream stream = PARALLEL;
            stream.ordered = 1;
            stream.transaction = OPEN[j];
            uint8_t tag = SAMPLES[i].bytes[0];
            pgr_error error = {.fault = PGR_FAULT_NONE};
            pgr_status status = read_any(&stream, SAMPLES[i].bytes, SAMPLES[i].size, &error);
            int within = strchr("OIUDTM", tag) != NULL, ends = tag == 'C' || tag == 'P';
            if (OPEN[j] == 0 && (within || ends)) {
                assert(error.fault == PGR_FAULT_TRANSACTION_CLOSED && error.offset == 0);
            } else if (OPEN[j] != 0 &&
                       (ends ? OPEN[j] != (tag == 'C' ? 'B' : 'b')
                             : strchr("BbScKrp", tag) != NULL)) {
                assert(error.fault == PGR_FAULT_TRANSACTION_OPEN && error.got == OPEN[j]);
            } else {
                assert(status == PGR_OK);
                uint8_t open = ends ? 0 : tag == 'B' || tag == 'b' ? tag : OPEN[j];
                assert(stream.transaction == open);
                continue;
            }
            assert(status == PGR_BAD && error.tag == tag && stream.transaction == OPEN[j]);
        }
    /* A message that belongs to no transaction can stand anywhere, and so can what is in a block. */
    pgr_stream stream = {.proto_version = 2, .ordered = 1};
    pgr_error error;
    assert(read_any(&stream, BYTES("M\0" ZEROS8 "\0\0\0\0\0"), &error) == PGR_OK);
    for (size_t i = 1; i < STREAMED_COUNT; i++) {
        stream = IN_BLOCK;
        stream.ordered = 1;
        assert(read_any(&stream, STREAMED[i].bytes, STREAMED[i].size, &error) == PGR_OK);
    }
}

/* Each message at each place in each version: where it may not stand, that is the fault. */
static void test_places(void) {
    static const char SINCE[][20] = {"BCORYIUDTMA", "SEc", "bPKrp"};
    for (uint8_t version = 1; version <= 4; version++)
        for (unsigned tag = 0; tag <= UINT8_MAX; tag++) {
            const uint8_t bytes[] = {(uint8_t)tag};
            int known = 0;
            for (unsigned i = 0; i < 3 && i < version; i++)
                known |= tag != 0 && strchr(SINCE[i], (int)tag) != NULL;
            for (uint8_t in_block = 0; in_block <= (version > 1); in_block++) {
                pgr_stream stream = {
                    .proto_version = version, .in_block = in_block, .block_xid = 7};
                pgr_error error;
                pgr_status status = read_any(&stream, bytes, 1, &error);
                int allowed = tag != 0 && strchr(in_block ? "ORYIUDTME" : "ORYIUDTMBCScAbPKrp",
                                                 (int)tag) != NULL;
                if (!known) {
                    assert(error.fault == PGR_FAULT_LOGICAL_TAG && error.offset == 0);
                    assert(error.expected == version && error.got == (int64_t)tag);
                } else if (!allowed) {
                    assert(error.fault ==
                           (in_block ? PGR_FAULT_STREAM_OPEN : PGR_FAULT_STREAM_CLOSED));
                    assert(error.offset == 0 && error.got == (in_block ? 7 : 0));
                } else {
                    assert(tag == 'E' ? status == PGR_OK : error.offset == 1);
                }
            }
        }
}

static void test_blocks(void) {
    pgr_stream stream = {.proto_version = 2};
    pgr_error error;
    assert(read_any(&stream, BYTES("S\0\0\0\7\1"), &error) == PGR_OK);
    assert(stream.in_block == 1 && stream.block_xid == 7);
    assert(read_any(&stream, BYTES("S\0\0\0\x08\1"), &error) == PGR_BAD);
    assert(error.fault == PGR_FAULT_STREAM_OPEN && error.got == 7);
    assert(read_any(&stream, BYTES("E!"), &error) == PGR_BAD && error.fault == PGR_FAULT_TRAILING);
    assert(read_any(&stream, BYTES("E"), &error) == PGR_OK && stream.in_block == 0);
    assert(read_any(&stream, BYTES("E"), &error) == PGR_BAD);
    assert(error.fault == PGR_FAULT_STREAM_CLOSED);
    assert(read_any(&stream, BYTES("S\0\0\0\7"), &error) == PGR_BAD && stream.in_block == 0);
}

static void test_first_fault_sticks(void) {
    /* Unknown flags, and after them nothing of what has to follow: the flags are told. */
    expect_fault(BYTES("C\1"), PGR_FAULT_FLAGS, 1, 0, 1);
    const uint8_t bytes[] = {'X', 1, 2, 3};
    pgr_cursor cursor = pgr_cursor_over(bytes, 'X', (pgr_span){bytes + 1, 3});
    assert(pgr_cursor_u16(&cursor) == 0x0102 && cursor.status == PGR_OK);
    assert(pgr_cursor_i64(&cursor) == 0 && cursor.status == PGR_BAD);
    assert(pgr_cursor_u8(&cursor) == 0 && pgr_cursor_i32(&cursor) == 0);
    assert(pgr_cursor_cstr(&cursor).size == 0 && pgr_cursor_bytes(&cursor, 1).size == 0);
    assert(cursor.error.fault == PGR_FAULT_TRUNCATED && cursor.error.tag == 'X');
    assert(cursor.error.offset == 3 && cursor.error.expected == 8 && cursor.error.got == 1);
}

static void cut_short_anywhere(pgr_stream stream, const sample *sample) {
    pgr_error error;
    pgr_stream again = stream;
    assert(read_any(&again, sample->bytes, sample->size, &error) == PGR_OK);
    for (size_t size = 0; size < sample->size; size++)
        assert(read_any(&stream, sample->bytes, size, &error) == PGR_BAD);
}

static void test_cut_short_anywhere(void) {
    for (size_t i = 0; i < SAMPLE_COUNT; i++)
        cut_short_anywhere(PARALLEL, &SAMPLES[i]);
    for (size_t i = 0; i < STREAMED_COUNT; i++)
        cut_short_anywhere(IN_BLOCK, &STREAMED[i]);
}

/* A payload that changes after it was read, as the memory of a bytearray can: a fault at worst. */
static void test_changed_behind_our_back(void) {
    enum { SIZE = sizeof UPDATE - 1 };
    for (size_t at = 8; at < SIZE; at++) {
        uint8_t *bytes = malloc(SIZE);
        assert(bytes != NULL);
        memcpy(bytes, UPDATE, SIZE);
        pgr_message message;
        pgr_error error;
        pgr_stream stream = {.proto_version = 1};
        assert(pgr_pgoutput_read(&stream, bytes, SIZE, &message, &error) == PGR_OK);
        memset(bytes + at, 't', SIZE - at);
        const pgr_tuple *tuple = &message.body.change.new_tuple;
        pgr_cursor cursor = pgr_message_cursor(&message, tuple->columns);
        pgr_column column;
        int faults = 0;
        for (uint16_t i = 0; i < tuple->column_count; i++)
            faults += pgr_column_next(&cursor, &column) != PGR_OK;
        assert(faults > 0 && cursor.error.offset <= SIZE);
        free(bytes);
    }
}

static uint32_t next_random(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static void test_random_mutations(void) {
    static const uint8_t EDGES[] = {0, 1, 0x7F, 0x80, 0xFF, 'N', 'K', 'O', 'n', 'u', 't', 'b'};
    uint32_t state = 0x9E3779B9u;
    unsigned passed = 0, failed = 0;
    for (int round = 0; round < 200000; round++) {
        uint8_t bytes[128];
        uint32_t pick = next_random(&state) % (SAMPLE_COUNT + STREAMED_COUNT);
        int streamed = pick >= SAMPLE_COUNT;
        const sample *chosen = streamed ? &STREAMED[pick - SAMPLE_COUNT] : &SAMPLES[pick];
        assert(chosen->size <= sizeof bytes);
        memcpy(bytes, chosen->bytes, chosen->size);
        for (uint32_t change = next_random(&state) % 4; change > 0; change--) {
            uint32_t any = next_random(&state);
            uint8_t value = any & 0x100 ? EDGES[any % sizeof EDGES] : (uint8_t)any;
            bytes[next_random(&state) % chosen->size] = value;
        }
        size_t size = chosen->size;
        if (next_random(&state) % 4 == 0)
            size = next_random(&state) % (size + 1);
        pgr_error error;
        pgr_stream stream = streamed ? IN_BLOCK : PARALLEL;
        if (read_any(&stream, bytes, size, &error) == PGR_OK)
            passed++;
        else
            failed++;
    }
    assert(passed > 1000 && failed > 1000);
}

int main(void) {
    test_transactions();
    test_relation();
    test_change();
    test_truncate();
    test_faults();
    test_streams();
    test_prepared();
    test_marks();
    test_places();
    test_order();
    test_blocks();
    test_first_fault_sticks();
    test_cut_short_anywhere();
    test_changed_behind_our_back();
    test_random_mutations();
    puts("test_pgoutput: ok");
    return 0;
}
