// What sessions and the ABI need of lib/text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/host.h"
#include "session/generate_options.h"

namespace dsv {

class Tokenizer;

// `path` names the file in messages. Throws INVALID_FILE or UNSUPPORTED.
std::shared_ptr<const Tokenizer> open_tokenizer(const HostFile& file, const std::string& path);
bool has_token(const Tokenizer& tokenizer, int32_t id);

// The prompt of {"messages": ...} as tokens. Throws INVALID_ARGUMENT for a malformed request and UNSUPPORTED
// for what the profile cannot do, by name.
std::vector<int32_t> encode_prompt(const Tokenizer& tokenizer, bool speciale, std::string_view request_json,
                                   const GenerateOptions& options);

}  // namespace dsv
