/*
 * pgr_wal alone, with no Python around it: what a run holds, where it ends, what is at fault, and no
 * access outside the bytes and the columns. Both lie in memory of exactly their size, so that the
 * address sanitizer sees a single byte too many.
 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#undef NDEBUG
#include "pgr_wal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Where a test puts its frames together. */
typedef struct script {
    uint8_t bytes[1 << 16];
    size_t size;
} script;

static void add_frame(script *to, uint8_t tag, const uint8_t *body, size_t size) {
    to->bytes[to->size] = tag;
    pgr_store32(to->bytes + to->size + 1, (uint32_t)size + 4);
    if (size > 0)
        memcpy(to->bytes + to->size + PGR_FRAME_HEADER, body, size);
    to->size += PGR_FRAME_HEADER + size;
}

static void add_xlogdata(script *to, uint64_t start, uint64_t end, int64_t time, size_t payload) {
    uint8_t body[PGR_XLOGDATA_HEADER + 2000];
    body[0] = 'w';
    pgr_store64(body + 1, start);
    pgr_store64(body + 9, end);
    pgr_store64(body + 17, pgr_unsigned64(time));
    for (size_t i = 0; i < payload; i++)
        body[PGR_XLOGDATA_HEADER + i] = (uint8_t)(start + i);
    add_frame(to, 'd', body, PGR_XLOGDATA_HEADER + payload);
}

static void add_keepalive(script *to, uint64_t end, int64_t time, uint8_t reply) {
    uint8_t body[PGR_KEEPALIVE_SIZE];
    body[0] = 'k';
    pgr_store64(body + 1, end);
    pgr_store64(body + 9, pgr_unsigned64(time));
    body[17] = reply;
    add_frame(to, 'd', body, sizeof body);
}

/* A run that was read, with everything that it lies in. */
typedef struct reading {
    uint8_t *bytes;
    pgr_wal_columns columns;
    pgr_wal_run run;
    pgr_error error;
    pgr_status status;
} reading;

static void *exactly(size_t size) {
    void *memory = malloc(size > 0 ? size : 1);
    assert(memory != NULL);
    return memory;
}

static reading read_run(const uint8_t *source, size_t size, size_t capacity, size_t keepalives) {
    reading got;
    got.bytes = exactly(size);
    memcpy(got.bytes, source, size);
    got.columns = (pgr_wal_columns){
        .capacity = capacity,
        .keepalive_capacity = keepalives,
        .wal_start = exactly(capacity * sizeof(uint64_t)),
        .wal_end = exactly(capacity * sizeof(uint64_t)),
        .server_time = exactly(capacity * sizeof(int64_t)),
        .offset = exactly(capacity * sizeof(uint32_t)),
        .size = exactly(capacity * sizeof(uint32_t)),
        .keepalive = exactly(keepalives * sizeof(pgr_keepalive)),
    };
    memset(&got.run, 0xEE, sizeof got.run);
    memset(&got.error, 0xEE, sizeof got.error);
    got.status = pgr_wal_read(got.bytes, size, &got.columns, &got.run, &got.error);
    return got;
}

static void release(reading *got) {
    free(got->bytes);
    free(got->columns.wal_start);
    free(got->columns.wal_end);
    free(got->columns.server_time);
    free(got->columns.offset);
    free(got->columns.size);
    free(got->columns.keepalive);
}

