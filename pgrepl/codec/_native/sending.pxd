"""What `await` calls in place of `__next__`, where a class has it: `am_send`.

Cython has no name for it. A result needs no StopIteration then, which costs more than all else.
"""

from cpython.object cimport PyObject, PyTypeObject


cdef extern from *:
    """
    static inline void pgr_let_send(PyTypeObject *type, sendfunc send) {
        if (type->tp_as_async != NULL) {
            type->tp_as_async->am_send = send;
            PyType_Modified(type);
        }
    }
    """
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
    ctypedef PySendResult (*sendfunc)(PyObject *, PyObject *, PyObject **) noexcept
    void let_send "pgr_let_send"(PyTypeObject *type, sendfunc send)
