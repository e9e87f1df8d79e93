// Objects from a hostile server: parsed and, with the right key, opened. What opens must be whole
// pages.
#include <cstdlib>

#include "common/format/object.h"
#include "tests/fuzz/fuzz_input.h"

using namespace dims;

namespace {

const format::DomainKey& key() {
  static const format::DomainKey instance(DomainId{}, 1, Secret32{});
  return instance;
}

const format::SealedObject& sealed() {
  static const format::SealedObject instance = format::seal_chunk(key(), Bytes(2 * kPageBytes, 7));
  return instance;
}

}  // namespace

std::vector<Bytes> fuzz_seeds() {
  return {sealed().bytes, format::seal_chunk(key(), Bytes(kPageBytes, 1), false).bytes};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteView object(data, size);
  const auto head = format::parse_head(object);
  if (head.ok() && (head->payload_bytes > size || head->children.size() > format::kMaxChildren))
    std::abort();
  // The id is not checked, so that the bytes behind it are reached.
  const auto opened = format::open_object(sealed().ref, object, false);
  if (opened.ok() && opened->size() % kPageBytes != 0) std::abort();
  return 0;
}
