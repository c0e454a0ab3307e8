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
from cpython.object cimport PyObject, PyTypeObject
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
from .values cimport NOT_READ, Scalar, Types, ValueType
from .whole cimport complete, newfunc, seal, whole

from operator import attrgetter

from ...lsn import Lsn
from ...relation import UNCHANGED, Relation, all_columns, columns_at, marked_columns
from ..faults import Fault, RuleFailed, column_of, fault_error, value_of
from ..rows import row_classes, shown, unsent


cdef extern from "Python.h":
    int Py_EnterRecursiveCall(const char *) except -1
    void Py_LeaveRecursiveCall()
    void PyObject_GC_UnTrack(PyObject *)


cdef int ENCODING = Fault.ENCODING
cdef int RULE = Fault.RULE
cdef int VALUE = Fault.VALUE

cdef object name_of = attrgetter("name")
cdef object type_oid_of = attrgetter("type_oid")
cdef object unchanged = UNCHANGED
cdef object UNREAD = object()


@cython.final
@cython.no_gc_clear
cdef class Layout:
    """A relation, and what its rows share with it.

    The collector sees it: its types can lead to what decodes a type of a user's, and from there to
    anything. It need not take it apart, since a layout, like a tuple, is made after its parts.
    """

    def __cinit__(self, relation, Types types=None, selection=None):
        if not isinstance(relation, Relation):
            raise TypeError(f"expected a Relation, got {type(relation).__name__}")
        self.relation = relation
        self.oid = relation.oid
        self.whole = all_columns(relation)
        self.selection = marked_columns(relation) if selection is None else selection
        self.width = len(self.whole.places)
        self.key_width = len(self.selection.places)
        self.key = <uint16_t *>PyMem_Malloc(max(self.key_width, 1) * sizeof(uint16_t))
        if self.key == NULL:
            raise MemoryError()
        for i, place in enumerate(self.selection.places):
            if not 0 <= place < self.width:
                raise ValueError(f"expected a place below {self.width}, got {place}")
            self.key[i] = place
        self.positions = self.whole.positions
        self.key_positions = self.selection.positions
        self.names = tuple(map(name_of, self.whole.columns))
        self.key_names = tuple(map(name_of, self.selection.columns))
        # They are read without another look.
        if len(self.names) != self.width or len(self.key_names) != self.key_width:
            raise ValueError("expected a relation whose columns are those that it was made with")
        self.blank = dict.fromkeys(self.names)
        self.key_blank = dict.fromkeys(self.key_names)
        if types is not None:
            self.edition = types.registry.edition
            self.types = tuple(map(types.lookup, map(type_oid_of, self.whole.columns)))
            self.plain = True
            for each in self.types:
                self.plain = self.plain and isinstance(each, Scalar)

    cdef Layout with_key(self, tuple places):
        """Return the same layout for key-only rows of these columns.

        The last one is kept: changes of one partition come in runs.
        """
        cdef Layout other = self.other
        if other is None or other.selection.places != places:
            other = Layout.__new__(Layout, self.relation, None, columns_at(self.relation, places))
            other.types = self.types
            other.plain = self.plain
            self.other = other
        return other

    def __dealloc__(self):
        PyMem_Free(self.key)


cdef inline object text_value(Layout layout, uint16_t place, const pgr_column *column):
    """Make the value of a column that was sent as text."""
    cdef ValueType its = <ValueType>PyTuple_GET_ITEM(layout.types, place)
    if type(its) is Scalar:
        # Most columns: without the way by `from_text`, which begins with the same.
        value = (<Scalar>its).read_text(column.value.bytes, <Py_ssize_t>column.value.size)
        if value is not NOT_READ:
            return value
    return its.from_text(column.value.bytes, <Py_ssize_t>column.value.size)


