# Readers of values sent as text, a part of values.pyx; NOT_READ is for pgrepl/codec/types.

cdef object text_bool(const uint8_t *bytes, Py_ssize_t size):
    if size == 1 and bytes[0] == c"t":
        return True
    if size == 1 and bytes[0] == c"f":
        return False
    return NOT_READ


cdef object text_int(const uint8_t *bytes, Py_ssize_t size):
    cdef int64_t value
    if pgr_text_int64(bytes, <size_t>size, &value) != PGR_PARSED:
        return NOT_READ
    return value


cdef object text_unsigned(const uint8_t *bytes, Py_ssize_t size):
    cdef uint64_t value
    if pgr_text_uint64(bytes, <size_t>size, &value) != PGR_PARSED:
        return NOT_READ
    return value


cdef object text_str(const uint8_t *bytes, Py_ssize_t size):
    return PyUnicode_DecodeUTF8(<const char *>bytes, size, NULL)


cdef object text_float(const uint8_t *bytes, Py_ssize_t size):
    # The conversion wants a zero byte at the end; no server writes a float longer than this.
    cdef char[32] text
    cdef Py_ssize_t sign = size > 0 and bytes[0] == c"-"
    if size == sign or size >= <Py_ssize_t>sizeof(text):
        return NOT_READ
    if not c"0" <= bytes[sign] <= c"9":
        return NOT_READ     # NaN or Infinity, which C spells in more ways than the server
    memcpy(text, bytes, <size_t>size)
    text[size] = 0
    if strlen(text) != <size_t>size:
        return NOT_READ
    try:
        return PyFloat_FromDouble(PyOS_string_to_double(text, NULL, NULL))
    except ValueError:
        return NOT_READ


cdef bint is_plain_decimal(const uint8_t *bytes, Py_ssize_t size):
    # Whether this is what numeric's output function writes for a number: Decimal takes more.
    cdef Py_ssize_t i = 0, whole, fraction
    if i < size and bytes[i] == c"-":
        i += 1
    whole = i
    while i < size and c"0" <= bytes[i] <= c"9":
        i += 1
    if i == whole:
        return False
    if i < size and bytes[i] == c".":
        i += 1
        fraction = i
        while i < size and c"0" <= bytes[i] <= c"9":
            i += 1
        if i == fraction:
            return False
    return i == size


cdef object text_numeric(const uint8_t *bytes, Py_ssize_t size):
    if not is_plain_decimal(bytes, size):
        return NOT_READ
    text = PyUnicode_New(size, 127)
    memcpy(PyUnicode_1BYTE_DATA(text), bytes, <size_t>size)
    return decimal_of(text)


cdef object text_bytea(const uint8_t *bytes, Py_ssize_t size):
    if size < 2 or bytes[0] != c"\\" or bytes[1] != c"x":
        return NOT_READ
    content = PyBytes_FromStringAndSize(NULL, size // 2 - 1)
    if pgr_text_bytea_hex(
        bytes, <size_t>size, <uint8_t *>PyBytes_AS_STRING(content)
    ) != PGR_PARSED:
        return NOT_READ
    return content


cdef object text_uuid(const uint8_t *bytes, Py_ssize_t size):
    cdef uint8_t[16] content
    if pgr_text_uuid(bytes, <size_t>size, content) != PGR_PARSED:
        return NOT_READ
    return make_uuid(content)


cdef object text_date(const uint8_t *bytes, Py_ssize_t size):
    cdef pgr_date date
    if pgr_text_date(bytes, <size_t>size, &date) != PGR_PARSED:
        return NOT_READ
    return date_new(date.year, date.month, date.day)


cdef object text_time(const uint8_t *bytes, Py_ssize_t size):
    cdef pgr_time time
    if pgr_text_time(bytes, <size_t>size, &time) != PGR_PARSED:
        return NOT_READ
    return time_new(time.hour, time.minute, time.second, time.microsecond, None)


cdef object text_timestamp(const uint8_t *bytes, Py_ssize_t size):
    cdef pgr_date date
    cdef pgr_time time
    if pgr_text_timestamp(bytes, <size_t>size, &date, &time) != PGR_PARSED:
        return NOT_READ
    return make_datetime(&date, &time, None)


cdef object text_timestamptz(const uint8_t *bytes, Py_ssize_t size):
    cdef pgr_date date
    cdef pgr_time time
    cdef int32_t offset
    if pgr_text_timestamptz(bytes, <size_t>size, &date, &time, &offset) != PGR_PARSED:
        return NOT_READ
    zone = offsets.get(offset)
    if zone is None:
        zone = timezone(timedelta_new(0, offset, 0))
        # The world has fewer; a server could send one for each second.
        if len(offsets) < MAX_OFFSETS:
            offsets[offset] = zone
    return make_datetime(&date, &time, zone)


cdef object text_lsn(const uint8_t *bytes, Py_ssize_t size):
    try:
        return Lsn(PyUnicode_DecodeUTF8(<const char *>bytes, size, NULL))
    except ValueError:
        return NOT_READ
