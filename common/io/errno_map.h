// errno <-> Error, the only place where they meet.
#pragma once

#include <string_view>

#include "common/base/result.h"

namespace dims::io {

// "what PATH: strerror".
Error errno_error(int errno_value, std::string_view what, std::string_view path);
// For nbdkit: the errno that a guest shall see.
int errno_of(const Error& error);

}  // namespace dims::io
