/*
 * WAL: what CopyData carries while replication streams.
 *
 *   'w'  i64 wal_start  i64 wal_end  i64 server_time  bytes        XLogData, 25 bytes and more
 *   'k'  i64 wal_end  i64 server_time  u8 reply_requested          primary keepalive, 18 bytes
 *   'r'  i64 written  i64 flushed  i64 applied  i64 time  u8 reply  standby status, ours, 34 bytes
 *
 * Times are microseconds since 2000-01-01 00:00 UTC.
 * Source: PostgreSQL documentation, "Streaming Replication Protocol".
 *
 * A run of CopyData frames is read in one pass into columns of the caller's: the bytes have just
 * come from the kernel, and a second walk over them would miss the cache a second time.
 */
#ifndef PGR_WAL_H
#define PGR_WAL_H

#include "pgr_frames.h"

enum {
    PGR_XLOGDATA_HEADER = 25,
    PGR_KEEPALIVE_SIZE = 18,
    PGR_STATUS_FRAME_SIZE = PGR_FRAME_HEADER + 34
};

typedef struct pgr_keepalive {
    uint64_t wal_end;
    int64_t server_time;
    uint32_t index; /* which message of the run, counting both kinds */
    uint8_t reply_requested;
} pgr_keepalive;

/* Where the contents go: one element for each XLogData, and one keepalive for each 'k'. */
typedef struct pgr_wal_columns {
    size_t capacity; /* of the columns */
    size_t keepalive_capacity;
    uint64_t *wal_start;
    uint64_t *wal_end;
    int64_t *server_time;
    uint32_t *offset; /* of the payload, from the run's first byte */
    uint32_t *size;   /* of the payload */
    pgr_keepalive *keepalive;
} pgr_wal_columns;

/* What was read: a run of whole CopyData frames at the front of some bytes. */
typedef struct pgr_wal_run {
    size_t bytes;    /* the run's length */
    size_t xlogdata; /* how many of each */
    size_t keepalives;
    uint64_t highest_position; /* of any header */
    uint64_t highest_end;      /* of the data, if it is raw WAL: header plus size, wrapping */
    int full;                  /* it ended only because a column is full */
} pgr_wal_run;

/*
 * Read the run at the front. It ends at the first byte that is not a whole and valid CopyData frame
 * with a known body. PGR_OK: at least one message is there, or the columns had no room for it.
 * PGR_NEED_MORE: none is, the first frame is not whole, or is not CopyData. PGR_BAD: the first frame
 * is at fault. So what came before a fault is always delivered, however the bytes were cut.
 */
pgr_status pgr_wal_read(const uint8_t *bytes, size_t size, const pgr_wal_columns *columns,
                        pgr_wal_run *run, pgr_error *error);

/*
 * The rest of a run without its first messages, so many of each kind, from its columns alone: the
 * bytes may have changed since they were read. Offsets count from where they did. `to` has room for
 * the rest.
 */
void pgr_wal_tail(const pgr_wal_columns *columns, const pgr_wal_run *run, size_t xlogdata,
                  size_t keepalives, pgr_wal_columns *to, pgr_wal_run *tail);

/* Write a whole CopyData frame with a standby status update; `out` has PGR_STATUS_FRAME_SIZE. */
void pgr_wal_write_status(uint8_t *out, uint64_t written, uint64_t flushed, uint64_t applied,
                          int64_t client_time, uint8_t reply_requested);

#endif
