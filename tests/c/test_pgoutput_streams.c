/*
 * pgr_pgoutput alone: stream blocks, prepared transactions, and the order and places of messages.
 */
#include "pgoutput_samples.h"

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

int main(void) {
    test_streams();
    test_prepared();
    test_marks();
    test_places();
    test_order();
    test_blocks();
    puts("test_pgoutput_streams: ok");
    return 0;
}
