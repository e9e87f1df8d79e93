// Version records from a hostile server.
#include <cstdlib>

#include "common/format/version.h"
#include "tests/fuzz/fuzz_input.h"

using namespace dims;

std::vector<Bytes> fuzz_seeds() {
  format::VersionRecord record;
  record.image_bytes = kGiB;
  record.sequence = 1;
  return {format::encode_version(record, crypto::signing_key_from_seed(Secret32{}))};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Bytes good = fuzz_seeds().front();
  const ByteView bytes(data, size);
  const auto record = format::decode_version(bytes, false);
  if (record.ok() && (record->image_bytes == 0 || !format::check_parameters(record->tree).ok()))
    std::abort();
  // Nothing but the record that was signed passes with its signature.
  if (format::decode_version(bytes, true).ok() &&
      !std::equal(bytes.begin(), bytes.end(), good.begin(), good.end()))
    std::abort();
  return 0;
}
