#include "pgr_frames.h"

/* How long a message with this tag may be: 0 = not a backend message, else one of two limits. */
static uint32_t longest(uint8_t tag) {
    switch (tag) {
    case 'd': /* CopyData */
    case 'D': /* DataRow */
    case 'T': /* RowDescription */
    case 'E': /* ErrorResponse */
    case 'N': /* NoticeResponse */
    case 'A': /* NotificationResponse */
    case 'V': /* FunctionCallResponse */
        return PGR_FRAME_MAX_LENGTH;
    case 'R': /* Authentication */
    case 'K': /* BackendKeyData */
    case 'S': /* ParameterStatus */
    case 'Z': /* ReadyForQuery */
    case 'C': /* CommandComplete */
    case 'c': /* CopyDone */
    case 'W': /* CopyBothResponse */
    case 'H': /* CopyOutResponse */
    case 'G': /* CopyInResponse */
    case 'I': /* EmptyQueryResponse */
    case 'v': /* NegotiateProtocolVersion */
    case '1': /* ParseComplete */
    case '2': /* BindComplete */
    case '3': /* CloseComplete */
    case 'n': /* NoData */
    case 's': /* PortalSuspended */
    case 't': /* ParameterDescription */
        return PGR_FRAME_SHORT_LENGTH;
    default:
        return 0;
    }
}

pgr_status pgr_frame_next(const uint8_t *bytes, size_t size, uint32_t limit, pgr_frame *frame,
                          pgr_error *error) {
    frame->tag = 0;
    frame->body_size = 0;
    frame->body = NULL;
    if (size == 0)
        return PGR_NEED_MORE;

    uint8_t tag = bytes[0];
    uint32_t allowed = longest(tag);
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
