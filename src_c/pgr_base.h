/*
 * What every stage of the core shares: status codes, the error record, byte order.
 *
 * The core is plain C11: no Python.h, no allocation, no I/O, no globals. A stage takes bytes and
 * writes spans or numbers into memory of the caller's; it reports a fault as numbers, and whoever
 * called it finds the words. All bytes are taken as hostile.
 */
#ifndef PGR_BASE_H
#define PGR_BASE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum pgr_status {
    PGR_OK = 0,
    PGR_NEED_MORE = 1, /* the bytes end before the message does */
    PGR_BAD = 2        /* the bytes break the protocol: see pgr_error */
} pgr_status;

/* What is wrong with the bytes. pgrepl/codec/faults.py holds the same numbers and their words. */
typedef enum pgr_fault {
    PGR_FAULT_NONE = 0,
    PGR_FAULT_FRAME_TAG = 1,          /* no backend message has this tag */
    PGR_FAULT_FRAME_LENGTH = 2,       /* length word out of range: got, expected = upper limit */
    PGR_FAULT_COPY_EMPTY = 3,         /* CopyData with no body */
    PGR_FAULT_COPY_TAG = 4,           /* CopyData that is neither 'w' nor 'k' */
    PGR_FAULT_WAL_HEADER = 5,         /* XLogData shorter than its header: got, expected */
    PGR_FAULT_KEEPALIVE_SIZE = 6,     /* keepalive of another size: got, expected */
    PGR_FAULT_LOGICAL_EMPTY = 16,     /* pgoutput message with no bytes */
    PGR_FAULT_LOGICAL_TAG = 17,       /* no message of this version has this tag: expected = version */
    PGR_FAULT_TRUNCATED = 18,         /* expected more bytes for a field, got what is left */
    PGR_FAULT_UNTERMINATED = 19,      /* a string without its NUL */
    PGR_FAULT_TRAILING = 20,          /* bytes left after the last field: got how many */
    PGR_FAULT_COLUMN_LENGTH = 21,     /* column length below 0 */
    PGR_FAULT_COLUMN_KIND = 22,       /* column kind other than n u t b */
    PGR_FAULT_TUPLE_MARK = 23,        /* something else where N, K or O must stand */
    PGR_FAULT_COUNT = 24,             /* a negative or impossible count */
    PGR_FAULT_FLAGS = 25,             /* flag bits that the protocol does not define */
    PGR_FAULT_IDENTITY = 26,          /* replica identity other than d n f i */
    PGR_FAULT_STREAM_OPEN = 27,       /* cannot be inside a stream block: got its xid */
    PGR_FAULT_STREAM_CLOSED = 28,     /* cannot be outside of a stream block */
    PGR_FAULT_TRANSACTION_OPEN = 29,  /* cannot be in a transaction: got the tag that began it */
    PGR_FAULT_TRANSACTION_CLOSED = 30 /* cannot be outside of a transaction */
} pgr_fault;

typedef struct pgr_error {
    pgr_fault fault;
    uint8_t tag;      /* of the message at fault; the offending byte itself for *_TAG faults */
    uint64_t offset;  /* of the offending field, from the start of the message */
    int64_t expected; /* meaning depends on the fault */
    int64_t got;
} pgr_error;

/* A hint that memory will be read soon; means nothing to the result. */
#if defined(__GNUC__)
#define PGR_PREFETCH(p) __builtin_prefetch(p)
#else
#define PGR_PREFETCH(p) ((void)0)
#endif

static inline uint16_t pgr_load16(const uint8_t *p) {
    return (uint16_t)((uint16_t)p[0] << 8 | (uint16_t)p[1]);
}

/* Compilers turn these shifts into one load and one byte swap. */
static inline uint32_t pgr_load32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static inline uint64_t pgr_load64(const uint8_t *p) {
    return (uint64_t)pgr_load32(p) << 32 | (uint64_t)pgr_load32(p + 4);
}

/* Two's complement reinterpretation without relying on implementation-defined conversion. */
static inline int32_t pgr_signed32(uint32_t value) {
    int32_t result;
    memcpy(&result, &value, sizeof result);
    return result;
}

static inline int64_t pgr_signed64(uint64_t value) {
    int64_t result;
    memcpy(&result, &value, sizeof result);
    return result;
}

static inline uint64_t pgr_unsigned64(int64_t value) {
    uint64_t result;
    memcpy(&result, &value, sizeof result);
    return result;
}

static inline void pgr_store32(uint8_t *p, uint32_t value) {
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> (24 - 8 * i));
}

static inline void pgr_store64(uint8_t *p, uint64_t value) {
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(value >> (56 - 8 * i));
}

static inline pgr_status pgr_fail(pgr_error *error, pgr_fault fault, uint8_t tag, uint64_t offset,
                                  int64_t expected, int64_t got) {
    error->fault = fault;
    error->tag = tag;
    error->offset = offset;
    error->expected = expected;
    error->got = got;
    return PGR_BAD;
}

#endif
