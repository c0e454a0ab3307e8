/*
 * pgoutput, protocol version 1: the payload of an XLogData message -> numbers and spans.
 *
 *   'B'  u64 final_lsn  i64 commit_time  u32 xid                                     Begin
 *   'C'  u8 0  u64 commit_lsn  u64 end_lsn  i64 commit_time                          Commit
 *   'O'  u64 commit_lsn  cstr name                                                   Origin
 *   'R'  u32 oid  cstr schema  cstr name  u8 replica_identity  i16 n  n attributes   Relation
 *   'Y'  u32 oid  cstr schema  cstr name                                             Type
 *   'I'  u32 relation  'N' tuple                                                     Insert
 *   'U'  u32 relation  ['K' tuple | 'O' tuple]  'N' tuple                            Update
 *   'D'  u32 relation  'K' tuple | 'O' tuple                                         Delete
 *   'T'  i32 n  u8 flags  n times u32 relation                                       Truncate
 *   'M'  u8 flags  u64 lsn  cstr prefix  i32 n  n bytes                              Message
 *
 *   attribute: u8 flags  cstr name  u32 type_oid  i32 type_modifier
 *   tuple:     i16 n  n columns;  column: 'n' | 'u' | 't' i32 n, n bytes | 'b' i32 n, n bytes
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

typedef union pgr_body {
    pgr_begin begin;       /* B */
    pgr_commit commit;     /* C */
    pgr_origin origin;     /* O */
    pgr_relation relation; /* R */
    pgr_type type;         /* Y */
    pgr_change change;     /* I U D */
    pgr_truncate truncate; /* T */
    pgr_logical logical;   /* M */
} pgr_body;

typedef struct pgr_message {
    uint8_t tag; /* tells which member of the body is set */
    const uint8_t *start;
    pgr_body body;
} pgr_message;

/* Read one whole payload. PGR_OK: `message` is set. PGR_BAD: `error` is, with the first fault. */
pgr_status pgr_pgoutput_read(const uint8_t *bytes, size_t size, pgr_message *message,
                             pgr_error *error);

/* A cursor over the columns of a tuple, or the attributes of a relation, of this message. */
static inline pgr_cursor pgr_message_cursor(const pgr_message *message, pgr_span part) {
    return pgr_cursor_over(message->start, message->tag, part);
}

/*
 * Read the next column, or attribute; call it as often as the count says. What was read once cannot
 * fail again, unless somebody writes to the bytes in the meantime: then this is PGR_BAD with the
 * fault in the cursor, and never a read past the end.
 */
pgr_status pgr_column_next(pgr_cursor *cursor, pgr_column *column);
pgr_status pgr_attribute_next(pgr_cursor *cursor, pgr_attribute *attribute);

#endif
