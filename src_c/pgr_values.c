#include "pgr_values.h"

/* Days between 0000-03-01 and 2000-01-01, in the proleptic Gregorian calendar. */
enum { DAYS_TO_EPOCH = 730425, DAYS_OF_ERA = 146097, YEARS_OF_ERA = 400 };
static const int64_t DAY_MICROSECONDS = INT64_C(86400000000);

static int is_digit(uint8_t c) {
    return c >= '0' && c <= '9';
}

/* The two digits at `text`; a number above 99 where there is something else. */
static uint32_t two_digits(const uint8_t *text) {
    uint32_t tens = (uint32_t)text[0] - '0', ones = (uint32_t)text[1] - '0';
    return tens > 9 || ones > 9 ? UINT32_MAX : tens * 10 + ones;
}

/* `count` digits at `text`; -1 where there is something else among them. */
static int32_t digits(const uint8_t *text, size_t count) {
    int32_t value = 0;
    for (size_t i = 0; i < count; i++) {
        if (!is_digit(text[i]))
            return -1;
        value = value * 10 + (text[i] - '0');
    }
    return value;
}

pgr_parse pgr_text_uint64(const uint8_t *text, size_t size, uint64_t *value) {
    if (size == 0)
        return PGR_MALFORMED;
    uint64_t result = 0;
    size_t i = 0;
    /* As many as cannot be too much, which hardly any number has more than. */
    for (size_t few = size < 19 ? size : 19; i < few; i++) {
        unsigned digit = (unsigned)text[i] - '0';
        if (digit > 9)
            return PGR_MALFORMED;
        result = result * 10 + digit;
    }
    for (; i < size; i++) {
        if (!is_digit(text[i]))
            return PGR_MALFORMED;
        uint64_t digit = (uint64_t)(text[i] - '0');
        if (result > (UINT64_MAX - digit) / 10)
            return PGR_OUT_OF_RANGE;
        result = result * 10 + digit;
    }
    *value = result;
    return PGR_PARSED;
}

pgr_parse pgr_text_int64(const uint8_t *text, size_t size, int64_t *value) {
    int negative = size > 0 && text[0] == '-';
    uint64_t magnitude;
    pgr_parse outcome =
        pgr_text_uint64(text + negative, size - (size_t)negative, &magnitude);
    if (outcome != PGR_PARSED)
        return outcome;
    if (magnitude > (uint64_t)INT64_MAX + (uint64_t)negative)
        return PGR_OUT_OF_RANGE;
    *value = negative ? pgr_signed64(0 - magnitude) : (int64_t)magnitude;
    return PGR_PARSED;
}

