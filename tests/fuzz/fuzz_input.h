// What every fuzz target has: the entry point that libFuzzer and the replay call, and good inputs
// to start from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/base/bytes.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

// Valid inputs of this target; mutations start from them.
std::vector<dims::Bytes> fuzz_seeds();
