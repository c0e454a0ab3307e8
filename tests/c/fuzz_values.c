/*
 * Values of any bytes: which one, then its text or binary form. Numbers are in their range, and a
 * numeric fits into the room that was asked for, whatever is written to its bytes meanwhile.
 */
#include "fuzz_driver.h"
#include "pgr_values.h"

static const sample SAMPLES[] = {
    SAMPLE("\0" "-9223372036854775808"),
    SAMPLE("\1" "18446744073709551615"),
    SAMPLE("\2" "2024-02-29"),
    SAMPLE("\2" "infinity"),
    SAMPLE("\3" "23:59:59.999999"),
    SAMPLE("\4" "04:05:06.789-05:53:28"),
    SAMPLE("\5" "0044-03-15 12:00:00 BC"),
    SAMPLE("\6" "2000-01-02 04:05:06+05:30"),
    SAMPLE("\7" "cdd49309-5312-4b6a-94e7-ec6469c57c65"),
    SAMPLE("\x08" "\\x00ff10"),
    SAMPLE("\x09" "\0\3\0\1\x40\0\0\3\0\1\x09\x29\x1a\x7c"),
    SAMPLE("\x09" "\0\1\x13\x88\0\0\x3f\xff\0\1"),
    SAMPLE("\x0A" "\0\2\xD6\1\2\3\4\5"),
};

static void check_date(pgr_parse outcome, const pgr_date *date) {
    if (outcome == PGR_PARSED)
        assert(date->year >= 1 && date->year <= 9999 && date->month >= 1 && date->month <= 12 &&
               date->day >= 1 && date->day <= 31);
}

static void check_time(pgr_parse outcome, const pgr_time *time) {
    if (outcome == PGR_PARSED)
        assert(time->hour < 24 && time->minute < 60 && time->second < 60 &&
               time->microsecond < 1000000);
}

static void check_offset(pgr_parse outcome, int32_t offset) {
    if (outcome == PGR_PARSED)
        assert(offset > -24 * 3600 && offset < 24 * 3600);
}

static void check_bytea(const uint8_t *value, size_t size) {
    if (size < 2)
        return;
    size_t room = size / 2 - 1;
    uint8_t *bytes = malloc(room > 0 ? room : 1);
    assert(bytes != NULL);
    (void)pgr_text_bytea_hex(value, size, bytes);
    free(bytes);
}

static void check_numeric(const uint8_t *value, size_t size) {
    uint8_t *copy = malloc(size > 0 ? size : 1);
    assert(copy != NULL);
    memcpy(copy, value, size);
    pgr_numeric numeric;
    size_t room = pgr_numeric_read(copy, size, &numeric), length = 0;
    if (room > 0) {
        char *text = malloc(room);
        assert(text != NULL);
        if (pgr_numeric_text(&numeric, text, &length) == PGR_PARSED)
            assert(length > 0 && length <= room);
        scramble(copy, size, (uint8_t)size);
        if (pgr_numeric_text(&numeric, text, &length) == PGR_PARSED)
            assert(length > 0 && length <= room);
        free(text);
    }
    free(copy);
}

static void check_binary(const uint8_t *value, size_t size) {
    pgr_date date = {0, 0, 0};
    pgr_time time = {0, 0, 0, 0};
    if (size != 8)
        return;
    int64_t number = pgr_signed64(pgr_load64(value));
    check_date(pgr_binary_date(pgr_signed32(pgr_load32(value)), &date), &date);
    check_time(pgr_binary_time(number, &time), &time);
    pgr_parse outcome = pgr_binary_timestamp(number, &date, &time);
    check_date(outcome, &date);
    check_time(outcome, &time);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    const uint8_t *value = data + 1;
    int64_t number;
    uint64_t natural;
    int32_t offset = 0;
    uint8_t uuid[16];
    pgr_date date = {0, 0, 0};
    pgr_time time = {0, 0, 0, 0};
    pgr_parse outcome = PGR_MALFORMED;
    size--;
    switch (data[0] % 11) {
    case 0:
        (void)pgr_text_int64(value, size, &number);
        return 0;
    case 1:
        (void)pgr_text_uint64(value, size, &natural);
        return 0;
    case 2:
        check_date(pgr_text_date(value, size, &date), &date);
        return 0;
    case 3:
        check_time(pgr_text_time(value, size, &time), &time);
        return 0;
    case 4:
        outcome = pgr_text_timetz(value, size, &time, &offset);
        check_time(outcome, &time);
        check_offset(outcome, offset);
        return 0;
    case 5:
        outcome = pgr_text_timestamp(value, size, &date, &time);
        break;
    case 6:
        outcome = pgr_text_timestamptz(value, size, &date, &time, &offset);
        check_offset(outcome, offset);
        break;
    case 7:
        (void)pgr_text_uuid(value, size, uuid);
        return 0;
    case 8:
        check_bytea(value, size);
        return 0;
    case 9:
        check_numeric(value, size);
        return 0;
    default:
        check_binary(value, size);
        return 0;
    }
    check_date(outcome, &date);
    check_time(outcome, &time);
    return 0;
}

FUZZ("fuzz_values", SAMPLES)
