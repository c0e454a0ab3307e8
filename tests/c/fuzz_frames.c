/*
 * Frames of any bytes: what is said to be whole lies within them, and what fewer bytes could tell
 * stands when more have come.
 */
#include "fuzz_driver.h"
#include "pgr_frames.h"

static const sample SAMPLES[] = {
    SAMPLE("d\0\0\0\x0C"
           "contents"
           "d\0\0\0\4"),
    SAMPLE("R\0\0\0\x08\0\0\0\0S\0\0\0\x07"
           "a\0b"
           "\0Z\0\0\0\5I"),
    SAMPLE("E\0\0\0\x0A"
           "SFATAL"),
    SAMPLE("d\x3F\xFF\xFF\xFF"),
    SAMPLE("c\0\0\0\4C\0\0\0\x09"
           "COPY\0"),
};

static void same_for_fewer(const uint8_t *data, size_t size, uint32_t limit, pgr_status whole,
                           const pgr_frame *frame) {
    for (size_t cut = 0; cut < size && cut < 64; cut++) {
        pgr_frame part;
        pgr_error error;
        pgr_status status = pgr_frame_next(data, cut, limit, &part, &error);
        assert(status == PGR_NEED_MORE || status == whole);
        if (status == PGR_OK || part.tag != 0)
            assert(part.tag == frame->tag && part.body_size == frame->body_size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint32_t limit = size % 3 == 0 ? 4 + (uint32_t)size : PGR_FRAME_MAX_LENGTH;
    for (;;) {
        pgr_frame frame;
        pgr_error error;
        pgr_status status = pgr_frame_next(data, size, limit, &frame, &error);
        same_for_fewer(data, size, limit, status, &frame);
        if (status == PGR_BAD)
            assert(error.offset <= 1 && error.fault != PGR_FAULT_NONE);
        if (status != PGR_OK)
            return 0;
        assert(frame.body == data + PGR_FRAME_HEADER && frame.body_size < limit);
        assert(frame.body_size <= size - PGR_FRAME_HEADER);
        data += PGR_FRAME_HEADER + frame.body_size;
        size -= PGR_FRAME_HEADER + frame.body_size;
    }
}

FUZZ("fuzz_frames", SAMPLES)
