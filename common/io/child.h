// Runs a function in a child process and brings its answer back, for what must not happen in a
// process that forks later (gRPC), or whose memory must not stay (open keys).
//
// Threads: call it before there are any. Ownership: the child has copies of everything and ends
// without running destructors. Errors: those of the body; kInternal if the child died or its answer
// is longer than kChildAnswerBytesMax. Durable: nothing.
#pragma once

#include <functional>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace dims::io {

inline constexpr std::size_t kChildAnswerBytesMax = 256 * 1024;

Result<Bytes> run_in_child(const std::function<Result<Bytes>()>& body);

}  // namespace dims::io
