#include "pgr_frames.h"

uint32_t pgr_frame_longest(uint8_t tag) {
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
