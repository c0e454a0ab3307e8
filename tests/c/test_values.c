/* Values alone: samples as servers wrote them, the edges of the calendar, and every cut of each. */

#undef NDEBUG
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "pgr_values.h"

#define BYTES(text) (const uint8_t *)(text), sizeof(text) - 1

static void test_integers(void) {
    int64_t number;
    uint64_t positive;
    assert(pgr_text_int64(BYTES("-9223372036854775808"), &number) == PGR_PARSED);
    assert(number == INT64_MIN);
    assert(pgr_text_int64(BYTES("9223372036854775807"), &number) == PGR_PARSED);
    assert(number == INT64_MAX);
    assert(pgr_text_int64(BYTES("9223372036854775808"), &number) == PGR_OUT_OF_RANGE);
    assert(pgr_text_uint64(BYTES("18446744073709551615"), &positive) == PGR_PARSED);
    assert(positive == UINT64_MAX);
    assert(pgr_text_uint64(BYTES("18446744073709551616"), &positive) == PGR_OUT_OF_RANGE);
    assert(pgr_text_int64(BYTES(""), &number) == PGR_MALFORMED);
    assert(pgr_text_int64(BYTES("-"), &number) == PGR_MALFORMED);
    assert(pgr_text_int64(BYTES("+1"), &number) == PGR_MALFORMED);
    assert(pgr_text_int64(BYTES("1 "), &number) == PGR_MALFORMED);
}

static void test_timestamps(void) {
    pgr_date date;
    pgr_time time;
    int32_t offset;
    assert(pgr_text_timestamptz(BYTES("2020-02-29 23:59:59.000001-05:53:28"), &date, &time,
                                &offset) == PGR_PARSED);
    assert(date.year == 2020 && date.month == 2 && date.day == 29);
    assert(time.hour == 23 && time.second == 59 && time.microsecond == 1);
    assert(offset == -(5 * 3600 + 53 * 60 + 28));
    assert(pgr_text_date(BYTES("1900-02-29"), &date) == PGR_MALFORMED);
    assert(pgr_text_date(BYTES("2000-02-29"), &date) == PGR_PARSED);
    assert(pgr_text_date(BYTES("9999-12-31"), &date) == PGR_PARSED);
    assert(pgr_text_date(BYTES("10000-01-01"), &date) == PGR_OUT_OF_RANGE);
    assert(pgr_text_date(BYTES("02001-01-01"), &date) == PGR_MALFORMED);
    assert(pgr_text_date(BYTES("0044-03-15 BC"), &date) == PGR_OUT_OF_RANGE);
    assert(pgr_text_date(BYTES("-infinity"), &date) == PGR_OUT_OF_RANGE);
    assert(pgr_text_time(BYTES("24:00:00"), &time) == PGR_OUT_OF_RANGE);
    assert(pgr_text_time(BYTES("04:05:06."), &time) == PGR_MALFORMED);
    assert(pgr_text_time(BYTES("04:05:06.1234567"), &time) == PGR_MALFORMED);
}

/* Every day of Python's calendar and those around it, against counting. */
static void test_calendar(void) {
    static const uint8_t lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    pgr_date date;
    int32_t day = -730119; /* 0001-01-01 */
    assert(pgr_binary_date(day - 1, &date) == PGR_OUT_OF_RANGE);
    for (int32_t year = 1; year <= 9999; year++)
        for (uint8_t month = 1; month <= 12; month++) {
            int leap = month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            for (uint8_t of_month = 1; of_month <= lengths[month - 1] + leap; of_month++, day++) {
                assert(pgr_binary_date(day, &date) == PGR_PARSED);
                assert(date.year == year && date.month == month && date.day == of_month);
            }
        }
    assert(pgr_binary_date(day, &date) == PGR_OUT_OF_RANGE);
    assert(pgr_binary_date(INT32_MAX, &date) == PGR_OUT_OF_RANGE);
    assert(pgr_binary_date(INT32_MIN, &date) == PGR_OUT_OF_RANGE);
    pgr_time time;
    assert(pgr_binary_timestamp(-1, &date, &time) == PGR_PARSED);
    assert(date.year == 1999 && date.day == 31 && time.hour == 23 && time.microsecond == 999999);
    assert(pgr_binary_timestamp(INT64_MAX, &date, &time) == PGR_OUT_OF_RANGE);
    assert(pgr_binary_timestamp(INT64_MIN, &date, &time) == PGR_OUT_OF_RANGE);
}

