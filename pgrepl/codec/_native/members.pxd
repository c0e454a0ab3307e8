"""Fields of an extension type that Python reads as slots, like those of a class with `__slots__`.

The interpreter has an instruction for slots, which costs a tenth of the getter that Cython gives a
field. A slot is a member descriptor with the field's offset; where the compiler has put a field is
found out by looking for what is in it.
"""

from cpython.object cimport PyObject, PyTypeObject


cdef extern from *:
    """
    #include "structmember.h"
    #define TYPE_DICT(type) ((type)->tp_dict)
    #define TYPE_SIZE(type) ((type)->tp_basicsize)
    """
    ctypedef struct PyMemberDef:
        const char *name
        int type
        Py_ssize_t offset
        int flags
        const char *doc
    int T_OBJECT_EX
    int READONLY
    PyObject *TYPE_DICT(PyTypeObject *)
    Py_ssize_t TYPE_SIZE(PyTypeObject *)
    object PyDescr_NewMember(PyTypeObject *type, PyMemberDef *member)
    void PyType_Modified(PyTypeObject *type)


cdef inline int expose(
    PyTypeObject *type, PyMemberDef *slot, const char *name, const char *doc, PyObject *probe,
    object content
) except -1:
    """Let Python read, as `name`, the field of `type` that holds `content` in the object `probe`.

    The field is an object, never NULL, and `slot` is never let go.
    """
    cdef Py_ssize_t i
    for i in range(TYPE_SIZE(type) // <Py_ssize_t>sizeof(void *)):
        if (<void **>probe)[i] == <void *>content:
            slot.name = name
            slot.type = T_OBJECT_EX
            slot.offset = i * <Py_ssize_t>sizeof(void *)
            slot.flags = READONLY
            slot.doc = doc
            (<dict>TYPE_DICT(type))[name.decode("ascii")] = PyDescr_NewMember(type, slot)
            PyType_Modified(type)
            return 0
    raise SystemError("a field is not where it should be")
