"""Integers that nobody else can see are filled anew, in place of making others.

A message that is used again (see `WalIterator`) has three integers. Where only the message refers
to one, nobody can tell a changed integer from a new one, and changing it costs a tenth. The law:
`refill` touches an integer only if exactly the given number of references exist, all of them the
caller's, and if the new value takes as many digits as the old one. CPython shares small integers
among all; those have more references, and no value of theirs is ever written.

How an integer is laid out is CPython's own affair, so this is done for the versions whose layout is
known, and nowhere else; elsewhere `refill` declines and the caller makes an integer.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint64_t


cdef extern from *:
    """
    #if !defined(PYPY_VERSION) && !defined(Py_GIL_DISABLED) && !defined(Py_LIMITED_API) \\
        && PyLong_SHIFT == 30 && PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030F0000
    #if PY_VERSION_HEX >= 0x030C0000
    /* The size is above three bits, which are all zero for a positive number of the heap's. */
    #define PGR_INT_SIZE(number) (((PyLongObject *)(number))->long_value.lv_tag)
    #define PGR_INT_TAG(digits) ((uintptr_t)(digits) << 3)
    #define PGR_INT_DIGITS(number) (((PyLongObject *)(number))->long_value.ob_digit)
    #else
    #define PGR_INT_SIZE(number) Py_SIZE(number)
    #define PGR_INT_TAG(digits) (digits)
    #define PGR_INT_DIGITS(number) (((PyLongObject *)(number))->ob_digit)
    #endif
    enum { PGR_INT_SHARED_MAX = 1024 };

    static inline int pgr_int_refill(PyObject *number, Py_ssize_t references, uint64_t value) {
        if (!PyLong_CheckExact(number) || Py_REFCNT(number) != references)
            return 0;
        if (value >> (2 * PyLong_SHIFT) != 0 || value <= PGR_INT_SHARED_MAX)
            return 0;
        uint64_t high = value >> PyLong_SHIFT;
        if (PGR_INT_SIZE(number) != (high ? PGR_INT_TAG(2) : PGR_INT_TAG(1)))
            return 0;
        PGR_INT_DIGITS(number)[0] = (digit)(value & PyLong_MASK);
        if (high)
            PGR_INT_DIGITS(number)[1] = (digit)high;
        return 1;
    }
    #else
    static inline int pgr_int_refill(PyObject *number, Py_ssize_t references, uint64_t value) {
        (void)number;
        (void)references;
        (void)value;
        return 0;
    }
    #endif
    """
    bint refill "pgr_int_refill"(PyObject *number, Py_ssize_t references, uint64_t value)