static void test_a_run_of_both_kinds(void) {
    script sent = {.size = 0};
    add_keepalive(&sent, 900, -1, 0);
    add_xlogdata(&sent, 100, 200, 5, 10);
    add_xlogdata(&sent, 0, 0, INT64_MIN, 0);
    add_keepalive(&sent, 50, 7, 2);
    add_xlogdata(&sent, 895, UINT64_MAX, INT64_MAX, 1500);
    reading got = read_run(sent.bytes, sent.size, 3, 2);
    assert(got.status == PGR_OK && !got.run.full);
    assert(got.run.bytes == sent.size && got.run.xlogdata == 3 && got.run.keepalives == 2);
    assert(got.run.highest_position == 900 && got.run.highest_end == 2395);

    const uint64_t starts[] = {100, 0, 895}, ends[] = {200, 0, UINT64_MAX};
    const int64_t times[] = {5, INT64_MIN, INT64_MAX};
    const uint32_t sizes[] = {10, 0, 1500};
    for (size_t i = 0; i < 3; i++) {
        assert(got.columns.wal_start[i] == starts[i] && got.columns.wal_end[i] == ends[i]);
        assert(got.columns.server_time[i] == times[i] && got.columns.size[i] == sizes[i]);
        const uint8_t *payload = got.bytes + got.columns.offset[i];
        for (size_t at = 0; at < sizes[i]; at++)
            assert(payload[at] == (uint8_t)(starts[i] + at));
    }
    const pgr_keepalive *keepalive = got.columns.keepalive;
    assert(keepalive[0].wal_end == 900 && keepalive[0].server_time == -1);
    assert(keepalive[0].index == 0 && keepalive[0].reply_requested == 0);
    assert(keepalive[1].wal_end == 50 && keepalive[1].server_time == 7);
    assert(keepalive[1].index == 3 && keepalive[1].reply_requested == 1);
    release(&got);
}

static void test_every_prefix_of_a_run(void) {
    script sent = {.size = 0};
    size_t ends[4] = {0};
    add_xlogdata(&sent, 1, 1, 0, 3);
    ends[1] = sent.size;
    add_keepalive(&sent, 2, 0, 1);
    ends[2] = sent.size;
    add_xlogdata(&sent, 3, 3, 0, 0);
    ends[3] = sent.size;
    for (size_t size = 0; size <= sent.size; size++) {
        size_t whole = 0;
        while (whole < 3 && ends[whole + 1] <= size)
            whole++;
        reading got = read_run(sent.bytes, size, 2, 1);
        assert(got.status == (whole > 0 ? PGR_OK : PGR_NEED_MORE));
        assert(got.run.bytes == ends[whole] && !got.run.full);
        assert(got.run.xlogdata + got.run.keepalives == whole);
        release(&got);
    }
}

static void test_columns_that_are_too_small(void) {
    script sent = {.size = 0};
    for (uint64_t i = 0; i < 20; i++) {
        add_xlogdata(&sent, i, i, 0, 1);
        add_keepalive(&sent, i, 0, 0);
    }
    for (size_t capacity = 0; capacity <= 21; capacity++) {
        for (size_t keepalives = 0; keepalives <= 21; keepalives++) {
            reading got = read_run(sent.bytes, sent.size, capacity, keepalives);
            /* A message of each in turn, XLogData first: what has no room for the next one ends. */
            size_t data = capacity <= keepalives ? capacity : keepalives + 1;
            size_t alive = keepalives < capacity ? keepalives : capacity;
            data = data > 20 ? 20 : data;
            alive = alive > 20 ? 20 : alive;
            assert(got.status == PGR_OK);
            assert(got.run.xlogdata == data && got.run.keepalives == alive);
            assert(got.run.full == (capacity < 20 || keepalives < 20));
            release(&got);
        }
    }
}

static void test_what_ends_a_run(void) {
    script before = {.size = 0};
    add_xlogdata(&before, 1, 1, 0, 3);
    static const uint8_t tags[] = {'c', 'C', 'E', 'N', 'S', 'Z', 'W'};
    for (size_t i = 0; i < sizeof tags; i++) {
        script sent = before;
        add_frame(&sent, tags[i], (const uint8_t *)"I", 1);
        reading got = read_run(sent.bytes, sent.size, 9, 9);
        assert(got.status == PGR_OK && got.run.bytes == before.size && got.run.xlogdata == 1);
        release(&got);
        got = read_run(sent.bytes + before.size, sent.size - before.size, 9, 9);
        assert(got.status == PGR_NEED_MORE && got.run.bytes == 0);
        release(&got);
    }
}

