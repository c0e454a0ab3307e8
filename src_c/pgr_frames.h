/*
 * Frames: the outer envelope of every backend message, `u8 tag | i32 length | body`, where the
 * length counts itself but not the tag.
 *
 * Source: PostgreSQL documentation, "Message Formats".
 */
#ifndef PGR_FRAMES_H
#define PGR_FRAMES_H

#include "pgr_base.h"

enum {
    PGR_FRAME_HEADER = 5,                /* tag and length word */
    PGR_FRAME_MAX_LENGTH = 0x3FFFFFFF,   /* 1 GiB - 1: the server's own limit for a message */
    PGR_FRAME_SHORT_LENGTH = 30000       /* limit for the tags that never carry data */
};

typedef struct pgr_frame {
    const uint8_t *body;
    uint32_t body_size;
    uint8_t tag;
} pgr_frame;

/* The longest length word for a tag: 0 = not a backend message. */
uint32_t pgr_frame_longest(uint8_t tag);

/*
 * Look at the frame that starts at `bytes`. `limit` is the largest length word to accept.
 *
 * PGR_OK: `frame` is whole. PGR_NEED_MORE: tag and body_size are set as soon as the header has
 * arrived (tag 0 before that), so that the caller can make room for the rest. PGR_BAD: `error` is
 * set; a bad length or tag is reported when the header is there, never after waiting for the body.
 */
static inline pgr_status pgr_frame_next(const uint8_t *bytes, size_t size, uint32_t limit,
                                        pgr_frame *frame, pgr_error *error) {
    frame->tag = 0;
    frame->body_size = 0;
    frame->body = NULL;
    if (size == 0)
        return PGR_NEED_MORE;

    uint8_t tag = bytes[0];
    /* A stream is nearly all CopyData: it takes the short way. */
    uint32_t allowed = tag == 'd' ? PGR_FRAME_MAX_LENGTH : pgr_frame_longest(tag);
    if (allowed == 0)
        return pgr_fail(error, PGR_FAULT_FRAME_TAG, tag, 0, 0, tag);
    if (size < PGR_FRAME_HEADER)
        return PGR_NEED_MORE;

    if (allowed > limit)
        allowed = limit;
    int32_t length = pgr_signed32(pgr_load32(bytes + 1));
    if (length < 4 || length > (int32_t)allowed)
        return pgr_fail(error, PGR_FAULT_FRAME_LENGTH, tag, 1, (int64_t)allowed, length);

    frame->tag = tag;
    frame->body = bytes + PGR_FRAME_HEADER;
    frame->body_size = (uint32_t)length - 4;
    return size - PGR_FRAME_HEADER < frame->body_size ? PGR_NEED_MORE : PGR_OK;
}

#endif
