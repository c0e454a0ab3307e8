/*
 * Values: what a column's bytes say, as numbers that any language can make its own values of.
 *
 * Two formats: text, the output of the type's output function under DateStyle ISO, IntervalStyle
 * postgres and bytea_output hex; and binary, that of its send function. What a type can say beyond
 * the numbers here (infinity, BC, a year above 9999, 24:00) is PGR_OUT_OF_RANGE: no fault, the
 * caller takes the text instead.
 *
 * Times are in microseconds, dates and timestamps count from 2000-01-01 in binary.
 * Source: PostgreSQL documentation, "Data Types"; the formats are those of the types' own functions.
 */
#ifndef PGR_VALUES_H
#define PGR_VALUES_H

#include "pgr_base.h"

typedef enum pgr_parse {
    PGR_PARSED = 0,
    PGR_MALFORMED = 1,   /* not what the type's function writes */
    PGR_OUT_OF_RANGE = 2 /* well-formed, and more than the numbers here can say */
} pgr_parse;

typedef struct pgr_date {
    int32_t year; /* 1..9999 */
    uint8_t month;
    uint8_t day;
} pgr_date;

typedef struct pgr_time {
    uint8_t hour; /* 0..23 */
    uint8_t minute;
    uint8_t second;
    uint32_t microsecond;
} pgr_time;

/* A decimal integer with an optional sign. */
pgr_parse pgr_text_int64(const uint8_t *text, size_t size, int64_t *value);
pgr_parse pgr_text_uint64(const uint8_t *text, size_t size, uint64_t *value);

/* "2000-01-02"; "2000-01-02 BC", "infinity" and years of five digits are out of range. */
pgr_parse pgr_text_date(const uint8_t *text, size_t size, pgr_date *date);
/* "04:05:06.789"; "24:00:00" is out of range. */
pgr_parse pgr_text_time(const uint8_t *text, size_t size, pgr_time *time);
/* The same with an offset, "+00", "+05:30", "-05:53:28", in seconds east of UTC. */
pgr_parse pgr_text_timetz(const uint8_t *text, size_t size, pgr_time *time, int32_t *offset);
pgr_parse pgr_text_timestamp(const uint8_t *text, size_t size, pgr_date *date, pgr_time *time);
pgr_parse pgr_text_timestamptz(const uint8_t *text, size_t size, pgr_date *date, pgr_time *time,
                               int32_t *offset);
/* 8-4-4-4-12 hexadecimal digits. */
pgr_parse pgr_text_uuid(const uint8_t *text, size_t size, uint8_t uuid[16]);
/* "\x00ff": `size` of the result is half of what follows the prefix. */
pgr_parse pgr_text_bytea_hex(const uint8_t *text, size_t size, uint8_t *bytes);

/* Days since 2000-01-01. */
pgr_parse pgr_binary_date(int32_t days, pgr_date *date);
/* Microseconds since midnight. */
pgr_parse pgr_binary_time(int64_t microseconds, pgr_time *time);
/* Microseconds since 2000-01-01 00:00. */
pgr_parse pgr_binary_timestamp(int64_t microseconds, pgr_date *date, pgr_time *time);

/* A binary numeric: digits of base 10000, value = sum of d[i] * 10000^(weight - i). */
typedef struct pgr_numeric {
    int32_t count;
    int32_t weight;
    uint16_t sign;
    uint16_t scale; /* decimal digits behind the point */
    const uint8_t *digits;
} pgr_numeric;

/*
 * Read the header of a binary numeric, whose value must be whole. Returns how many bytes its text
 * needs at most, 0 for what is none. The header is read once, here: whoever writes to the digits
 * meanwhile gets another number, and no more of it.
 */
size_t pgr_numeric_read(const uint8_t *value, size_t size, pgr_numeric *numeric);
/* Write it as text, which is not terminated. NaN and the infinities are written as such. */
pgr_parse pgr_numeric_text(const pgr_numeric *numeric, char *text, size_t *length);

#endif
