#include "pgr_wal.h"

/* Check a CopyData body. Offsets count from the first byte of the body. */
static pgr_status check_body(const uint8_t *body, uint32_t size, pgr_error *error) {
    if (size == 0)
        return pgr_fail(error, PGR_FAULT_COPY_EMPTY, 'd', 0, 1, 0);
    switch (body[0]) {
    case 'w':
        if (size < PGR_XLOGDATA_HEADER)
            return pgr_fail(error, PGR_FAULT_WAL_HEADER, 'w', 0, PGR_XLOGDATA_HEADER, size);
        return PGR_OK;
    case 'k':
        if (size != PGR_KEEPALIVE_SIZE)
            return pgr_fail(error, PGR_FAULT_KEEPALIVE_SIZE, 'k', 0, PGR_KEEPALIVE_SIZE, size);
        return PGR_OK;
    default:
        return pgr_fail(error, PGR_FAULT_COPY_TAG, body[0], 0, 0, body[0]);
    }
}

pgr_status pgr_wal_measure(const uint8_t *bytes, size_t size, pgr_wal_run *run, pgr_error *error) {
    run->bytes = 0;
    run->xlogdata = 0;
    run->keepalives = 0;
    for (;;) {
        pgr_frame frame;
        const uint8_t *at = bytes + run->bytes;
        pgr_status status =
            pgr_frame_next(at, size - run->bytes, PGR_FRAME_MAX_LENGTH, &frame, error);
        if (status == PGR_OK && frame.tag != 'd')
            status = PGR_NEED_MORE;
        if (status == PGR_OK)
            status = check_body(frame.body, frame.body_size, error);
        if (status != PGR_OK)
            return run->bytes > 0 ? PGR_OK : status;

        if (frame.body[0] == 'w')
            run->xlogdata++;
        else
            run->keepalives++;
        run->bytes += PGR_FRAME_HEADER + (size_t)frame.body_size;
    }
}

void pgr_wal_fill(const uint8_t *bytes, const pgr_wal_run *run, const pgr_wal_columns *columns) {
    size_t at = 0, xlogdata = 0, keepalives = 0;
    while (at < run->bytes) {
        uint32_t length = pgr_load32(bytes + at + 1);
        const uint8_t *body = bytes + at + PGR_FRAME_HEADER;
        if (body[0] == 'w') {
            columns->wal_start[xlogdata] = pgr_load64(body + 1);
            columns->wal_end[xlogdata] = pgr_load64(body + 9);
            columns->server_time[xlogdata] = pgr_signed64(pgr_load64(body + 17));
            columns->offset[xlogdata] = (uint32_t)(at + PGR_FRAME_HEADER + PGR_XLOGDATA_HEADER);
            columns->size[xlogdata] = length - 4 - PGR_XLOGDATA_HEADER;
            xlogdata++;
        } else {
            pgr_keepalive *keepalive = &columns->keepalive[keepalives];
            keepalive->wal_end = pgr_load64(body + 1);
            keepalive->server_time = pgr_signed64(pgr_load64(body + 9));
            keepalive->reply_requested = body[17] != 0;
            keepalive->index = (uint32_t)(xlogdata + keepalives);
            keepalives++;
        }
        at += 1 + (size_t)length;
    }
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