typedef struct flaw {
    const char *body;
    size_t size;
    pgr_fault fault;
    uint8_t tag;
    int64_t expected;
    int64_t got;
} flaw;

static void test_bodies_at_fault(void) {
    static const char zeros[64] = {0};
    char w[64] = "w", k[64] = "k";
    const flaw flaws[] = {
        {zeros, 0, PGR_FAULT_COPY_EMPTY, 'd', 1, 0},
        {zeros, 30, PGR_FAULT_COPY_TAG, 0, 0, 0},
        {"x", 1, PGR_FAULT_COPY_TAG, 'x', 0, 'x'},
        {w, 1, PGR_FAULT_WAL_HEADER, 'w', 25, 1},
        {w, 24, PGR_FAULT_WAL_HEADER, 'w', 25, 24},
        {k, 1, PGR_FAULT_KEEPALIVE_SIZE, 'k', 18, 1},
        {k, 17, PGR_FAULT_KEEPALIVE_SIZE, 'k', 18, 17},
        {k, 19, PGR_FAULT_KEEPALIVE_SIZE, 'k', 18, 19},
    };
    for (size_t i = 0; i < sizeof flaws / sizeof flaws[0]; i++) {
        for (int ahead = 0; ahead < 2; ahead++) {
            script sent = {.size = 0};
            if (ahead)
                add_keepalive(&sent, 1, 1, 0);
            size_t good = sent.size;
            add_frame(&sent, 'd', (const uint8_t *)flaws[i].body, flaws[i].size);
            add_xlogdata(&sent, 1, 1, 0, 0);
            reading got = read_run(sent.bytes, sent.size, 9, 9);
            assert(got.run.bytes == good);
            if (ahead) {
                assert(got.status == PGR_OK && got.run.keepalives == 1);
            } else {
                assert(got.status == PGR_BAD && got.error.offset == 0);
                assert(got.error.fault == flaws[i].fault && got.error.tag == flaws[i].tag);
                assert(got.error.expected == flaws[i].expected && got.error.got == flaws[i].got);
            }
            release(&got);
        }
    }
}

static void test_a_frame_at_fault(void) {
    const uint8_t bytes[] = "d\xff\xff\xff\xff";
    reading got = read_run(bytes, 5, 1, 1);
    assert(got.status == PGR_BAD && got.error.fault == PGR_FAULT_FRAME_LENGTH);
    assert(got.error.tag == 'd' && got.error.offset == 1 && got.error.got == -1);
    release(&got);
}

/*
 * Offsets have 32 bits, so a run that is longer ends before they would wrap around. The memory is
 * claimed and hardly touched.
 */
static void test_a_run_of_more_than_four_gibibytes(void) {
    enum { FRAMES = 5 };
    size_t frame = (size_t)PGR_FRAME_MAX_LENGTH + 1, size = FRAMES * frame;
    if (sizeof(size_t) < 8)
        return;
    uint8_t *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bytes == MAP_FAILED) {
        puts("test_wal: no 5 GiB of address space here, one test is left out");
        return;
    }
    for (size_t i = 0; i < FRAMES; i++) {
        bytes[i * frame] = 'd';
        pgr_store32(bytes + i * frame + 1, PGR_FRAME_MAX_LENGTH);
        bytes[i * frame + PGR_FRAME_HEADER] = 'w';
        pgr_store64(bytes + i * frame + PGR_FRAME_HEADER + 1, i + 1);
    }
    uint64_t starts[FRAMES], ends[FRAMES];
    int64_t times[FRAMES];
    uint32_t offsets[FRAMES], sizes[FRAMES];
    pgr_keepalive keepalive;
    const pgr_wal_columns columns = {FRAMES, 1, starts, ends, times, offsets, sizes, &keepalive};
    size_t at = 0;
    for (uint64_t expected = 1; expected <= FRAMES;) {
        pgr_wal_run run;
        pgr_error error;
        assert(pgr_wal_read(bytes + at, size - at, &columns, &run, &error) == PGR_OK);
        assert(run.xlogdata > 0 && run.bytes == run.xlogdata * frame && run.bytes <= UINT32_MAX);
        for (size_t i = 0; i < run.xlogdata; i++, expected++) {
            assert(starts[i] == expected);
            assert(offsets[i] == i * frame + PGR_FRAME_HEADER + PGR_XLOGDATA_HEADER);
            assert(sizes[i] == frame - PGR_FRAME_HEADER - PGR_XLOGDATA_HEADER);
        }
        at += run.bytes;
    }
    assert(at == size);
    munmap(bytes, size);
}

