#include "pgr_wal.h"

enum { CACHE_LINE = 64, PREFETCH_AHEAD = 1024 };

static inline uint64_t larger(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

/* Say what is wrong with a CopyData body that is neither of the two. */
static pgr_status body_fault(const uint8_t *body, uint32_t size, pgr_error *error) {
    if (size == 0)
        return pgr_fail(error, PGR_FAULT_COPY_EMPTY, 'd', 0, 1, 0);
    if (body[0] == 'w')
        return pgr_fail(error, PGR_FAULT_WAL_HEADER, 'w', 0, PGR_XLOGDATA_HEADER, size);
    if (body[0] == 'k')
        return pgr_fail(error, PGR_FAULT_KEEPALIVE_SIZE, 'k', 0, PGR_KEEPALIVE_SIZE, size);
    return pgr_fail(error, PGR_FAULT_COPY_TAG, body[0], 0, 0, body[0]);
}

static void take_keepalive(const uint8_t *body, const pgr_wal_columns *columns, pgr_wal_run *run) {
    pgr_keepalive *keepalive = &columns->keepalive[run->keepalives];
    keepalive->wal_end = pgr_load64(body + 1);
    keepalive->server_time = pgr_signed64(pgr_load64(body + 9));
    keepalive->reply_requested = body[17] != 0;
    keepalive->index = (uint32_t)(run->xlogdata + run->keepalives);
    run->keepalives++;
    run->highest_position = larger(run->highest_position, keepalive->wal_end);
    run->highest_end = larger(run->highest_end, keepalive->wal_end);
}

pgr_status pgr_wal_read(const uint8_t *bytes, size_t size, const pgr_wal_columns *columns,
                        pgr_wal_run *run, pgr_error *error) {
    /* Kept in locals: through the pointers the compiler would store them at every step. */
    const pgr_wal_columns to = *columns;
    pgr_wal_run got = {0, 0, 0, 0, 0, 0};
    pgr_status status;
    /* Offsets have 32 bits. What lies behind is a run of its own; no frame is as long as that. */
    if (size > UINT32_MAX)
        size = UINT32_MAX;
    for (;;) {
        /*
         * The kernel's copy has left the bytes in the second-level cache, and where the next header
         * is depends on this one's length: fetch what lies ahead, about a message's worth.
         */
        if (size - got.bytes > PREFETCH_AHEAD + 2 * CACHE_LINE) {
            PGR_PREFETCH(bytes + got.bytes + PREFETCH_AHEAD);
            PGR_PREFETCH(bytes + got.bytes + PREFETCH_AHEAD + CACHE_LINE);
            PGR_PREFETCH(bytes + got.bytes + PREFETCH_AHEAD + 2 * CACHE_LINE);
        }
        pgr_frame frame;
        status = pgr_frame_next(bytes + got.bytes, size - got.bytes, PGR_FRAME_MAX_LENGTH, &frame,
                                error);
        if (status != PGR_OK || frame.tag != 'd')
            break;
        if (frame.body_size >= PGR_XLOGDATA_HEADER && frame.body[0] == 'w') {
            if (got.xlogdata == to.capacity) {
                got.full = 1;
                break;
            }
            uint64_t start = pgr_load64(frame.body + 1);
            uint32_t payload = frame.body_size - PGR_XLOGDATA_HEADER;
            to.wal_start[got.xlogdata] = start;
            to.wal_end[got.xlogdata] = pgr_load64(frame.body + 9);
            to.server_time[got.xlogdata] = pgr_signed64(pgr_load64(frame.body + 17));
            to.offset[got.xlogdata] =
                (uint32_t)(got.bytes + PGR_FRAME_HEADER + PGR_XLOGDATA_HEADER);
            to.size[got.xlogdata] = payload;
            got.xlogdata++;
            got.highest_position = larger(got.highest_position, start);
            got.highest_end = larger(got.highest_end, start + payload);
        } else if (frame.body_size == PGR_KEEPALIVE_SIZE && frame.body[0] == 'k') {
            if (got.keepalives == to.keepalive_capacity) {
                got.full = 1;
                break;
            }
            take_keepalive(frame.body, &to, &got);
        } else {
            status = body_fault(frame.body, frame.body_size, error);
            break;
        }
        got.bytes += PGR_FRAME_HEADER + (size_t)frame.body_size;
    }
    *run = got;
    if (got.bytes > 0 || got.full)
        return PGR_OK;
    return status == PGR_OK ? PGR_NEED_MORE : status;
}

void pgr_wal_tail(const pgr_wal_columns *columns, const pgr_wal_run *run, size_t xlogdata,
                  size_t keepalives, pgr_wal_columns *to, pgr_wal_run *tail) {
    pgr_wal_run got = {0, run->xlogdata - xlogdata, run->keepalives - keepalives, 0, 0, 0};
    for (size_t i = 0; i < got.xlogdata; i++) {
        uint64_t start = columns->wal_start[xlogdata + i];
        uint32_t size = columns->size[xlogdata + i];
        to->wal_start[i] = start;
        to->wal_end[i] = columns->wal_end[xlogdata + i];
        to->server_time[i] = columns->server_time[xlogdata + i];
        to->offset[i] = columns->offset[xlogdata + i];
        to->size[i] = size;
        got.bytes += PGR_FRAME_HEADER + PGR_XLOGDATA_HEADER + (size_t)size;
        got.highest_position = larger(got.highest_position, start);
        got.highest_end = larger(got.highest_end, start + size);
    }
    for (size_t i = 0; i < got.keepalives; i++) {
        to->keepalive[i] = columns->keepalive[keepalives + i];
        to->keepalive[i].index -= (uint32_t)(xlogdata + keepalives);
        got.bytes += PGR_FRAME_HEADER + PGR_KEEPALIVE_SIZE;
        got.highest_position = larger(got.highest_position, to->keepalive[i].wal_end);
        got.highest_end = larger(got.highest_end, to->keepalive[i].wal_end);
    }
    *tail = got;
}

void pgr_wal_write_status(uint8_t *out, uint64_t written, uint64_t flushed, uint64_t applied,
                          int64_t client_time, uint8_t reply_requested) {
    out[0] = 'd';
    pgr_store32(out + 1, PGR_STATUS_FRAME_SIZE - 1);
    out[5] = 'r';
    pgr_store64(out + 6, written);
    pgr_store64(out + 14, flushed);
    pgr_store64(out + 22, applied);
    pgr_store64(out + 30, pgr_unsigned64(client_time));
    out[38] = reply_requested != 0;
}
