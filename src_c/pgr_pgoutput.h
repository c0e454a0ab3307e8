/*
 * pgoutput, protocol versions 1 to 4: the payload of an XLogData message -> numbers and spans.
 *
 * Version 1:
 *   'B'  u64 final_lsn  i64 commit_time  u32 xid                                  Begin
 *   'C'  u8 0  u64 commit_lsn  u64 end_lsn  i64 commit_time                       Commit
 *   'O'  u64 commit_lsn  cstr name                                                Origin
 *   'R'  [xid]  u32 oid  cstr schema  cstr name  u8 replica_identity
 *        i16 n  n attributes                                                      Relation
 *   'Y'  [xid]  u32 oid  cstr schema  cstr name                                   Type
 *   'I'  [xid]  u32 relation  'N' tuple                                           Insert
 *   'U'  [xid]  u32 relation  ['K' tuple | 'O' tuple]  'N' tuple                  Update
 *   'D'  [xid]  u32 relation  'K' tuple | 'O' tuple                               Delete
 *   'T'  [xid]  i32 n  u8 flags  n times u32 relation                             Truncate
 *   'M'  [xid]  u8 flags  u64 lsn  cstr prefix  i32 n  n bytes                    Message
 *
 *   attribute: u8 flags  cstr name  u32 type_oid  i32 type_modifier
 *   tuple:     i16 n  n columns;  column: 'n' | 'u' | 't' i32 n, n bytes | 'b' i32 n, n bytes
 *   [xid]:     u32, in stream blocks alone
 *
 * Version 2, with transactions that are sent before they end, in blocks from 'S' to 'E':
 *   'S'  u32 xid  u8 first_segment                                                StreamStart
 *   'E'                                                                           StreamStop
 *   'c'  u32 xid  u8 0  u64 commit_lsn  u64 end_lsn  i64 commit_time              StreamCommit
 *   'A'  u32 xid  u32 subxid  [u64 abort_lsn  i64 abort_time]                     StreamAbort
 *        the last two in version 4, and there with streaming = parallel alone; PostgreSQL 18
 *        sends the short form in every version, of large transactions that it did not send
 *
 * Version 3, with transactions that are prepared first and committed later:
 *   'b'  u64 prepare_lsn  u64 end_lsn  i64 prepare_time  u32 xid  cstr gid        BeginPrepare
 *   'P'  u8 0  u64 prepare_lsn  u64 end_lsn  i64 prepare_time  u32 xid  cstr gid  Prepare
 *   'K'  u8 0  u64 commit_lsn  u64 end_lsn  i64 commit_time  u32 xid  cstr gid    CommitPrepared
 *   'r'  u8 0  u64 prepare_end_lsn  u64 rollback_end_lsn
 *        i64 prepare_time  i64 rollback_time  u32 xid  cstr gid                   RollbackPrepared
 *   'p'  as 'P'                                                                   StreamPrepare
 *
 * Times are microseconds since 2000-01-01 00:00 UTC.
 * Source: PostgreSQL documentation, "Logical Replication Message Formats".
 *
 * A message is checked to its last byte before anything of it is handed out. What repeats is given
 * as a span and read with a cursor, so no count on the wire makes anybody allocate.
 */
#ifndef PGR_PGOUTPUT_H
#define PGR_PGOUTPUT_H

#include "pgr_cursor.h"

/*
 * What a stream of messages was asked for, and where in it we are. No message says by itself
 * whether it has an xid, or whether it is a StreamAbort of the long kind: this does.
 */
typedef struct pgr_stream {
    uint8_t proto_version; /* 1 to 4 */
    uint8_t parallel;      /* streaming = parallel: a StreamAbort tells its position and time */
    uint8_t ordered;       /* transactions are to begin before their changes, and to end */
    /* Kept by pgr_pgoutput_read: */
    uint8_t in_block;    /* between StreamStart and StreamStop */
    uint32_t block_xid;  /* of the StreamStart, while in_block */
    uint8_t transaction; /* tag of the message that began the one that is open: B b, or 0 */
} pgr_stream;

typedef struct pgr_begin {
    uint64_t final_lsn;
    int64_t commit_time;
    uint32_t xid;
} pgr_begin;

typedef struct pgr_commit {
    uint64_t commit_lsn;
    uint64_t end_lsn;
    int64_t commit_time;
} pgr_commit;

typedef struct pgr_origin {
    uint64_t commit_lsn;
    pgr_span name;
} pgr_origin;

typedef struct pgr_relation {
    uint32_t oid;
    pgr_span schema; /* empty: pg_catalog */
    pgr_span name;
    uint8_t replica_identity; /* d n f i */
    uint16_t attribute_count;
    pgr_span attributes; /* for pgr_attribute_next */
} pgr_relation;

typedef struct pgr_attribute {
    uint8_t is_key;
    pgr_span name;
    uint32_t type_oid;
    int32_t type_modifier; /* -1: none */
} pgr_attribute;

typedef struct pgr_type {
    uint32_t oid;
    pgr_span schema; /* empty: pg_catalog */
    pgr_span name;
} pgr_type;