/* How many days a month has; 0 for no such month. */
static uint8_t days_of_month(int32_t year, uint8_t month) {
    static const uint8_t days[13] = {0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return month > 12 ? 0 : (uint8_t)(days[month] + (month == 2 && leap));
}

/* Whether the text is one of those that stand for no date, or ends as a date before Christ does. */
static int is_beyond_calendar(const uint8_t *text, size_t size) {
    static const char positive[] = "infinity", negative[] = "-infinity", christ[] = " BC";
    if (size == sizeof positive - 1 && memcmp(text, positive, size) == 0)
        return 1;
    if (size == sizeof negative - 1 && memcmp(text, negative, size) == 0)
        return 1;
    return size >= sizeof christ - 1 &&
           memcmp(text + size - (sizeof christ - 1), christ, sizeof christ - 1) == 0;
}

/* A date at the front; `*length` is what it takes. A year has four digits, or more. */
static pgr_parse read_date(const uint8_t *text, size_t size, pgr_date *date, size_t *length) {
    size_t year_digits = 0;
    while (year_digits < size && is_digit(text[year_digits]))
        year_digits++;
    if (year_digits < 4 || year_digits > 7 || size < year_digits + 6)
        return PGR_MALFORMED;
    if (year_digits > 4 && text[0] == '0')
        return PGR_MALFORMED;
    const uint8_t *rest = text + year_digits;
    uint32_t month = two_digits(rest + 1), day = two_digits(rest + 4);
    if (rest[0] != '-' || rest[3] != '-' || month > 99 || day > 99)
        return PGR_MALFORMED;
    date->year = year_digits == 4
                     ? (int32_t)(two_digits(text) * 100 + two_digits(text + 2))
                     : digits(text, year_digits);
    date->month = (uint8_t)month;
    date->day = (uint8_t)day;
    *length = year_digits + 6;
    if (date->year > 9999)
        return PGR_OUT_OF_RANGE;
    if (date->year < 1 || day < 1 || day > days_of_month(date->year, date->month))
        return PGR_MALFORMED;
    return PGR_PARSED;
}

/* A time of day at the front, with up to six digits behind the second. */
static pgr_parse read_time(const uint8_t *text, size_t size, pgr_time *time, size_t *length) {
    if (size < 8 || text[2] != ':' || text[5] != ':')
        return PGR_MALFORMED;
    uint32_t hour = two_digits(text), minute = two_digits(text + 3), second = two_digits(text + 6);
    if (hour > 24 || minute > 59 || second > 60)
        return PGR_MALFORMED;
    uint32_t microsecond = 0;
    size_t at = 8;
    if (at < size && text[at] == '.') {
        static const uint32_t units[7] = {0, 100000, 10000, 1000, 100, 10, 1};
        size_t most = size < 16 ? size : 16;
        for (at++; at < most && is_digit(text[at]); at++)
            microsecond = microsecond * 10 + (uint32_t)(text[at] - '0');
        if (at == 9 || at > 15)
            return PGR_MALFORMED;
        microsecond *= units[at - 9];
    }
    *length = at;
    time->hour = (uint8_t)hour;
    time->minute = (uint8_t)minute;
    time->second = (uint8_t)second;
    time->microsecond = microsecond;
    /* 24:00:00 ends a day, and 23:59:60 is what rounding can make of its last moment. */
    return hour == 24 || second == 60 ? PGR_OUT_OF_RANGE : PGR_PARSED;
}

/* The rest: an offset from UTC in hours, and minutes and seconds where they are not zero. */
static pgr_parse read_offset(const uint8_t *text, size_t size, int32_t *offset) {
    if (size != 3 && size != 6 && size != 9)
        return PGR_MALFORMED;
    if ((text[0] != '+' && text[0] != '-') || (size > 3 && text[3] != ':') ||
        (size > 6 && text[6] != ':'))
        return PGR_MALFORMED;
    int32_t hours = digits(text + 1, 2);
    int32_t minutes = size > 3 ? digits(text + 4, 2) : 0;
    int32_t seconds = size > 6 ? digits(text + 7, 2) : 0;
    if (hours < 0 || minutes < 0 || minutes > 59 || seconds < 0 || seconds > 59)
        return PGR_MALFORMED;
    if (hours > 23)
        return PGR_OUT_OF_RANGE;
    int32_t value = hours * 3600 + minutes * 60 + seconds;
    *offset = text[0] == '-' ? -value : value;
    return PGR_PARSED;
}

/* The worse of two outcomes: what is malformed is not out of range. */
static pgr_parse both(pgr_parse first, pgr_parse second) {
    if (first == PGR_MALFORMED || second == PGR_MALFORMED)
        return PGR_MALFORMED;
    return first == PGR_PARSED ? second : first;
}

pgr_parse pgr_text_date(const uint8_t *text, size_t size, pgr_date *date) {
    size_t length;
    if (is_beyond_calendar(text, size))
        return PGR_OUT_OF_RANGE;
    pgr_parse outcome = read_date(text, size, date, &length);
    return outcome != PGR_MALFORMED && length != size ? PGR_MALFORMED : outcome;
}

pgr_parse pgr_text_time(const uint8_t *text, size_t size, pgr_time *time) {
    size_t length;
    pgr_parse outcome = read_time(text, size, time, &length);
    return outcome != PGR_MALFORMED && length != size ? PGR_MALFORMED : outcome;
}

pgr_parse pgr_text_timetz(const uint8_t *text, size_t size, pgr_time *time, int32_t *offset) {
    size_t length;
    pgr_parse outcome = read_time(text, size, time, &length);
    if (outcome == PGR_MALFORMED)
        return outcome;
    return both(outcome, read_offset(text + length, size - length, offset));
}

/* A date, a space and a time; `*length` is what they take. */
static pgr_parse read_timestamp(const uint8_t *text, size_t size, pgr_date *date, pgr_time *time,
                                size_t *length) {
    size_t date_length, time_length;
    pgr_parse outcome = read_date(text, size, date, &date_length);
    if (outcome == PGR_MALFORMED || date_length == size || text[date_length] != ' ')
        return PGR_MALFORMED;
    date_length++;
    outcome =
        both(outcome, read_time(text + date_length, size - date_length, time, &time_length));
    if (outcome != PGR_MALFORMED)
        *length = date_length + time_length;
    return outcome;
}

pgr_parse pgr_text_timestamp(const uint8_t *text, size_t size, pgr_date *date, pgr_time *time) {
    size_t length;
    if (is_beyond_calendar(text, size))
        return PGR_OUT_OF_RANGE;
    pgr_parse outcome = read_timestamp(text, size, date, time, &length);
    return outcome != PGR_MALFORMED && length != size ? PGR_MALFORMED : outcome;
}

pgr_parse pgr_text_timestamptz(const uint8_t *text, size_t size, pgr_date *date, pgr_time *time,
                               int32_t *offset) {
    size_t length;
    if (is_beyond_calendar(text, size))
        return PGR_OUT_OF_RANGE;
    pgr_parse outcome = read_timestamp(text, size, date, time, &length);
    if (outcome == PGR_MALFORMED)
        return outcome;
    return both(outcome, read_offset(text + length, size - length, offset));
}

/* Each hexadecimal digit's value plus one, so that 0, as it stands for all others, is none. */
static const uint8_t HEX_DIGITS[UINT8_MAX + 1] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
    ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
    ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

/* `count` bytes from twice as many digits. */
static pgr_parse read_hex(const uint8_t *text, size_t count, uint8_t *bytes) {
    int valid = 1;
    for (size_t i = 0; i < count; i++) {
        unsigned high = HEX_DIGITS[text[2 * i]], low = HEX_DIGITS[text[2 * i + 1]];
        valid &= (high != 0) & (low != 0);
        bytes[i] = (uint8_t)((high - 1) << 4 | ((low - 1) & 15));
    }
    return valid ? PGR_PARSED : PGR_MALFORMED;
}

pgr_parse pgr_text_uuid(const uint8_t *text, size_t size, uint8_t uuid[16]) {
    if (size != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-')
        return PGR_MALFORMED;
    pgr_parse outcome = read_hex(text, 4, uuid);
    outcome = both(outcome, read_hex(text + 9, 2, uuid + 4));
    outcome = both(outcome, read_hex(text + 14, 2, uuid + 6));
    outcome = both(outcome, read_hex(text + 19, 2, uuid + 8));
    return both(outcome, read_hex(text + 24, 6, uuid + 10));
}

pgr_parse pgr_text_bytea_hex(const uint8_t *text, size_t size, uint8_t *bytes) {
    if (size < 2 || text[0] != '\\' || text[1] != 'x' || size % 2 != 0)
        return PGR_MALFORMED;
    return read_hex(text + 2, size / 2 - 1, bytes);
}

/* The date that lies `days` days after 0000-03-01: years are counted from March, so that the leap
 * day is a year's last, and eras of 400 years are all alike. */
static int64_t year_of_days(int64_t days, pgr_date *date) {
    int64_t era = (days >= 0 ? days : days - (DAYS_OF_ERA - 1)) / DAYS_OF_ERA;
    int64_t day = days - era * DAYS_OF_ERA;
    int64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    int64_t day_of_year = day - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * day_of_year + 2) / 153; /* 0 is March */
    date->day = (uint8_t)(day_of_year - (153 * month + 2) / 5 + 1);
    date->month = (uint8_t)(month < 10 ? month + 3 : month - 9);
    return era * YEARS_OF_ERA + year + (month >= 10);
}

static pgr_parse date_of_days(int64_t days, pgr_date *date) {
    int64_t year = year_of_days(days + DAYS_TO_EPOCH, date);
    if (year < 1 || year > 9999)
        return PGR_OUT_OF_RANGE;
    date->year = (int32_t)year;
    return PGR_PARSED;
}

pgr_parse pgr_binary_date(int32_t days, pgr_date *date) {
    return date_of_days(days, date);
}

pgr_parse pgr_binary_time(int64_t microseconds, pgr_time *time) {
    if (microseconds < 0 || microseconds > DAY_MICROSECONDS)
        return PGR_MALFORMED;
    if (microseconds == DAY_MICROSECONDS)
        return PGR_OUT_OF_RANGE;
    int64_t seconds = microseconds / 1000000;
    time->hour = (uint8_t)(seconds / 3600);
    time->minute = (uint8_t)(seconds / 60 % 60);
    time->second = (uint8_t)(seconds % 60);
    time->microsecond = (uint32_t)(microseconds % 1000000);
    return PGR_PARSED;
}

pgr_parse pgr_binary_timestamp(int64_t microseconds, pgr_date *date, pgr_time *time) {
    int64_t days = microseconds / DAY_MICROSECONDS;
    int64_t rest = microseconds % DAY_MICROSECONDS;
    if (rest < 0) {
        rest += DAY_MICROSECONDS;
        days--;
    }
    pgr_parse outcome = date_of_days(days, date);
    return outcome == PGR_PARSED ? pgr_binary_time(rest, time) : outcome;
}

enum {
    NUMERIC_HEADER = 8,
    NUMERIC_POSITIVE = 0x0000,
    NUMERIC_NEGATIVE = 0x4000,
    NUMERIC_NAN = 0xC000,
    NUMERIC_INFINITY = 0xD000,
    NUMERIC_MINUS_INFINITY = 0xF000,
    NUMERIC_MAX_SCALE = 0x3FFF,
    NUMERIC_BASE = 10000,
    NUMERIC_WORD_MAX = 9 /* "-Infinity" */
};

static int read_numeric(const uint8_t *value, size_t size, pgr_numeric *header) {
    if (size < NUMERIC_HEADER)
        return 0;
    uint16_t weight = pgr_load16(value + 2);
    header->count = pgr_load16(value);
    header->weight = weight < 0x8000 ? weight : (int32_t)weight - 0x10000;
    header->sign = pgr_load16(value + 4);
    header->scale = pgr_load16(value + 6);
    header->digits = value + NUMERIC_HEADER;
    return size == NUMERIC_HEADER + 2 * (size_t)header->count;
}

/* Digit `i` of base 10000; those behind the last one, and before the first one, are 0. */
static uint32_t numeric_digit(const pgr_numeric *header, int32_t i) {
    return i >= 0 && i < header->count ? pgr_load16(header->digits + 2 * i) : 0;
}

size_t pgr_numeric_read(const uint8_t *value, size_t size, pgr_numeric *numeric) {
    if (!read_numeric(value, size, numeric))
        return 0;
    size_t whole = numeric->weight < 0 ? 1 : 4 * ((size_t)numeric->weight + 1);
    size_t room = 1 + whole + 1 + numeric->scale;
    return room < NUMERIC_WORD_MAX ? NUMERIC_WORD_MAX : room;
}

static char *write_word(char *to, const char *word) {
    size_t size = strlen(word);
    memcpy(to, word, size);
    return to + size;
}

static char *write_whole(char *to, const pgr_numeric *header) {
    char *first = to;
    for (int32_t i = 0; i <= header->weight; i++) {
        uint32_t digit = numeric_digit(header, i);
        for (uint32_t unit = NUMERIC_BASE / 10; unit > 0; unit /= 10)
            if (to > first || digit / unit > 0) /* no leading zeros */
                *to++ = (char)('0' + digit / unit % 10);
    }
    if (to == first)
        *to++ = '0';
    return to;
}

static char *write_fraction(char *to, const pgr_numeric *header) {
    if (header->scale == 0)
        return to;
    *to++ = '.';
    uint32_t unit = 0, digit = 0;
    int32_t i = header->weight + 1;
    for (uint16_t written = 0; written < header->scale; written++, unit /= 10) {
        if (unit == 0) {
            digit = numeric_digit(header, i++);
            unit = NUMERIC_BASE / 10;
        }
        *to++ = (char)('0' + digit / unit % 10);
    }
    return to;
}

pgr_parse pgr_numeric_text(const pgr_numeric *numeric, char *text, size_t *length) {
    if (numeric->scale > NUMERIC_MAX_SCALE)
        return PGR_MALFORMED;
    for (int32_t i = 0; i < numeric->count; i++)
        if (numeric_digit(numeric, i) >= NUMERIC_BASE)
            return PGR_MALFORMED;
    char *to = text;
    switch (numeric->sign) {
    case NUMERIC_NAN:
        to = write_word(to, "NaN");
        break;
    case NUMERIC_INFINITY:
        to = write_word(to, "Infinity");
        break;
    case NUMERIC_MINUS_INFINITY:
        to = write_word(to, "-Infinity");
        break;
    case NUMERIC_NEGATIVE:
        *to++ = '-';
        /* fall through */
    case NUMERIC_POSITIVE:
        to = write_fraction(write_whole(to, numeric), numeric);
        break;
    default:
        return PGR_MALFORMED;
    }
    *length = (size_t)(to - text);
    return PGR_PARSED;
}
