/*
 * pgr_frames alone, with no Python around it: every tag, every kind of length, and no read outside
 * the bytes. Whatever is looked at lies in memory of exactly its size, so that the address sanitizer
 * sees a single byte too many.
 */
#undef NDEBUG
#include "pgr_frames.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static const char LONG_TAGS[] = "dDTENAV";
static const char SHORT_TAGS[] = "RKSZCcWHGIv123nst";

static uint32_t expected_limit(uint8_t tag) {
    if (tag == 0)
        return 0;
    if (strchr(LONG_TAGS, tag))
        return PGR_FRAME_MAX_LENGTH;
    return strchr(SHORT_TAGS, tag) ? PGR_FRAME_SHORT_LENGTH : 0;
}

/* What is given back where nothing was found must not depend on what was there before. */
static void spoil(pgr_frame *frame, pgr_error *error) {
    memset(frame, 0xEE, sizeof *frame);
    memset(error, 0xEE, sizeof *error);
}

/* pgr_frame_next on a copy of exactly this size; the body is left for free() to the caller. */
static pgr_status look(const uint8_t *source, size_t size, uint32_t limit, pgr_frame *frame,
                       pgr_error *error, uint8_t **copy) {
    *copy = malloc(size > 0 ? size : 1);
    assert(*copy != NULL);
    memcpy(*copy, source, size);
    spoil(frame, error);
    return pgr_frame_next(*copy, size, limit, frame, error);
}

static void test_every_tag(void) {
    for (unsigned tag = 0; tag < 256; tag++) {
        const uint8_t bytes[] = {(uint8_t)tag, 0, 0, 0, 4};
        uint32_t allowed = expected_limit((uint8_t)tag);
        assert(pgr_frame_longest((uint8_t)tag) == allowed);
        for (size_t size = 1; size <= sizeof bytes; size++) {
            pgr_frame frame;
            pgr_error error;
            uint8_t *copy;
            pgr_status status = look(bytes, size, PGR_FRAME_MAX_LENGTH, &frame, &error, &copy);
            if (allowed == 0) {
                assert(status == PGR_BAD);
                assert(error.fault == PGR_FAULT_FRAME_TAG && error.tag == tag);
                assert(error.offset == 0 && error.expected == 0 && error.got == (int64_t)tag);
            } else if (size < PGR_FRAME_HEADER) {
                assert(status == PGR_NEED_MORE && frame.tag == 0 && frame.body_size == 0);
            } else {
                assert(status == PGR_OK && frame.tag == tag && frame.body_size == 0);
                assert(frame.body == copy + PGR_FRAME_HEADER);
            }
            free(copy);
        }
    }
}

static void test_every_prefix_of_a_frame(void) {
    const uint8_t bytes[] = "D\0\0\0\x0b" "payload" "Z\0\0\0\5I";
    enum { WHOLE = PGR_FRAME_HEADER + 7, ALL = sizeof bytes - 1 };
    for (size_t size = 0; size <= ALL; size++) {
        pgr_frame frame;
        pgr_error error;
        uint8_t *copy;
        pgr_status status = look(bytes, size, PGR_FRAME_MAX_LENGTH, &frame, &error, &copy);
        assert(status == (size < WHOLE ? PGR_NEED_MORE : PGR_OK));
        if (size < PGR_FRAME_HEADER) {
            assert(frame.tag == 0 && frame.body_size == 0 && frame.body == NULL);
        } else {
            assert(frame.tag == 'D' && frame.body_size == 7);
            assert(frame.body == copy + PGR_FRAME_HEADER);
        }
        if (status == PGR_OK)
            assert(memcmp(frame.body, "payload", 7) == 0);
        free(copy);
    }
}

