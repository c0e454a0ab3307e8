/*
 * Runs of CopyData of any bytes, into columns of any size: what is read lies within them, and the
 * tails of a run are what they were, whatever is written to the bytes meanwhile.
 */
#include "fuzz_driver.h"
#include "pgr_wal.h"

#define DATA(contents_size)                                                                        \
    "d\0\0\0" contents_size "w\0\0\0\1\xF7\x3E\2\x20\0\0\0\1\xF7\x3E\2\x20\0\2\xD6\x01\x02\x03"   \
    "\x04\x05"
#define KEEPALIVE "d\0\0\0\x16k\0\0\0\1\xF7\x3E\2\x50\0\2\xD6\x01\x02\x03\x04\x05\1"

static const sample SAMPLES[] = {
    SAMPLE(DATA("\x1D") DATA("\x21") "data" KEEPALIVE),
    SAMPLE(KEEPALIVE KEEPALIVE DATA("\x1E") "B"),
    SAMPLE(DATA("\x1D") "c\0\0\0\4"),
    SAMPLE(DATA("\x1D") DATA("\x1D") DATA("\x1D") DATA("\x1D") DATA("\x1D") KEEPALIVE),
};

enum { MOST = 24 };

typedef struct table {
    pgr_wal_columns columns;
    void *memory[6];
} table;

static void *room(table *table, int i, size_t size) {
    table->memory[i] = malloc(size > 0 ? size : 1);
    assert(table->memory[i] != NULL);
    return table->memory[i];
}

static table table_of(size_t capacity, size_t keepalives) {
    table made;
    made.columns.capacity = capacity;
    made.columns.keepalive_capacity = keepalives;
    made.columns.wal_start = room(&made, 0, capacity * sizeof(uint64_t));
    made.columns.wal_end = room(&made, 1, capacity * sizeof(uint64_t));
    made.columns.server_time = room(&made, 2, capacity * sizeof(int64_t));
    made.columns.offset = room(&made, 3, capacity * sizeof(uint32_t));
    made.columns.size = room(&made, 4, capacity * sizeof(uint32_t));
    made.columns.keepalive = room(&made, 5, keepalives * sizeof(pgr_keepalive));
    return made;
}

static void let_go(table *table) {
    for (int i = 0; i < 6; i++)
        free(table->memory[i]);
}

static void check_run(const table *table, const pgr_wal_run *run, size_t size) {
    uint64_t highest = 0;
    assert(run->bytes <= size);
    for (size_t i = 0; i < run->xlogdata; i++) {
        assert(table->columns.offset[i] <= size);
        assert(table->columns.size[i] <= size - table->columns.offset[i]);
        if (table->columns.wal_start[i] > highest)
            highest = table->columns.wal_start[i];
    }
    for (size_t i = 0; i < run->keepalives; i++) {
        assert(table->columns.keepalive[i].index < run->xlogdata + run->keepalives);
        assert(i == 0 || table->columns.keepalive[i].index > table->columns.keepalive[i - 1].index);
        if (table->columns.keepalive[i].wal_end > highest)
            highest = table->columns.keepalive[i].wal_end;
    }
    assert(run->highest_position == highest);
}

static void check_tails(const table *from, const pgr_wal_run *run, size_t size) {
    size_t before = 0, first = 0;
    for (size_t index = 0; index < run->xlogdata + run->keepalives; index++) {
        table to = table_of(run->xlogdata - first, run->keepalives - before);
        pgr_wal_run tail;
        pgr_wal_tail(&from->columns, run, first, before, &to.columns, &tail);
        assert(tail.xlogdata + tail.keepalives == run->xlogdata + run->keepalives - index);
        assert(index > 0 || tail.bytes == run->bytes);
        check_run(&to, &tail, size);
        let_go(&to);
        if (before < run->keepalives && from->columns.keepalive[before].index == index)
            before++;
        else
            first++;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    for (size_t capacity = 0; capacity < MOST; capacity += 1 + capacity) {
        table table = table_of(capacity, capacity / 2);
        pgr_wal_run run;
        pgr_error error;
        pgr_status status = pgr_wal_read(data, size, &table.columns, &run, &error);
        assert(run.xlogdata <= capacity && run.keepalives <= capacity / 2);
        assert((status == PGR_OK) == (run.bytes > 0 || run.full));
        check_run(&table, &run, size);
        check_tails(&table, &run, size);
        let_go(&table);
    }
    return 0;
}

FUZZ("fuzz_wal", SAMPLES)