typedef struct pgr_tuple {
    uint8_t mark; /* N K O, or 0 where the message has no such tuple: then nothing else is set */
    uint16_t column_count;
    pgr_span columns; /* for pgr_column_next; the count stands in the two bytes before */
} pgr_tuple;

typedef struct pgr_column {
    uint8_t kind;   /* n u t b */
    pgr_span value; /* of kinds t and b, else empty */
} pgr_column;

/* Insert, Update and Delete. */
typedef struct pgr_change {
    uint32_t relation;
    pgr_tuple old_tuple; /* K or O */
    pgr_tuple new_tuple; /* N */
} pgr_change;

typedef struct pgr_truncate {
    uint32_t relation_count;
    uint8_t cascade;
    uint8_t restart_identity;
    pgr_span relations; /* u32 each */
} pgr_truncate;

typedef struct pgr_logical {
    uint8_t transactional;
    uint64_t lsn;
    pgr_span prefix;
    pgr_span content;
} pgr_logical;

typedef struct pgr_stream_start {
    uint32_t xid;
    uint8_t first_segment;
} pgr_stream_start;

typedef struct pgr_stream_commit {
    uint32_t xid;
    pgr_commit commit;
} pgr_stream_commit;

typedef struct pgr_stream_abort {
    uint32_t xid;
    uint32_t subxid;  /* equal to xid: the whole transaction */
    uint8_t detailed; /* else the next two are not set */
    uint64_t abort_lsn;
    int64_t abort_time;
} pgr_stream_abort;

/* BeginPrepare, Prepare and StreamPrepare of the prepare; CommitPrepared of the commit. */
typedef struct pgr_prepared {
    uint64_t lsn;
    uint64_t end_lsn;
    int64_t time;
    uint32_t xid;
    pgr_span gid;
} pgr_prepared;

typedef struct pgr_rollback_prepared {
    uint64_t prepare_end_lsn;
    uint64_t rollback_end_lsn;
    int64_t prepare_time;
    int64_t rollback_time;
    uint32_t xid;
    pgr_span gid;
} pgr_rollback_prepared;

typedef union pgr_body {
    pgr_begin begin;                         /* B */
    pgr_commit commit;                       /* C */
    pgr_origin origin;                       /* O */
    pgr_relation relation;                   /* R */
    pgr_type type;                           /* Y */
    pgr_change change;                       /* I U D */
    pgr_truncate truncate;                   /* T */
    pgr_logical logical;                     /* M */
    pgr_stream_start stream_start;           /* S; E has no body */
    pgr_stream_commit stream_commit;         /* c */
    pgr_stream_abort stream_abort;           /* A */
    pgr_prepared prepared;                   /* b P K p */
    pgr_rollback_prepared rollback_prepared; /* r */
} pgr_body;

typedef struct pgr_message {
    uint8_t tag;    /* tells which member of the body is set */
    uint8_t marked; /* has an xid before its body, as in a stream block */
    uint32_t xid;   /* of the transaction or subtransaction, if marked; else 0 */
    const uint8_t *start;
    pgr_body body;
} pgr_message;

/*
 * Read one whole payload. PGR_OK: `message` is set, and the stream has entered or left a block with
 * it. PGR_BAD: `error` is set, with the first fault, and the stream is where it was.
 */
pgr_status pgr_pgoutput_read(pgr_stream *stream, const uint8_t *bytes, size_t size,
                             pgr_message *message, pgr_error *error);

/* Where the body begins: behind the tag, and behind the xid of a message that has one. */
static inline const uint8_t *pgr_message_body(const pgr_message *message) {
    return message->start + (message->marked ? 5 : 1);
}

/* A cursor over the columns of a tuple, or the attributes of a relation, of this message. */
static inline pgr_cursor pgr_message_cursor(const pgr_message *message, pgr_span part) {
    return pgr_cursor_over(message->start, message->tag, part);
}

/*
 * Read the next column, or attribute; call it as often as the count says. What was read once cannot
 * fail again, unless somebody writes to the bytes in the meantime: then this is PGR_BAD with the
 * fault in the cursor, and never a read past the end.
 */
pgr_status pgr_attribute_next(pgr_cursor *cursor, pgr_attribute *attribute);

/* Inline: every value of every row comes through here, twice. */
static inline pgr_status pgr_column_next(pgr_cursor *cursor, pgr_column *column) {
    uint32_t size;
    column->kind = pgr_cursor_u8(cursor);
    column->value = (pgr_span){cursor->at, 0};
    switch (column->kind) {
    case 't':
    case 'b':
        size = pgr_cursor_count32(cursor, PGR_FAULT_COLUMN_LENGTH);
        column->value = pgr_cursor_bytes(cursor, size);
        break;
    case 'n':
    case 'u':
        break;
    default:
        pgr_cursor_fail(cursor, PGR_FAULT_COLUMN_KIND, cursor->at - 1, 0, column->kind);
    }
    return cursor->status;
}

#endif
