// The native half of the Java, C# and Python bindings. Structs and constants come from dsv.h and the event from
// dsv.hpp as they stand there; functions are those of facade.h. <language>/typemaps.i says how text, token lists
// and errors cross.
%module Native

%{
#include "bindings/facade.h"
%}

%include <stdint.i>

// What GCC's attributes mean is nothing to a binding.
#define __attribute__(x)

// ------------------------------------------------------------------------------------------------ names

%rename(EngineOptions) dsv_engine_options;
%rename(ModelOptions) dsv_model_options;
%rename(GenerateOptions) dsv_generate_options;
%rename(ModelInfo) dsv_model_info;
%rename(MemoryPlan) dsv_memory_plan;
%rename(MemoryUse) dsv_memory_use;
%rename(LoadProgress) dsv_load_progress;
%rename(HandleCounts) dsv_handle_counts;
%rename(RawEvent) dsv::Event;
%rename("%(strip:[DSV_])s", %$isenumitem) "";
%rename("%(strip:[DSV_])s", %$isconstant) "";

// What stays behind: bookkeeping, raw pointers, and what needs code of the host to be called from native threads.
%ignore DSV_API;
%ignore DSV_DSV_H;
%ignore DSV_DSV_HPP;
%ignore DSV_NUL_TERMINATED;
%ignore *::struct_size;
%ignore *::reserved;
%ignore dsv_hooks;
%ignore dsv_event;
%ignore dsv_session_options;
%ignore dsv_string;
%ignore dsv_logit_bias;
%ignore dsv_token_logprob;
%ignore dsv_engine_options::hooks;
%ignore dsv_generate_options::stop;
%ignore dsv_generate_options::stop_count;
%ignore dsv_generate_options::logit_bias;
%ignore dsv_generate_options::logit_bias_count;
%ignore dsv::Event::Event;
%ignore dsv::Event::top;

// ------------------------------------------------------------------------------------------------ types

%apply bool {
  int32_t thinking, int32_t keep_thinking, int32_t ignore_eos, int32_t load_mtp, int32_t has_chat, int32_t has_mtp
}
%naturalvar std::string;

// Made by the library only.
%nodefaultctor dsv_model_info;
%nodefaultctor dsv_memory_plan;
%nodefaultctor dsv_memory_use;
%nodefaultctor dsv_load_progress;
%nodefaultctor dsv_handle_counts;

#if defined(SWIGJAVA)
%include "java/typemaps.i"
#elif defined(SWIGCSHARP)
%include "csharp/typemaps.i"
#elif defined(SWIGPYTHON)
%include "python/typemaps.i"
#endif

// ------------------------------------------------------------------------------------------------ options

// They are always the owners of facade.h, because hosts make them here only.
%define OPTIONS(type, owner)
%nodefaultctor type;
%nodefaultdtor type;
%extend type {
  type() { return new dsv::binding::owner; }
  ~type() { delete static_cast<dsv::binding::owner*>($self); }
}
%enddef
OPTIONS(dsv_engine_options, OwnedEngineOptions)
OPTIONS(dsv_model_options, OwnedModelOptions)
OPTIONS(dsv_generate_options, OwnedGenerateOptions)

%extend dsv_generate_options {
  // At most 16.
  void add_stop(const std::string& text) {
    dsv::binding::add_stop(static_cast<dsv::binding::OwnedGenerateOptions&>(*$self), text);
  }
  void add_logit_bias(int32_t token, float bias) {
    dsv::binding::add_logit_bias(static_cast<dsv::binding::OwnedGenerateOptions&>(*$self), token, bias);
  }
}
%extend dsv::Event {
  std::vector<int32_t> top_tokens() const {
    std::vector<int32_t> tokens;
    for (const dsv_token_logprob& top : $self->top) tokens.push_back(top.token);
    return tokens;
  }
  std::vector<float> top_logprobs() const {
    std::vector<float> logprobs;
    for (const dsv_token_logprob& top : $self->top) logprobs.push_back(top.logprob);
    return logprobs;
  }
}

// Text fields become attributes of type std::string.
%{
#define DSV_TEXT_ATTRIBUTE(type, owner, name)                              \
  static const std::string& type##_##name##_get(type* self) {              \
    return static_cast<dsv::binding::owner*>(self)->name##_text;           \
  }                                                                        \
  static void type##_##name##_set(type* self, const std::string& text) {   \
    auto* owned = static_cast<dsv::binding::owner*>(self);                 \
    dsv::binding::set_text(owned->name##_text, owned->name, text, #name);  \
  }
DSV_TEXT_ATTRIBUTE(dsv_engine_options, OwnedEngineOptions, backend)
DSV_TEXT_ATTRIBUTE(dsv_engine_options, OwnedEngineOptions, cpu_target)
DSV_TEXT_ATTRIBUTE(dsv_model_options, OwnedModelOptions, chat_profile)
%}
%extend dsv_engine_options {
  std::string backend;
  std::string cpu_target;
}
%extend dsv_model_options {
  std::string chat_profile;
}

// ------------------------------------------------------------------------------------------------ the headers

// After the languages' own renames, because the last rule wins.
%rename("$ignore", %$isvariable, match$type="p.q(const).char") "";
%rename("$ignore", regextarget=1, fullname=1) "^dsv::(?!Event$|Event::|calls$|calls::)";
%rename("$ignore", %$isfunction, %$not %$ismember, regextarget=1) "^dsv_";
%include "dsv/dsv.h"
%include "dsv/dsv.hpp"
%newobject dsv::calls::session_poll;
#ifdef SWIGPYTHON
%thread;
#endif
%include "facade.h"
