#include "rdim-server/stores/fast_crc32c.h"

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)

namespace dims::stores {
namespace {

using Extend = std::uint32_t (*)(std::uint32_t, const char*, std::size_t);

Extend extend_of_the_library() {
  void* const found = dlsym(RTLD_NEXT, "_ZN7rocksdb6crc32c6ExtendEjPKcm");
  if (found == nullptr) std::abort();  // linked against another RocksDB than it was built for
  return reinterpret_cast<Extend>(found);
}

__attribute__((target("sse4.2"))) std::uint32_t extend_by_instruction(std::uint32_t crc,
                                                                      const char* data,
                                                                      std::size_t size) {
  std::uint64_t state = crc ^ 0xffffffffU;
  for (; size >= 8; data += 8, size -= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, data, 8);
    state = __builtin_ia32_crc32di(state, word);
  }
  auto last = static_cast<std::uint32_t>(state);
  for (; size > 0; ++data, --size) {
    last = __builtin_ia32_crc32qi(last, static_cast<unsigned char>(*data));
  }
  return last ^ 0xffffffffU;
}

Extend chosen() {
  return __builtin_cpu_supports("sse4.2") != 0 ? extend_by_instruction : extend_of_the_library();
}

}  // namespace

bool fast_crc32c() { return chosen() == extend_by_instruction; }

}  // namespace dims::stores

namespace rocksdb::crc32c {

std::uint32_t Extend(std::uint32_t crc, const char* data, std::size_t size);
std::uint32_t Extend(std::uint32_t crc, const char* data, std::size_t size) {
  static const auto extend = dims::stores::chosen();
  return extend(crc, data, size);
}

}  // namespace rocksdb::crc32c

#else

namespace dims::stores {
bool fast_crc32c() { return false; }
}  // namespace dims::stores

#endif
