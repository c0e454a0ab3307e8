"""Makes instances of frozen classes without running their __init__, which costs more than all else.

The law: what is made here is what the class itself would have made. An object comes from the
class's own __new__, or from what `object.__new__` allocates by where the class has no other, and
its fields are then set where the class keeps them. A dataclass with slots
keeps each in a place of its own, which the slot's descriptor knows; that place is looked up once
and written to directly. This holds only for a fresh object, whose slots are all empty and which
nobody else has. A field that is not kept that way is set by `object.__setattr__`, as a frozen
dataclass does it itself.

Nor does the garbage collector get to see them, unless `track` shows them to it. They cannot be
changed, and what they refer to cannot refer back, but for rows of some relations: it would find no
cycle through one, and would look through a batch again and again for it, at the cost of a quarter
of all else.
"""

from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF


cdef extern from "structmember.h":
    int T_OBJECT_EX
    ctypedef struct PyMemberDef:
        int type
        Py_ssize_t offset
        int flags


cdef extern from "Python.h":
    PyTypeObject PyMemberDescr_Type
    ctypedef struct PyMemberDescrObject:
        PyMemberDef *d_member
    PyTypeObject *PyDescr_TYPE(PyObject *descriptor)
    PyTypeObject *Py_TYPE(PyObject *instance)
    bint PyType_IS_GC(PyTypeObject *cls)
    object PyType_GenericAlloc(PyTypeObject *cls, Py_ssize_t items)
    void PyObject_GC_Track(PyObject *instance)
    void PyObject_GC_UnTrack(PyObject *instance)
    void Py_XDECREF(PyObject *instance)
    int PyObject_GenericSetAttr(object instance, object name, object value) except -1


cdef enum:
    MAX_FIELDS = 12


cdef struct Slots:
    PyTypeObject *type
    Py_ssize_t count                    # of `all_slots_of`
    bint is_plain                       # has no __new__ of its own, and no __dict__
    PyObject *names[MAX_FIELDS]
    Py_ssize_t offsets[MAX_FIELDS]      # 0: not a plain slot


cdef inline Py_ssize_t slot_offset(type cls, str name) except -1:
    """Return where instances keep a field, or 0 unless it is a plain slot of this very class."""
    descriptor = cls.__dict__.get(name)
    cdef PyObject *found = <PyObject *>descriptor
    if Py_TYPE(found) != &PyMemberDescr_Type or PyDescr_TYPE(found) != <PyTypeObject *>cls:
        return 0
    cdef PyMemberDef *member = (<PyMemberDescrObject *>found).d_member
    cdef Py_ssize_t last = (<PyTypeObject *>cls).tp_basicsize - <Py_ssize_t>sizeof(PyObject *)
    if member.type != T_OBJECT_EX or member.flags != 0 or not 0 < member.offset <= last:
        return 0
    return member.offset


cdef inline Slots slots_of(type cls, tuple names) except *:
    """Look up the fields of a class, once at import: the class and the names are never let go."""
    cdef Slots slots
    cdef Py_ssize_t i
    if len(names) > MAX_FIELDS:
        raise ValueError(f"expected at most {MAX_FIELDS} fields, got {len(names)}")
    Py_INCREF(cls)
    slots.type = <PyTypeObject *>cls
    slots.is_plain = (
        (<PyTypeObject *>cls).tp_new == (<PyTypeObject *>object).tp_new
        and "__dict__" not in dir(cls)
        and not getattr(cls, "__abstractmethods__", None)
    )
    for i, name in enumerate(names):
        Py_INCREF(name)
        slots.names[i] = <PyObject *>name
        slots.offsets[i] = slot_offset(cls, name)
    return slots


cdef inline Slots all_slots_of(type cls, tuple names) except *:
    """Look up all slots of a class, those of its bases too: the names that are given come first."""
    cdef Slots slots
    cdef Py_ssize_t i
    homes = {}
    for home in cls.__mro__:
        for name in home.__dict__.get("__slots__", ()):
            homes[name] = home
            if name not in names:
                names += (name,)
    slots = slots_of(cls, names)
    slots.count = len(names)
    for i in range(slots.count):
        slots.offsets[i] = slot_offset(homes[names[i]], names[i])
        if slots.offsets[i] == 0 or not slots.is_plain:
            raise TypeError(f"expected slots and nothing else in {cls!r}, got {names[i]!r}")
    return slots


cdef inline object copy_of(object template, const Slots *slots):
    """Return a copy, by `all_slots_of` its class, which the collector does not see yet."""
    cdef Py_ssize_t i
    cdef PyObject *value
    made = new_instance(slots)
    for i in range(slots.count):
        value = slot(template, slots, i)
        if value != NULL:
            replace(made, slots, i, <object>value)
    return made


cdef inline object new_instance(const Slots *slots):
    if slots.is_plain:
        instance = PyType_GenericAlloc(slots.type, 0)
    else:
        instance = slots.type.tp_new(<type>slots.type, <PyObject *>(), NULL)
    if PyType_IS_GC(slots.type):
        PyObject_GC_UnTrack(<PyObject *>instance)
    return instance


cdef inline void track(object instance) noexcept:
    """Let the collector see an object of `new_instance` that something could lead back to."""
    if PyType_IS_GC(Py_TYPE(<PyObject *>instance)):
        PyObject_GC_Track(<PyObject *>instance)


cdef inline int put(object instance, const Slots *slots, Py_ssize_t field, object value) except -1:
    """Set a field, by its place in the names, of an object fresh from `new_instance`."""
    cdef Py_ssize_t offset = slots.offsets[field]
    if offset == 0:
        return PyObject_GenericSetAttr(instance, <object>slots.names[field], value)
    Py_INCREF(value)
    (<PyObject **>(<char *><PyObject *>instance + offset))[0] = <PyObject *>value
    return 0


cdef inline PyObject *slot(object instance, const Slots *slots, Py_ssize_t field) noexcept:
    """Return what is in a field, by `all_slots_of` the class, borrowed; NULL: it was deleted."""
    return (<PyObject **>(<char *><PyObject *>instance + slots.offsets[field]))[0]


cdef inline void replace(
    object instance, const Slots *slots, Py_ssize_t field, object value
) noexcept:
    """Set a field, by `all_slots_of` the class, in place of what is in it."""
    cdef PyObject **place = <PyObject **>(<char *><PyObject *>instance + slots.offsets[field])
    cdef PyObject *before = place[0]
    Py_INCREF(value)
    place[0] = <PyObject *>value
    Py_XDECREF(before)