static void test_a_position_that_wraps_around(void) {
    script sent = {.size = 0};
    add_xlogdata(&sent, UINT64_MAX - 4, 0, 0, 10);
    add_xlogdata(&sent, 3, 0, 0, 1);
    reading got = read_run(sent.bytes, sent.size, 2, 0);
    assert(got.run.highest_position == UINT64_MAX - 4 && got.run.highest_end == 5);
    release(&got);
}

static uint32_t next_random(uint64_t *state) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

/* Whatever comes: a verdict, and columns that lie inside the run. */
static void test_any_bytes(void) {
    uint64_t state = 7;
    unsigned long verdicts[3] = {0, 0, 0};
    for (int round = 0; round < 30000; round++) {
        script sent = {.size = 0};
        for (uint32_t i = next_random(&state) % 8; i > 0; i--) {
            if (next_random(&state) % 3 == 0)
                add_keepalive(&sent, next_random(&state), 0, (uint8_t)i);
            else
                add_xlogdata(&sent, next_random(&state), 0, 0, next_random(&state) % 70);
        }
        for (uint32_t i = next_random(&state) % 3; i > 0 && sent.size > 0; i--)
            sent.bytes[next_random(&state) % sent.size] = (uint8_t)next_random(&state);
        size_t size = sent.size;
        if (size > 0 && round % 4 == 0)
            size = next_random(&state) % size;
        reading got = read_run(sent.bytes, size, next_random(&state) % 6, next_random(&state) % 4);
        verdicts[got.status]++;
        if (got.status != PGR_BAD) {
            assert(got.run.bytes <= size);
            assert(got.run.xlogdata <= got.columns.capacity);
            assert(got.run.keepalives <= got.columns.keepalive_capacity);
        }
        for (size_t i = 0; i < got.run.xlogdata; i++)
            assert((size_t)got.columns.offset[i] + got.columns.size[i] <= got.run.bytes);
        release(&got);
    }
    assert(verdicts[PGR_OK] > 300 && verdicts[PGR_NEED_MORE] > 300 && verdicts[PGR_BAD] > 300);
}

static void test_a_status(void) {
    uint8_t *out = exactly(PGR_STATUS_FRAME_SIZE);
    memset(out, 0xEE, PGR_STATUS_FRAME_SIZE);
    pgr_wal_write_status(out, 0x0102030405060708, UINT64_MAX, 0, -2, 0xFF);
    static const uint8_t expected[PGR_STATUS_FRAME_SIZE + 1] =
        "d\0\0\0\x26r"
        "\1\2\3\4\5\6\7\x08"
        "\xff\xff\xff\xff\xff\xff\xff\xff"
        "\0\0\0\0\0\0\0\0"
        "\xff\xff\xff\xff\xff\xff\xff\xfe"
        "\1";
    assert(memcmp(out, expected, PGR_STATUS_FRAME_SIZE) == 0);
    pgr_wal_write_status(out, 0, 0, 0, 0, 0);
    assert(out[38] == 0 && out[37] == 0);
    free(out);
}

int main(void) {
    test_a_run_of_both_kinds();
    test_every_prefix_of_a_run();
    test_columns_that_are_too_small();
    test_what_ends_a_run();
    test_bodies_at_fault();
    test_a_frame_at_fault();
    test_a_run_of_more_than_four_gibibytes();
    test_a_position_that_wraps_around();
    test_any_bytes();
    test_a_status();
    puts("test_wal: ok");
    return 0;
}
