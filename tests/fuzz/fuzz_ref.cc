// The server's ref records, as a broken store may give them back. The first byte says which.
#include <cstdlib>

#include "rdim-server/catalog/records.h"
#include "tests/fuzz/fuzz_input.h"

using namespace dims;

std::vector<Bytes> fuzz_seeds() {
  catalog::ImageRecord image;
  image.id.bytes.fill(1);
  image.name = "disk";
  image.image_bytes = kGiB;
  image.domain.bytes.fill(2);
  image.base_domains.resize(1);
  image.journals.resize(2);
  image.lease.lease.bytes.fill(3);
  image.lease.machine_name = "pc";
  catalog::SessionRecord session;
  session.mode = "personal";
  session.machine_name = "pc";
  Bytes first = catalog::encode_image(image);
  Bytes second = catalog::encode_session(session);
  first.insert(first.begin(), 0);
  second.insert(second.begin(), 1);
  return {first, second};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const ByteView bytes(data + 1, size - 1);
  if (data[0] % 2 == 0) {
    const auto image = catalog::decode_image(bytes);
    if (image.ok() && !catalog::decode_image(catalog::encode_image(*image)).ok()) std::abort();
  } else {
    const auto session = catalog::decode_session(bytes);
    if (session.ok() && !catalog::decode_session(catalog::encode_session(*session)).ok())
      std::abort();
  }
  return 0;
}
