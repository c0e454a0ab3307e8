/*
 * A reader of bytes that nobody has checked yet. Its law: every read is held against the end, and
 * the first fault sticks. After a fault each read gives 0 or an empty span and moves nowhere, so a
 * parser reads field after field and looks at the outcome once.
 *
 * Numbers are big-endian, as everything in the protocol. Spans point into the caller's bytes.
 */
#ifndef PGR_CURSOR_H
#define PGR_CURSOR_H

#include "pgr_base.h"

typedef struct pgr_span {
    const uint8_t *bytes;
    size_t size;
} pgr_span;

typedef struct pgr_cursor {
    const uint8_t *start; /* of the message: what offsets count from */
    const uint8_t *at;
    const uint8_t *end;
    pgr_status status; /* PGR_OK, or PGR_BAD from the first fault on */
    pgr_error error;   /* that fault; before it only the tag is set */
} pgr_cursor;

/* A cursor over `part`, which lies in a message that begins at `start` and has this tag. */
static inline pgr_cursor pgr_cursor_over(const uint8_t *start, uint8_t tag, pgr_span part) {
    pgr_cursor cursor = {.start = start,
                         .at = part.bytes,
                         .end = part.bytes + part.size,
                         .status = PGR_OK,
                         .error = {.fault = PGR_FAULT_NONE, .tag = tag}};
    return cursor;
}

static inline size_t pgr_cursor_left(const pgr_cursor *cursor) {
    return (size_t)(cursor->end - cursor->at);
}

/* Note a fault of the field at `field`, if it is the first one. */
static inline void pgr_cursor_fail(pgr_cursor *cursor, pgr_fault fault, const uint8_t *field,
                                   int64_t expected, int64_t got) {
    if (cursor->status != PGR_OK)
        return;
    cursor->status = pgr_fail(&cursor->error, fault, cursor->error.tag,
                              (uint64_t)(field - cursor->start), expected, got);
    /* At the end every later read falls short, so no read has to look at the status first. */
    cursor->at = cursor->end;
}

/*
 * The next `size` bytes, or NULL where fewer are left. 64 bits, so that what a peer claims cannot
 * wrap around where size_t is smaller.
 */
static inline const uint8_t *pgr_cursor_take(pgr_cursor *cursor, uint64_t size) {
    const uint8_t *field = cursor->at;
    size_t left = pgr_cursor_left(cursor);
    if (left < size) {
        pgr_cursor_fail(cursor, PGR_FAULT_TRUNCATED, field, (int64_t)size, (int64_t)left);
        return NULL;
    }
    cursor->at = field + (size_t)size;
    return field;
}

static inline uint8_t pgr_cursor_u8(pgr_cursor *cursor) {
    const uint8_t *field = pgr_cursor_take(cursor, 1);
    return field ? *field : 0;
}

static inline uint16_t pgr_cursor_u16(pgr_cursor *cursor) {
    const uint8_t *field = pgr_cursor_take(cursor, 2);
    return field ? pgr_load16(field) : 0;
}

static inline uint32_t pgr_cursor_u32(pgr_cursor *cursor) {
    const uint8_t *field = pgr_cursor_take(cursor, 4);
    return field ? pgr_load32(field) : 0;
}

static inline uint64_t pgr_cursor_u64(pgr_cursor *cursor) {
    const uint8_t *field = pgr_cursor_take(cursor, 8);
    return field ? pgr_load64(field) : 0;
}

static inline int32_t pgr_cursor_i32(pgr_cursor *cursor) {
    return pgr_signed32(pgr_cursor_u32(cursor));
}

static inline int64_t pgr_cursor_i64(pgr_cursor *cursor) {
    return pgr_signed64(pgr_cursor_u64(cursor));
}

/* A signed length or count of 32 bits, 0 and more; below 0 it is this fault. */
static inline uint32_t pgr_cursor_count32(pgr_cursor *cursor, pgr_fault fault) {
    int32_t count = pgr_cursor_i32(cursor);
    if (count >= 0)
        return (uint32_t)count;
    pgr_cursor_fail(cursor, fault, cursor->at - 4, 0, count);
    return 0;
}

static inline pgr_span pgr_cursor_bytes(pgr_cursor *cursor, uint64_t size) {
    const uint8_t *field = pgr_cursor_take(cursor, size);
    pgr_span span = {field ? field : cursor->end, field ? (size_t)size : 0};
    return span;
}

/* A string up to its NUL, which the span leaves out and the cursor passes. */
static inline pgr_span pgr_cursor_cstr(pgr_cursor *cursor) {
    const uint8_t *field = cursor->at;
    size_t left = pgr_cursor_left(cursor);
    const uint8_t *nul = left > 0 ? memchr(field, 0, left) : NULL;
    pgr_span span = {field, 0};
    if (nul == NULL) {
        pgr_cursor_fail(cursor, PGR_FAULT_UNTERMINATED, field, 0, (int64_t)left);
        return span;
    }
    span.size = (size_t)(nul - field);
    cursor->at = nul + 1;
    return span;
}

#endif
