#pragma once

#include <string>
#include <string_view>

namespace cli {

// The value of an expression of numbers, + - * / % ^ and parentheses, as text: "56088", "2.5". Throws
// std::runtime_error with a short reason.
std::string calculate(std::string_view expression);

}  // namespace cli
