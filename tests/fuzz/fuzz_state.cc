// LDIM's state file, opened with the right key and rotten inside.
#include <cstdlib>

#include "nbdkit-ldim/writeback/state_file.h"
#include "tests/fuzz/fuzz_input.h"

using namespace dims;

std::vector<Bytes> fuzz_seeds() {
  ldim::LdimState state;
  state.image_name = "disk";
  state.mode = "personal";
  state.image_bytes = kGiB;
  state.base_record = Bytes(format::kVersionRecordBytes, 3);
  return {ldim::encode_state(state)};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto state = ldim::decode_state({data, size});
  if (state.ok() && !ldim::decode_state(ldim::encode_state(*state)).ok()) std::abort();
  return 0;
}
