// C#: text is string and crosses as UTF-8 bytes, ids are int[], floats float[]. Nothing native ever calls managed code,
// so that ahead-of-time compilers (IL2CPP) need nothing special: what failed waits in the thread until the managed half
// has asked for it, right after the call. bindings/CMakeLists.txt turns SWIG's own callbacks off.

%pragma(csharp) moduleclassmodifiers="internal static class"
%pragma(csharp) imclassclassmodifiers="internal static class"

// Constants are literals of the header.
%csconst(1);
%rename("%(camelcase)s", %$isfunction) "";
%rename("%(camelcase)s", %$isvariable) "";

// ------------------------------------------------------------------------------------------------ failures

%insert(runtime) %{
static void csharp_refuse(const char* sentence);
#define SWIG_CSharpSetPendingException(code, sentence) csharp_refuse(sentence)
#define SWIG_CSharpSetPendingExceptionArgument(code, sentence, name) csharp_refuse(sentence)
%}

%{
namespace {

thread_local bool csharp_failed = false;
thread_local dsv::binding::Failure csharp_failure;

void csharp_keep(dsv::binding::Failure failure) {
  csharp_failed = true;
  csharp_failure = std::move(failure);
}

// A block for dsv_csharp_free: the size as int64_t, then the bytes. NULL if there are none.
void* csharp_block(const void* data, size_t size) {
  if (size == 0) return nullptr;
  auto* block = static_cast<char*>(malloc(sizeof(int64_t) + size));
  if (!block) {
    csharp_keep({DSV_ERROR_OUT_OF_MEMORY, "the machine has no memory left for this answer: ask for less at once"});
    return nullptr;
  }
  const auto size64 = static_cast<int64_t>(size);
  memcpy(block, &size64, sizeof size64);
  memcpy(block + sizeof size64, data, size);
  return block;
}

// False, with the failure kept, if there is no memory.
bool csharp_text(const void* counted, std::string& text) try {
  int32_t size = 0;
  memcpy(&size, counted, sizeof size);
  text.assign(static_cast<const char*>(counted) + sizeof size, static_cast<size_t>(size));
  return true;
} catch (...) {
  csharp_keep(dsv::binding::current_failure());
  return false;
}
bool csharp_ids(const void* counted, std::vector<int32_t>& ids) try {
  const auto* numbers = static_cast<const int32_t*>(counted);
  ids.assign(numbers + 1, numbers + 1 + numbers[0]);
  return true;
} catch (...) {
  csharp_keep(dsv::binding::current_failure());
  return false;
}

}  // namespace

static void csharp_refuse(const char* sentence) { csharp_keep({DSV_ERROR_INVALID_ARGUMENT, sentence}); }

extern "C" SWIGEXPORT int32_t SWIGSTDCALL dsv_csharp_failed() { return csharp_failed ? 1 : 0; }
extern "C" SWIGEXPORT int32_t SWIGSTDCALL dsv_csharp_failure_status() { return csharp_failure.status; }
extern "C" SWIGEXPORT void* SWIGSTDCALL dsv_csharp_take_failure() {
  csharp_failed = false;
  return csharp_block(csharp_failure.sentence.data(), csharp_failure.sentence.size());
}
extern "C" SWIGEXPORT void SWIGSTDCALL dsv_csharp_free(void* block) { free(block); }
%}

// The names are those that SWIG's typemaps look for.
%pragma(csharp) imclasscode=%{
  [global::System.Runtime.InteropServices.DllImport("$dllimport")]
  private static extern int dsv_csharp_failed();
  [global::System.Runtime.InteropServices.DllImport("$dllimport")]
  private static extern int dsv_csharp_failure_status();
  [global::System.Runtime.InteropServices.DllImport("$dllimport")]
  private static extern global::System.IntPtr dsv_csharp_take_failure();
  [global::System.Runtime.InteropServices.DllImport("$dllimport", EntryPoint="dsv_csharp_free")]
  internal static extern void FreeBlock(global::System.IntPtr block);

  internal static class SWIGPendingException {
    internal static bool Pending {
      get { return dsv_csharp_failed() != 0; }
    }

    internal static DsvException Retrieve() {
      var status = (Status)dsv_csharp_failure_status();
      return new DsvException(status, Blocks.TakeText(dsv_csharp_take_failure()));
    }
  }
%}

%feature("except", canthrow="1") {
  try {
    $action
  } catch (...) {
    csharp_keep(dsv::binding::current_failure());
    return $null;
  }
}

// ------------------------------------------------------------------------------------------------ structs

