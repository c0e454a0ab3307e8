"""Rows, native: a row keeps the bytes of its columns, and makes a value when it is first read.

The bytes are the row's own copy, so that a kept row neither keeps a chunk from being refilled nor
sees it refilled. The core has checked them before they were copied; they are read with its cursor
all the same, since what they were copied from may be memory that others write to.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Copy, PyDict_SetItem
from cpython.list cimport PyList_GET_ITEM
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.number cimport PyNumber_AsSsize_t
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_New, PyTuple_SET_ITEM

from .pgoutput cimport (
    PGR_OK,
    pgr_column,
    pgr_column_next,
    pgr_cursor,
    pgr_cursor_over,
    pgr_error,
    pgr_message,
    pgr_span,
    pgr_tuple,
)
from .values cimport Types, ValueType

from ...messages import UNCHANGED
from .._pure.rows import Row as PureRow
from .._pure.rows import shown, unsent
from ..faults import Fault, column_of, fault_error, value_of


cdef int ENCODING = Fault.ENCODING
cdef int VALUE = Fault.VALUE

cdef object unchanged = UNCHANGED
cdef object UNREAD = object()


@cython.final
@cython.no_gc
cdef class Layout:
    """A relation, and what its rows share with it."""

    def __cinit__(self, relation, Types types=None):
        columns = relation.columns
        key = [place for place, column in enumerate(columns) if column.is_key]
        self.relation = relation
        self.oid = relation.oid
        self.width = len(columns)
        self.key_width = len(key)
        self.key = <uint16_t *>PyMem_Malloc(max(len(key), 1) * sizeof(uint16_t))
        if self.key == NULL:
            raise MemoryError()
        for i, place in enumerate(key):
            self.key[i] = place
        self.positions = relation._positions
        self.key_positions = relation._key_positions
        self.names = tuple([column.name for column in columns])
        self.key_names = tuple([columns[place].name for place in key])
        self.blank = dict.fromkeys(self.names)
        self.key_blank = dict.fromkeys(self.key_names)
        if types is not None:
            self.types = [types.get(column.type_oid) for column in columns]

    def __dealloc__(self):
        PyMem_Free(self.key)


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Row:
    """A row by position and by name; see `pgrepl.codec.abc.Row`."""

    def __init__(self, relation, values, bint key_only=False):
        if self.layout is not None:
            raise TypeError("a Row cannot be initialised twice")
        values = tuple(values)
        width = len(relation.key_columns if key_only else relation.columns)
        if len(values) != width:
            raise ValueError(f"expected {width} values, got {len(values)}")
        self.layout = Layout(relation)
        self.made = values
        self.key_only = key_only

    def __dealloc__(self):
        PyMem_Free(self.offsets)

    @property
    def columns(self):
        """The columns that the row has, in order."""
        relation = self.layout.relation
        return relation.key_columns if self.key_only else relation.columns

    cdef int find(self) except -1:
        # Note where each column is. Once: a wide row would be walked from its start for each.
        cdef uint16_t width = self.layout.width, place
        cdef pgr_cursor cursor = self.cursor(0)
        cdef const uint8_t *sent = cursor.at
        cdef pgr_column column
        self.offsets = <uint32_t *>PyMem_Malloc(width * sizeof(uint32_t))
        if self.offsets == NULL:
            raise MemoryError()
        for place in range(width):
            self.offsets[place] = <uint32_t>(cursor.at - sent)
            if pgr_column_next(&cursor, &column) != PGR_OK:
                PyMem_Free(self.offsets)
                self.offsets = NULL
                raise rewritten(&cursor.error, self)
        return 0

    cdef pgr_cursor cursor(self, uint32_t offset):
        # Over what was sent, from an offset on.
        cdef const uint8_t *sent = <const uint8_t *>PyBytes_AS_STRING(self.sent)
        cdef pgr_span part = [sent + offset, <size_t>PyBytes_GET_SIZE(self.sent) - offset]
        return pgr_cursor_over(sent, self.tag, part)

    cdef pgr_column column(self, uint16_t place) except *:
        cdef pgr_cursor cursor
        cdef pgr_column column
        if self.offsets == NULL:
            self.find()
        cursor = self.cursor(self.offsets[place])
        pgr_column_next(&cursor, &column)
        return column

    cdef object decode(self, uint16_t place, const pgr_column *column):
        cdef ValueType type
        if column.kind == c"t":
            type = <ValueType>PyList_GET_ITEM(self.layout.types, place)
            return type.from_text(column.value.bytes, <Py_ssize_t>column.value.size)
        elif column.kind == c"b":
            type = <ValueType>PyList_GET_ITEM(self.layout.types, place)
            return type.from_binary(column.value.bytes, <Py_ssize_t>column.value.size)
        elif column.kind == c"u":
            return unchanged
        return None

    cdef object fault(self, uint16_t place, const pgr_column *column, object error):
        # The error for a value that cannot be made.
        cdef const uint8_t *sent = <const uint8_t *>PyBytes_AS_STRING(self.sent)
        cdef bint encoding = isinstance(error, UnicodeDecodeError)
        relation = self.layout.relation
        return fault_error(
            ENCODING if encoding else VALUE, self.tag, self.start + (column.value.bytes - sent),
            where=column_of(relation, place) if encoding else value_of(relation, place, error),
            lsn=self.lsn if self.has_lsn else None,
        )

    cdef object at(self, Py_ssize_t position):
        # The value of a column that the row has.
        cdef uint16_t place
        cdef pgr_column column
        if type(self.made) is tuple:
            return <object>PyTuple_GET_ITEM(self.made, position)
        if self.made is None:
            self.made = [UNREAD] * (
                self.layout.key_width if self.key_only else self.layout.width
            )
        value = <object>PyList_GET_ITEM(self.made, position)
        if value is not UNREAD:
            return value
        place = self.layout.key[position] if self.key_only else <uint16_t>position
        column = self.column(place)
        failure = None
        try:
            value = self.decode(place, &column)
        except ValueError as error:
            failure = self.fault(place, &column, error)
        if failure is not None:
            raise failure
        # What decodes a user's type may have read the whole row meanwhile.
        if type(self.made) is list:
            (<list>self.made)[position] = value
        return value

    cdef tuple all(self):
        # The values of all columns, made in one walk.
        if type(self.made) is tuple:
            return self.made
        cdef Layout layout = self.layout
        cdef bint key_only = self.key_only
        cdef uint16_t place, wanted = layout.key_width if key_only else layout.width
        cdef pgr_cursor cursor = self.cursor(0)
        cdef pgr_column column
        cdef list known = self.made
        cdef tuple values = PyTuple_New(wanted)
        cdef Py_ssize_t filled = 0
        failure = None
        try:
            for place in range(layout.width):
                if pgr_column_next(&cursor, &column) != PGR_OK:
                    raise rewritten(&cursor.error, self)
                # A key tuple has all columns on the wire; those outside the key mean nothing.
                if key_only and (filled == wanted or layout.key[filled] != place):
                    continue
                value = UNREAD if known is None else <object>PyList_GET_ITEM(known, filled)
                if value is UNREAD:
                    value = self.decode(place, &column)
                # The tuple takes the reference over, which Cython does not know.
                Py_INCREF(value)
                PyTuple_SET_ITEM(values, filled, value)
                filled += 1
        except ValueError as error:
            failure = self.fault(place, &column, error)
        # Not in the handler: the first error, which holds the data, would go along as its context.
        if failure is not None:
            raise failure
        self.made = values
        return values

    cdef Py_ssize_t position_of(self, object key) except -1:
        cdef Py_ssize_t count, position
        if isinstance(key, str):
            return (self.layout.key_positions if self.key_only else self.layout.positions)[key]
        position = PyNumber_AsSsize_t(key, IndexError)
        count = len(self)
        if position < 0:
            position += count
        if not 0 <= position < count:
            raise IndexError(f"expected a position below {count}, got {key}")
        return position

    def __getitem__(self, key):
        if isinstance(key, slice):
            return self.all()[key]
        return self.at(self.position_of(key))

    def raw(self, key):
        """Return the bytes that were sent for a column; None for NULL, or `UNCHANGED`."""
        cdef Py_ssize_t position = self.position_of(key)
        cdef pgr_column column
        if self.sent is None:
            raise ValueError(unsent)
        column = self.column(self.layout.key[position] if self.key_only else <uint16_t>position)
        if column.kind == c"n":
            return None
        if column.kind == c"u":
            return unchanged
        return PyBytes_FromStringAndSize(
            <const char *>column.value.bytes, <Py_ssize_t>column.value.size
        )

    def get(self, name, default=None):
        """Return the value of a column, or `default` where the row has no such column."""
        positions = self.layout.key_positions if self.key_only else self.layout.positions
        position = positions.get(name)
        return default if position is None else self.at(position)

    def keys(self):
        """Return the names of the columns, in order."""
        return self.layout.key_names if self.key_only else self.layout.names

    def values(self):
        """Return the values, in order."""
        return self.all()

    def items(self):
        """Iterate over pairs of name and value, in order."""
        return zip(self.keys(), self.all())

    def asdict(self):
        """Return a new dictionary from name to value."""
        cdef tuple names = self.layout.key_names if self.key_only else self.layout.names
        cdef tuple values = self.all()
        cdef Py_ssize_t i
        # A copy has all its keys in one piece; a new dictionary would grow with them.
        cdef dict made = PyDict_Copy(self.layout.key_blank if self.key_only else self.layout.blank)
        for i in range(len(names)):
            PyDict_SetItem(
                made, <object>PyTuple_GET_ITEM(names, i), <object>PyTuple_GET_ITEM(values, i)
            )
        return made

    def astuple(self):
        """Return the values, in order."""
        return self.all()

    def __len__(self):
        return self.layout.key_width if self.key_only else self.layout.width

    def __iter__(self):
        return iter(self.all())

    def __contains__(self, name):
        return name in (self.layout.key_positions if self.key_only else self.layout.positions)

    def __eq__(self, other):
        if not isinstance(other, (Row, PureRow)):
            return NotImplemented
        return self.keys() == other.keys() and self.all() == other.astuple()

    def __hash__(self):
        return hash((self.keys(), self.all()))

    def __reduce__(self):
        return Row, (self.layout.relation, self.all(), self.key_only)

    def __repr__(self):
        return shown(self)


cdef object rewritten(const pgr_error *error, Row row):
    # Somebody wrote to the payload between the check and the copy.
    return fault_error(
        error.fault, error.tag, row.start + error.offset, error.expected, error.got,
        lsn=row.lsn if row.has_lsn else None,
    )


cdef Row row_of(const pgr_message *message, const pgr_tuple *source, Layout layout):
    """Make the row of a tuple that has as many columns as its relation."""
    cdef Row row = Row.__new__(Row)
    row.layout = layout
    row.sent = PyBytes_FromStringAndSize(
        <const char *>source.columns.bytes, <Py_ssize_t>source.columns.size
    )
    row.start = <uint32_t>(source.columns.bytes - message.start)
    row.tag = message.tag
    row.key_only = source.mark == c"K"
    return row