# The collector sees those rows alone that something could lead back to: those made from values, and
# those whose types call a user's function or make lists and the like. From any other there is no
# way but to bytes, numbers and text, and to look through a batch of them again and again would cost
# a quarter of all else. As with tuples, none need be taken apart.
@cython.final
@cython.no_gc_clear
@cython.freelist(64)
cdef class Row:
    """Row(relation, values, key_only=False, places=None, lsn=None)\n--\n
    A row by position and by name: ``row[0]``, ``row["id"]``; iterates over its values.

    A value is made when it is first read: Python's own for its type, see docs/types.md; None for
    NULL; `UNCHANGED` for one that was not sent. A key-only row has the columns whose values came,
    and no others: those that identify the row, whatever the relation marks as its key. Rows compare
    by names and values.

    What reads a value raises `DecodeError`, with the column's name and type, for one that its type
    cannot have, text that is not UTF-8 for instance; `raw` still gives its bytes.

    By hand it is made of values: of all columns, of those that the relation marks as the key
    (`key_only`), or of those at some `places`, counted from 0. Raises `ValueError` if they are not
    as many as the columns.
    """

    def __init__(self, relation, values, bint key_only=False, places=None, lsn=None):
        cdef Layout layout
        if self.fresh:
            self.fresh = False
            return
        if self.layout is not None:
            raise TypeError("a Row cannot be initialised twice")
        selection = None
        if places is not None and isinstance(relation, Relation):
            selection = columns_at(relation, places)
        layout = Layout.__new__(Layout, relation, None, selection)
        key_only = key_only or places is not None
        width = layout.key_width if key_only else layout.width
        values = tuple(values)
        if len(values) != width:
            raise ValueError(f"expected {width} values, got {len(values)}")
        if lsn is not None:
            self.position = Lsn(lsn)
            self.has_position = True
        self.layout = layout
        self.made = values
        self.key_only = key_only
        self.fresh = True

    def __dealloc__(self):
        if self.offsets != NULL:
            PyMem_Free(self.offsets)

    @property
    def columns(self):
        """The columns that the row has, in order."""
        return (self.layout.selection if self.key_only else self.layout.whole).columns

    @property
    def places(self):
        """Where these columns are in the relation, counted from 0."""
        return (self.layout.selection if self.key_only else self.layout.whole).places

    @property
    def lsn(self):
        """Where in the WAL the change begins that the row came with; None: nobody said."""
        return Lsn(self.position) if self.has_position else None

    cdef int find_key(self) except -1:
        # Give a key-only row that came the layout of its key. The tuple has all columns, and values
        # of those alone that identify the row, since they cannot be NULL. Which those are the
        # relation does not always tell: a change of a partition that is published as its root's has
        # the partition's key.
        cdef Layout layout = self.layout
        cdef pgr_cursor cursor = self.cursor(0)
        cdef pgr_column column
        cdef uint16_t place, count = 0
        cdef bint expected = True
        for place in range(layout.width):
            if pgr_column_next(&cursor, &column) != PGR_OK:
                raise rewritten(&cursor.error, self)
            if column.kind == c"t" or column.kind == c"b":
                expected = expected and count < layout.key_width and layout.key[count] == place
                count += 1
        if expected and count == layout.key_width:
            return 0
        cursor = self.cursor(0)
        places = []
        for place in range(layout.width):
            pgr_column_next(&cursor, &column)
            if column.kind == c"t" or column.kind == c"b":
                places.append(place)
        self.layout = layout.with_key(tuple(places))
        return 0

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
            return text_value(self.layout, place, column)
        elif column.kind == c"b":
            type = <ValueType>PyTuple_GET_ITEM(self.layout.types, place)
            return type.from_binary(column.value.bytes, <Py_ssize_t>column.value.size)
        elif column.kind == c"u":
            return unchanged
        return None

    cdef object fault(self, uint16_t place, const pgr_column *column, object error):
        # The error for a value that cannot be made.
        cdef const uint8_t *sent = <const uint8_t *>PyBytes_AS_STRING(self.sent)
        cdef bint encoding = isinstance(error, UnicodeDecodeError)
        cdef bint ruled = isinstance(error, RuleFailed)
        relation = self.layout.relation
        fault = fault_error(
            ENCODING if encoding else RULE if ruled else VALUE,
            self.tag, self.start + (column.value.bytes - sent),
            where=column_of(relation, place) if encoding else value_of(relation, place, error),
            lsn=self.position if self.has_position else None,
        )
        fault.__cause__ = error.__cause__ if ruled else None
        return fault

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
        except (ValueError, RuleFailed) as error:
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
        cdef bint is_plain = known is None and not key_only     # all columns, of which none is made
        failure = None
        try:
            for place in range(layout.width):
                if pgr_column_next(&cursor, &column) != PGR_OK:
                    raise rewritten(&cursor.error, self)
                if is_plain and column.kind == c"t":
                    value = text_value(layout, place, &column)
                    Py_INCREF(value)
                    PyTuple_SET_ITEM(values, filled, value)
                    filled += 1
                    continue
                # A key tuple has all columns on the wire, and those outside the key are NULL.
                if key_only and (filled == wanted or layout.key[filled] != place):
                    continue
                value = UNREAD if known is None else <object>PyList_GET_ITEM(known, filled)
                if value is UNREAD:
                    value = self.decode(place, &column)
                # The tuple takes the reference over, which Cython does not know.
                Py_INCREF(value)
                PyTuple_SET_ITEM(values, filled, value)
                filled += 1
        except (ValueError, RuleFailed) as error:
            failure = self.fault(place, &column, error)
        # Not in the handler: the first error, which holds the data, would go along as its context.
        if failure is not None:
            raise failure
        self.made = values
        return values

    cdef Py_ssize_t position_of(self, object key) except -1:
        cdef Py_ssize_t count = len(self), position
        if isinstance(key, str):
            position = (self.layout.key_positions if self.key_only else self.layout.positions)[key]
        else:
            position = PyNumber_AsSsize_t(key, IndexError)
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
        return default if position is None else self.at(self.position_of(position))

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

    def to_json(self, default=None):
        """Return the row as a line of typed JSON, an object without what is `UNCHANGED`."""
        from ...json_form import json_line, row_object
        return json_line(row_object(self, default))

    def _of_key(self):
        """Return the part of a whole row that its relation marks as the key."""
        cdef Layout layout = self.layout
        cdef Row row
        if self.key_only:
            return self
        row = Row.__new__(Row)
        row.layout = layout
        row.sent = self.sent
        row.start = self.start
        row.tag = self.tag
        row.position = self.position
        row.has_position = self.has_position
        row.key_only = True
        if self.made is not None:
            row.made = type(self.made)(map(self.made.__getitem__, layout.selection.places))
        return row

    def __len__(self):
        return self.layout.key_width if self.key_only else self.layout.width

    def __iter__(self):
        return iter(self.all())

    def __contains__(self, name):
        return name in (self.layout.key_positions if self.key_only else self.layout.positions)

    def __eq__(self, other):
        if type(other) is not Row and type(other) not in row_classes:
            return NotImplemented
        return self.keys() == other.keys() and self.all() == other.astuple()

    def __hash__(self):
        # A row can be a value of a row, and a tuple of the C core does not look how deep it is.
        Py_EnterRecursiveCall(" while hashing a Row")
        try:
            return hash((self.keys(), self.all()))
        finally:
            Py_LeaveRecursiveCall()

    def __reduce__(self):
        return Row, (self.layout.relation, self.all(), False, self.places, self.lsn)

    def __repr__(self):
        return shown(self)


cdef object rewritten(const pgr_error *error, Row row):
    # Somebody wrote to the payload between the check and the copy.
    return fault_error(
        error.fault, error.tag, row.start + error.offset, error.expected, error.got,
        lsn=row.position if row.has_position else None,
    )


cdef Layout layout_of(object relation, Types types):
    """Make the layout of a relation whose values have these types."""
    return Layout.__new__(Layout, relation, types)


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
    if layout.plain:
        PyObject_GC_UnTrack(<PyObject *>row)
    return row


cdef newfunc blank_row


cdef object whole_row(PyTypeObject *cls, PyObject *arguments, PyObject *keywords):
    return whole(blank_row, cls, arguments, keywords)


seal(<PyTypeObject *>Layout)
complete(<PyTypeObject *>Row, &blank_row, whole_row)
row_classes.add(Row)