// They free themselves when collected, in any order; events are freed by whoever polled them.
%typemap(csclassmodifiers) SWIGTYPE "public class"
%typemap(csinterfaces) SWIGTYPE ""
%typemap(csbody) SWIGTYPE %{
  private readonly global::System.Runtime.InteropServices.HandleRef swigCPtr;
  private readonly bool swigCMemOwn;

  internal $csclassname(global::System.IntPtr cPtr, bool cMemoryOwn) {
    swigCPtr = new global::System.Runtime.InteropServices.HandleRef(this, cPtr);
    swigCMemOwn = cMemoryOwn;
  }

  internal static global::System.Runtime.InteropServices.HandleRef getCPtr($csclassname obj) {
    return obj == null ? new global::System.Runtime.InteropServices.HandleRef(null, global::System.IntPtr.Zero) : obj.swigCPtr;
  }
%}
%typemap(csdispose) SWIGTYPE %{
  ~$csclassname() {
    if (swigCMemOwn) Delete();
  }
%}
%typemap(csdisposing, methodname="Delete", methodmodifiers="internal", parameters="") SWIGTYPE {
    $imcall;
  }

%typemap(csclassmodifiers) dsv::Event "internal class"
%typemap(csbody) dsv::Event %{
  private readonly global::System.Runtime.InteropServices.HandleRef swigCPtr;

  internal $csclassname(global::System.IntPtr cPtr, bool cMemoryOwn) {
    swigCPtr = new global::System.Runtime.InteropServices.HandleRef(this, cPtr);
  }
%}
%typemap(csdispose) dsv::Event ""
%typemap(csdisposing, methodname="Delete", methodmodifiers="internal", parameters="") dsv::Event {
    $imcall;
  }

%define CSHARP_ENUM(field, type)
%typemap(cstype) int32_t field "type"
%typemap(csin) int32_t field "(int)$csinput"
%typemap(csvarout, excode=SWIGEXCODE2) int32_t field %{
    get {
      var ret = (type)$imcall;$excode
      return ret;
    } %}
%enddef
CSHARP_ENUM(precision, Precision)
CSHARP_ENUM(schedule, Schedule)
CSHARP_ENUM(tool_choice, ToolChoice)
CSHARP_ENUM(state, LoadState)

// ------------------------------------------------------------------------------------------------ text, ids

// In: bytes behind their count. Out: a block.
%typemap(ctype) std::string, const std::string& "void*"
%typemap(imtype, out="global::System.IntPtr") std::string, const std::string& "byte[]"
%typemap(cstype) std::string, const std::string& "string"
%typemap(csin) std::string, const std::string& "Blocks.FromText($csinput, \"$csinput\")"
%typemap(in) const std::string& (std::string text) {
  if (!csharp_text($input, text)) return $null;
  $1 = &text;
}
%typemap(in) std::string %{
  if (!csharp_text($input, $1)) return $null;
%}
%typemap(out) std::string %{ $result = csharp_block($1.data(), $1.size()); %}
%typemap(out) const std::string& %{ $result = csharp_block($1->data(), $1->size()); %}
%typemap(csout, excode=SWIGEXCODE) std::string, const std::string& {
    var ret = Blocks.TakeText($imcall);$excode
    return ret;
  }
%typemap(csvarin, excode=SWIGEXCODE2) std::string, const std::string& %{
    set {
      $imcall;$excode
    } %}
%typemap(csvarout, excode=SWIGEXCODE2) std::string, const std::string& %{
    get {
      var ret = Blocks.TakeText($imcall);$excode
      return ret;
    } %}

%typemap(ctype) const std::vector<int32_t>& "void*"
%typemap(imtype) const std::vector<int32_t>& "int[]"
%typemap(cstype) const std::vector<int32_t>& "int[]"
%typemap(csin) const std::vector<int32_t>& "Blocks.FromIds($csinput, \"$csinput\")"
%typemap(in) const std::vector<int32_t>& (std::vector<int32_t> ids) {
  if (!csharp_ids($input, ids)) return $null;
  $1 = &ids;
}

%define CSHARP_BLOCK(type, element, take)
%typemap(ctype) type "void*"
%typemap(imtype) type "global::System.IntPtr"
%typemap(cstype) type "element"
%typemap(csout, excode=SWIGEXCODE) type {
    var ret = Blocks.take($imcall);$excode
    return ret;
  }
%enddef
CSHARP_BLOCK(std::vector<int32_t>, int[], TakeIds)
CSHARP_BLOCK(std::vector<float>, float[], TakeFloats)
CSHARP_BLOCK(dsv::binding::Bytes, byte[], TakeBytes)
%typemap(out) std::vector<int32_t> %{ $result = csharp_block($1.data(), $1.size() * sizeof(int32_t)); %}
%typemap(out) std::vector<float> %{ $result = csharp_block($1.data(), $1.size() * sizeof(float)); %}
%typemap(out) dsv::binding::Bytes %{ $result = csharp_block($1.data.data(), $1.data.size()); %}
