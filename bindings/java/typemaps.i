// Java: text is String and crosses as UTF-8 bytes, ids are int[], floats float[]. Structs free themselves when
// collected; events are freed by whoever polled them.

%pragma(java) jniclassclassmodifiers="final class"
%pragma(java) moduleclassmodifiers="final class"
%pragma(java) jniclasscode=%{
  static {
    NativeLoader.load();
  }
%}

// Constants are literals of the header.
%javaconst(1);
%rename("%(lowercamelcase)s", %$isfunction) "";
%rename("%(lowercamelcase)s", %$isvariable) "";

// ------------------------------------------------------------------------------------------------ structs

%typemap(javaclassmodifiers) SWIGTYPE "public final class"
%typemap(javabody) SWIGTYPE %{
  private final long swigCPtr;

  $javaclassname(long cPtr, boolean own) {
    swigCPtr = cPtr;
    if (own) NativeLoader.CLEANER.register(this, () -> $imclassname.delete_$javaclassname(cPtr));
  }

  static long getCPtr($javaclassname object) {
    return object == null ? 0 : object.swigCPtr;
  }
%}
%typemap(javafinalize) SWIGTYPE ""
%typemap(javadestruct) SWIGTYPE ""

%typemap(javaclassmodifiers) dsv::Event "final class"
%typemap(javabody) dsv::Event %{
  private final long swigCPtr;

  $javaclassname(long cPtr, boolean own) {
    swigCPtr = cPtr;
  }
%}
%typemap(javadestruct, methodname="delete", methodmodifiers="", parameters="") dsv::Event {
    $jnicall;
  }

%apply long long { uint64_t seed };

// ------------------------------------------------------------------------------------------------ text, ids

%{
namespace {

// Throws ai.dsv.DsvException for the exception now being handled.
void java_throw(JNIEnv* env) {
  const dsv::binding::Failure failure = dsv::binding::current_failure();
  jclass type = env->FindClass("ai/dsv/DsvException");
  if (!type) return;
  const jmethodID make = env->GetMethodID(type, "<init>", "(I[B)V");
  if (!make) return;
  const auto size = static_cast<jsize>(failure.sentence.size());
  jbyteArray sentence = env->NewByteArray(size);
  if (!sentence) return;
  env->SetByteArrayRegion(sentence, 0, size, reinterpret_cast<const jbyte*>(failure.sentence.data()));
  auto* exception =
      static_cast<jthrowable>(env->NewObject(type, make, static_cast<jint>(failure.status), sentence));
  if (exception) env->Throw(exception);
}

jbyteArray java_bytes(JNIEnv* env, const std::string& text) {
  if (text.size() > INT32_MAX) {
    SWIG_JavaThrowException(env, SWIG_JavaOutOfMemoryError, "the text is larger than a Java array can be");
    return nullptr;
  }
  const auto size = static_cast<jsize>(text.size());
  jbyteArray bytes = env->NewByteArray(size);
  if (bytes) env->SetByteArrayRegion(bytes, 0, size, reinterpret_cast<const jbyte*>(text.data()));
  return bytes;
}

// False, with a Java exception pending, if there is no memory.
bool java_text(JNIEnv* env, jbyteArray bytes, std::string& text) try {
  text.resize(static_cast<size_t>(env->GetArrayLength(bytes)));
  env->GetByteArrayRegion(bytes, 0, static_cast<jsize>(text.size()), reinterpret_cast<jbyte*>(text.data()));
  return true;
} catch (...) {
  java_throw(env);
  return false;
}
bool java_ids(JNIEnv* env, jintArray array, std::vector<int32_t>& ids) try {
  ids.resize(static_cast<size_t>(env->GetArrayLength(array)));
  env->GetIntArrayRegion(array, 0, static_cast<jsize>(ids.size()), reinterpret_cast<jint*>(ids.data()));
  return true;
} catch (...) {
  java_throw(env);
  return false;
}

}  // namespace
%}

// Utf8.encode has refused null by the time these run.
%typemap(jni) std::string, const std::string& "jbyteArray"
%typemap(jtype) std::string, const std::string& "byte[]"
%typemap(jstype) std::string, const std::string& "String"
%typemap(javain) std::string, const std::string& "Utf8.encode($javainput, \"$javainput\")"
%typemap(javaout) std::string, const std::string& {
    return Utf8.decode($jnicall);
  }
%typemap(in) const std::string& (std::string text) {
  if (!java_text(jenv, $input, text)) return $null;
  $1 = &text;
}
%typemap(in) std::string %{
  if (!java_text(jenv, $input, $1)) return $null;
%}
%typemap(out) std::string %{ $result = java_bytes(jenv, $1); %}
%typemap(out) const std::string& %{ $result = java_bytes(jenv, *$1); %}

%typemap(jni) dsv::binding::Bytes "jbyteArray"
%typemap(jtype) dsv::binding::Bytes "byte[]"
%typemap(jstype) dsv::binding::Bytes "byte[]"
%typemap(javaout) dsv::binding::Bytes {
    return $jnicall;
  }
%typemap(out) dsv::binding::Bytes %{ $result = java_bytes(jenv, $1.data); %}

%typemap(jni) std::vector<int32_t>, const std::vector<int32_t>& "jintArray"
%typemap(jtype) std::vector<int32_t>, const std::vector<int32_t>& "int[]"
%typemap(jstype) std::vector<int32_t>, const std::vector<int32_t>& "int[]"
%typemap(javain) const std::vector<int32_t>& "java.util.Objects.requireNonNull($javainput, \"$javainput is null\")"
%typemap(javaout) std::vector<int32_t> {
    return $jnicall;
  }
%typemap(in) const std::vector<int32_t>& (std::vector<int32_t> ids) {
  if (!java_ids(jenv, $input, ids)) return $null;
  $1 = &ids;
}
%typemap(out) std::vector<int32_t> {
  const auto size = static_cast<jsize>($1.size());
  $result = jenv->NewIntArray(size);
  if ($result) jenv->SetIntArrayRegion($result, 0, size, reinterpret_cast<const jint*>($1.data()));
}

%typemap(jni) std::vector<float> "jfloatArray"
%typemap(jtype) std::vector<float> "float[]"
%typemap(jstype) std::vector<float> "float[]"
%typemap(javaout) std::vector<float> {
    return $jnicall;
  }
%typemap(out) std::vector<float> {
  if ($1.size() > INT32_MAX) {
    SWIG_JavaThrowException(jenv, SWIG_JavaOutOfMemoryError, "more floats than a Java array can hold: ask for fewer rows");
    return $null;
  }
  const auto size = static_cast<jsize>($1.size());
  $result = jenv->NewFloatArray(size);
  if ($result) jenv->SetFloatArrayRegion($result, 0, size, $1.data());
}

%exception {
  try {
    $action
  } catch (...) {
    java_throw(jenv);
    return $null;
  }
}
