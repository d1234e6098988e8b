// Python: text is str (or UTF-8 bytes) and comes back as str; ids are sequences of int and come back as lists;
// floats come back as bytes. The interpreter's lock is let go of wherever a call can wait.

%begin %{
// The lock is let go of by the class below, not by SWIG's own.
#define SWIG_PYTHON_NO_USE_GIL
#define SWIG_PYTHON_THREAD_BEGIN_ALLOW PythonUnlocked unlocked
#define SWIG_PYTHON_THREAD_END_ALLOW unlocked.end()
%}

%{
#include <cxxabi.h>
#include <unistd.h>

namespace {

// While it lives, other threads may run Python. A daemon thread that comes back when the interpreter has begun to end
// is unwound by it, up to 3.13, which C++ between it and the thread's start would answer by ending the process with
// an error. Such a thread sleeps for the rest of the process instead, as it does from 3.14 on.
class PythonUnlocked {
 public:
  PythonUnlocked() : state_(PyEval_SaveThread()) {}
  PythonUnlocked(const PythonUnlocked&) = delete;
  PythonUnlocked& operator=(const PythonUnlocked&) = delete;
  ~PythonUnlocked() { end(); }

  void end() {
    if (!state_) return;
    PyThreadState* const state = std::exchange(state_, nullptr);
    try {
      PyEval_RestoreThread(state);
    } catch (const abi::__forced_unwind&) {
      while (true) pause();
    }
  }

 private:
  PyThreadState* state_;
};

bool python_copy(const char* data, Py_ssize_t size, std::string& out) {
  try {
    out.assign(data, static_cast<size_t>(size));
    return true;
  } catch (const std::exception&) {
    PyErr_NoMemory();
    return false;
  }
}

// UTF-8 of a str; a lone surrogate becomes U+FFFD. False: an exception is set.
bool python_text(PyObject* object, std::string& out) {
  if (PyBytes_Check(object)) return python_copy(PyBytes_AS_STRING(object), PyBytes_GET_SIZE(object), out);
  if (!PyUnicode_Check(object)) {
    PyErr_Format(PyExc_TypeError, "text must be str or bytes, not %s", Py_TYPE(object)->tp_name);
    return false;
  }
  Py_ssize_t size = 0;
  if (const char* utf8 = PyUnicode_AsUTF8AndSize(object, &size)) return python_copy(utf8, size, out);
  if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return false;
  PyErr_Clear();
  PyObject* utf16 = PyUnicode_AsEncodedString(object, "utf-16-le", "surrogatepass");
  if (!utf16) return false;
  int little = -1;
  PyObject* clean = PyUnicode_DecodeUTF16(PyBytes_AS_STRING(utf16), PyBytes_GET_SIZE(utf16), "replace", &little);
  Py_DECREF(utf16);
  if (!clean) return false;
  const char* utf8 = PyUnicode_AsUTF8AndSize(clean, &size);
  const bool copied = utf8 && python_copy(utf8, size, out);
  Py_DECREF(clean);
  return copied;
}

bool python_ids(PyObject* object, std::vector<int32_t>& out) {
  PyObject* sequence = PySequence_Fast(object, "token ids must be a sequence of int");
  if (!sequence) return false;
  const Py_ssize_t count = PySequence_Fast_GET_SIZE(sequence);
  try {
    out.reserve(static_cast<size_t>(count));
  } catch (const std::exception&) {
    PyErr_NoMemory();
  }
  for (Py_ssize_t i = 0; i < count && !PyErr_Occurred(); ++i) {
    PyObject* const item = PySequence_Fast_GET_ITEM(sequence, i);
    if (!PyIndex_Check(item)) {  // before 3.10, PyLong_AsLong takes fractions
      PyErr_Format(PyExc_TypeError, "a token id must be an integer, not %s", Py_TYPE(item)->tp_name);
      break;
    }
    const long id = PyLong_AsLong(item);
    if (id == -1 && PyErr_Occurred()) break;
    if (id < INT32_MIN || id > INT32_MAX) {
      PyErr_Format(PyExc_OverflowError, "token id %ld at index %zd does not fit in 32 bits", id, i);
      break;
    }
    out.push_back(static_cast<int32_t>(id));
  }
  Py_DECREF(sequence);
  return !PyErr_Occurred();
}

PyObject* python_list(const std::vector<int32_t>& ids) {
  PyObject* list = PyList_New(static_cast<Py_ssize_t>(ids.size()));
  for (size_t i = 0; list && i < ids.size(); ++i) {
    PyList_SET_ITEM(list, static_cast<Py_ssize_t>(i), PyLong_FromLong(ids[i]));
  }
  return list;
}

// Sets dsv.DsvError for the exception now being handled.
void python_throw() {
  const dsv::binding::Failure failure = dsv::binding::current_failure();
  PyObject* module = PyImport_ImportModule("dsv._error");
  if (!module) return;
  PyObject* type = PyObject_GetAttrString(module, "DsvError");
  Py_DECREF(module);
  if (!type) return;
  PyObject* arguments =
      Py_BuildValue("(iN)", static_cast<int>(failure.status),
                    PyUnicode_DecodeUTF8(failure.sentence.data(),
                                         static_cast<Py_ssize_t>(failure.sentence.size()), "replace"));
  if (arguments) PyErr_SetObject(type, arguments);
  Py_XDECREF(arguments);
  Py_DECREF(type);
}

}  // namespace
%}

%typemap(in) const std::string& (std::string text) {
  if (!python_text($input, text)) SWIG_fail;
  $1 = &text;
}
%typemap(in) std::string {
  if (!python_text($input, $1)) SWIG_fail;
}
%typemap(out) std::string {
  $result = PyUnicode_DecodeUTF8($1.data(), static_cast<Py_ssize_t>($1.size()), "replace");
}
%typemap(out) const std::string& {
  $result = PyUnicode_DecodeUTF8($1->data(), static_cast<Py_ssize_t>($1->size()), "replace");
}
%typemap(out) dsv::binding::Bytes {
  $result = PyBytes_FromStringAndSize($1.data.data(), static_cast<Py_ssize_t>($1.data.size()));
}
%typemap(in) const std::vector<int32_t>& (std::vector<int32_t> ids) {
  if (!python_ids($input, ids)) SWIG_fail;
  $1 = &ids;
}
%typemap(out) std::vector<int32_t> {
  $result = python_list($1);
}
%typemap(out) std::vector<float> {
  $result = PyBytes_FromStringAndSize(reinterpret_cast<const char*>($1.data()),
                                      static_cast<Py_ssize_t>($1.size() * sizeof(float)));
}

%exception {
  try {
    $action
  } catch (...) {
    python_throw();
    SWIG_fail;
  }
}

// Reading and writing fields never waits; dsv.i turns threads on again for the functions.
%nothread;