static void check_length(uint8_t tag, int64_t length, uint32_t limit) {
    uint8_t bytes[PGR_FRAME_HEADER];
    bytes[0] = tag;
    pgr_store32(bytes + 1, (uint32_t)length);
    uint32_t allowed = expected_limit(tag) < limit ? expected_limit(tag) : limit;
    pgr_frame frame;
    pgr_error error;
    uint8_t *copy;
    pgr_status status = look(bytes, sizeof bytes, limit, &frame, &error, &copy);
    free(copy);
    if (length < 4 || length > (int64_t)allowed) {
        assert(status == PGR_BAD);
        assert(error.fault == PGR_FAULT_FRAME_LENGTH && error.tag == tag && error.offset == 1);
        assert(error.expected == (int64_t)allowed && error.got == length);
    } else {
        assert(status == (length == 4 ? PGR_OK : PGR_NEED_MORE));
        assert(frame.tag == tag && frame.body_size == (uint32_t)(length - 4));
    }
}

static void test_lengths_and_limits(void) {
    const int64_t lengths[] = {INT32_MIN, -5, -1, 0, 1, 2, 3, 4, 5, 99, 100, 101, 29999, 30000,
                               30001, 65536, 65537, 0x3FFFFFFE, 0x3FFFFFFF, 0x40000000, INT32_MAX};
    const uint32_t limits[] = {4, 100, 30000, 65536, PGR_FRAME_MAX_LENGTH};
    for (unsigned tag = 1; tag < 256; tag++) {
        if (expected_limit((uint8_t)tag) == 0)
            continue;
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
            for (size_t j = 0; j < sizeof limits / sizeof limits[0]; j++)
                check_length((uint8_t)tag, lengths[i], limits[j]);
    }
}

static void test_byte_order(void) {
    const uint8_t bytes[] = {0x81, 2, 3, 4, 5, 6, 7, 0xF8};
    assert(pgr_load16(bytes) == 0x8102);
    assert(pgr_load32(bytes) == 0x81020304);
    assert(pgr_load64(bytes) == 0x81020304050607F8);
    assert(pgr_signed32(0x80000000) == INT32_MIN && pgr_signed32(0xFFFFFFFF) == -1);
    assert(pgr_signed64(UINT64_C(1) << 63) == INT64_MIN && pgr_signed64(UINT64_MAX) == -1);
    assert(pgr_unsigned64(-1) == UINT64_MAX && pgr_unsigned64(INT64_MIN) == UINT64_C(1) << 63);
    uint8_t out[8];
    pgr_store64(out, 0x81020304050607F8);
    assert(memcmp(out, bytes, 8) == 0);
    pgr_store32(out, 0x81020304);
    assert(memcmp(out, bytes, 4) == 0);
}

/* A small generator of its own, so that a failure comes back. */
static uint32_t next_random(uint64_t *state) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

static void test_any_bytes(void) {
    uint64_t state = 1;
    unsigned long verdicts[3] = {0, 0, 0};
    for (int round = 0; round < 200000; round++) {
        uint8_t bytes[48];
        size_t size = next_random(&state) % sizeof bytes;
        for (size_t i = 0; i < size; i++)
            bytes[i] = (uint8_t)next_random(&state);
        if (size > 0 && round % 2 == 0)
            bytes[0] = (uint8_t)LONG_TAGS[next_random(&state) % (sizeof LONG_TAGS - 1)];
        if (size > 4 && round % 3 == 0)
            pgr_store32(bytes + 1, next_random(&state) % 64);
        pgr_frame frame;
        pgr_error error;
        uint8_t *copy;
        pgr_status status = look(bytes, size, PGR_FRAME_MAX_LENGTH, &frame, &error, &copy);
        if (status == PGR_OK)
            assert(frame.body_size <= size - PGR_FRAME_HEADER && frame.body == copy + 5);
        verdicts[status]++;
        free(copy);
    }
    assert(verdicts[PGR_OK] > 1000 && verdicts[PGR_NEED_MORE] > 1000 && verdicts[PGR_BAD] > 1000);
}

int main(void) {
    test_every_tag();
    test_every_prefix_of_a_frame();
    test_lengths_and_limits();
    test_byte_order();
    test_any_bytes();
    puts("test_frames: ok");
    return 0;
}
