// The markers of the V3.2 chat format. Whether a tokenizer has them as added tokens or spells them out, in
// text they are the same bytes.
#pragma once

#include <string_view>

namespace dsv::markers {

inline constexpr std::string_view kBos = "<｜begin▁of▁sentence｜>";
inline constexpr std::string_view kEos = "<｜end▁of▁sentence｜>";
inline constexpr std::string_view kUser = "<｜User｜>";
inline constexpr std::string_view kAssistant = "<｜Assistant｜>";
inline constexpr std::string_view kThink = "<think>";
inline constexpr std::string_view kEndThink = "</think>";

// Tool calls. An opening tag's attributes follow its marker.
inline constexpr std::string_view kDsml = "｜DSML｜";
inline constexpr std::string_view kCallsStart = "\n\n<｜DSML｜function_calls";
inline constexpr std::string_view kCalls = "<｜DSML｜function_calls";
inline constexpr std::string_view kEndCalls = "</｜DSML｜function_calls>";
inline constexpr std::string_view kInvoke = "<｜DSML｜invoke";
inline constexpr std::string_view kEndInvoke = "</｜DSML｜invoke>";
inline constexpr std::string_view kParameter = "<｜DSML｜parameter";
inline constexpr std::string_view kEndParameter = "</｜DSML｜parameter>";

}  // namespace dsv::markers