static void numeric_is(const uint8_t *value, size_t size, const char *expected) {
    /* In blocks of the exact size, so that the sanitizer sees a byte too far. */
    uint8_t *copy = malloc(size);
    pgr_numeric numeric;
    assert(copy != NULL);
    memcpy(copy, value, size);
    size_t room = pgr_numeric_read(copy, size, &numeric), length = 0;
    char *text = malloc(room);
    assert(text != NULL && room >= strlen(expected));
    assert(pgr_numeric_text(&numeric, text, &length) == PGR_PARSED);
    assert(length == strlen(expected) && memcmp(text, expected, length) == 0);
    free(copy);
    free(text);
    for (size_t cut = 0; cut < size; cut++)
        assert(pgr_numeric_read(value, cut, &numeric) == 0);
}

static void numeric_is_none(const uint8_t *value, size_t size) {
    pgr_numeric numeric;
    char text[64];
    size_t length;
    assert(pgr_numeric_read(value, size, &numeric) <= sizeof text);
    assert(pgr_numeric_text(&numeric, text, &length) == PGR_MALFORMED);
}

/* Whoever writes to the bytes meanwhile gets other digits, within the room that was asked for. */
static void test_a_numeric_that_is_written_to(void) {
    uint8_t value[] = {0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0x7F, 0xFF};
    pgr_numeric numeric;
    size_t room = pgr_numeric_read(value, 10, &numeric), length = 0;
    char *text = malloc(room);
    assert(text != NULL);
    value[0] = value[2] = value[6] = 0x3F; /* more digits, a larger weight and scale */
    assert(pgr_numeric_text(&numeric, text, &length) == PGR_PARSED);
    assert(length == 3 && memcmp(text, "1.0", 3) == 0);
    free(text);
}

static void test_numerics(void) {
    numeric_is(BYTES("\0\0\0\0\0\0\0\0"), "0");
    numeric_is(BYTES("\0\3\0\1\0\0\0\3\0\1\x09\x29\x1a\x7c"), "12345.678");
    numeric_is(BYTES("\0\2\xff\xff\x40\0\0\5\0\1\7\xd0"), "-0.00012");
    numeric_is(BYTES("\0\2\0\0\0\0\0\4\0\1\x13\x88"), "1.5000");
    numeric_is(BYTES("\0\1\0\2\0\0\0\0\0\1"), "100000000");
    numeric_is(BYTES("\0\1\xff\xfb\0\0\0\x14\0\1"), "0.00000000000000000001");
    numeric_is(BYTES("\0\0\0\0\xc0\0\0\0"), "NaN");
    numeric_is(BYTES("\0\0\0\0\xd0\0\0\x20"), "Infinity");
    numeric_is(BYTES("\0\0\0\0\xf0\0\0\x20"), "-Infinity");
    numeric_is_none(BYTES("\0\1\0\0\0\0\0\0\x27\x10"));
    numeric_is_none(BYTES("\0\0\0\0\x12\x34\0\0"));
}

static void test_bytes(void) {
    uint8_t uuid[16], bytes[2];
    assert(pgr_text_uuid(BYTES("cdd49309-5312-4b6a-94E7-ec6469c57c65"), uuid) == PGR_PARSED);
    assert(uuid[0] == 0xcd && uuid[8] == 0x94 && uuid[15] == 0x65);
    assert(pgr_text_uuid(BYTES("cdd49309-5312-4b6a-94g7-ec6469c57c65"), uuid) == PGR_MALFORMED);
    assert(pgr_text_uuid(BYTES("cdd4930-95312-4b6a-94e7-ec6469c57c65"), uuid) == PGR_MALFORMED);
    assert(pgr_text_bytea_hex(BYTES("\\x00fF"), bytes) == PGR_PARSED);
    assert(bytes[0] == 0 && bytes[1] == 0xff);
    assert(pgr_text_bytea_hex(BYTES("\\x00f"), bytes) == PGR_MALFORMED);
    assert(pgr_text_bytea_hex(BYTES("\\x00 f"), bytes) == PGR_MALFORMED);
}

int main(void) {
    test_integers();
    test_timestamps();
    test_calendar();
    test_numerics();
    test_a_numeric_that_is_written_to();
    test_bytes();
    puts("test_values: ok");
    return 0;
}
