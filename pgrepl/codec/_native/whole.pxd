"""Makes sure that nobody sees an instance of an extension type that was not initialised.

Methods here read fields without a look whether they were ever set: a pointer into a chunk, a typed
reference that would be None. Python lets anybody call `__new__` without `__init__`, or `__init__`
twice. The law: an instance that Python can get hold of is whole, from the first moment on.

`seal` is for what the package alone makes: Python cannot. `complete` is for what Python makes too:
its `__new__` is to run `__init__`, and hands out nothing that this has not finished. Calls of
`__new__` in the module of the type, which Cython turns into calls of its own function, go to
neither: they make blank instances, which are filled before anybody else can see them. A type
without a field to be set, or with a `__cinit__` that sets all, needs none.
"""

from cpython.object cimport PyObject, PyTypeObject


cdef extern from *:
    """
    static inline PyObject *pgr_no_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
        (void)args;
        (void)kwargs;
        PyErr_Format(PyExc_TypeError, "cannot create '%.100s' instances", type->tp_name);
        return NULL;
    }

    static inline void pgr_seal(PyTypeObject *type) {
        type->tp_new = pgr_no_new;
        type->tp_vectorcall = NULL; /* which Cython lets make instances by itself */
        PyType_Modified(type);
    }

    /* What `__new__` does for types whose `__new__` was `blank`: not even the collector tells of
       the instance before it is whole. */
    static inline PyObject *pgr_whole(newfunc blank, PyTypeObject *type, PyObject *args,
                                      PyObject *kwargs) {
        PyObject *none = PyTuple_New(0);
        PyObject *instance = none == NULL ? NULL : blank(type, none, NULL);
        Py_XDECREF(none);
        if (instance == NULL)
            return NULL;
        if (PyType_IS_GC(type))
            PyObject_GC_UnTrack(instance);
        if (type->tp_init(instance, args, kwargs) < 0) {
            Py_DECREF(instance);
            return NULL;
        }
        if (PyType_IS_GC(type))
            PyObject_GC_Track(instance);
        return instance;
    }

    static inline void pgr_complete(PyTypeObject *type, newfunc *blank, newfunc whole) {
        *blank = type->tp_new;
        type->tp_new = whole;
        type->tp_vectorcall = NULL;
        PyType_Modified(type);
    }
    """
    ctypedef object (*newfunc)(PyTypeObject *, PyObject *, PyObject *)
    void seal "pgr_seal"(PyTypeObject *type)
    object whole "pgr_whole"(
        newfunc blank, PyTypeObject *type, PyObject *arguments, PyObject *keywords
    )
    void complete "pgr_complete"(PyTypeObject *type, newfunc *blank, newfunc whole)
