/*
 * pgr_pgoutput alone, with no Python around it: exact fields, exact faults, and no read outside the
 * payload, whatever it holds.
 */
#include "pgoutput_samples.h"

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
    test_first_fault_sticks();
    test_cut_short_anywhere();
    test_changed_behind_our_back();
    test_random_mutations();
    puts("test_pgoutput: ok");
    return 0;
}
