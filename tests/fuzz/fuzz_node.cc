// Tree nodes whose seal is right and whose content is hostile: the fuzzer writes the payload of a
// node.
#include <cstdlib>

#include "common/base/wire.h"
#include "common/format/node.h"
#include "tests/fuzz/fuzz_input.h"

using namespace dims;

namespace {

const format::DomainKey& key() {
  static const format::DomainKey instance(DomainId{}, 1, Secret32{});
  return instance;
}

}  // namespace

std::vector<Bytes> fuzz_seeds() {
  Bytes payload;
  Writer w(payload);
  w.u32(1);
  w.u16(3);
  w.u16(5);
  w.u16(0);
  w.u16(0);
  w.id(Secret32{});
  return {payload};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 64 * 1024) return 0;
  const format::TreeParameters parameters;
  const std::vector<format::ObjectKey> children = {{DomainId{}, ObjectId{}}};
  const auto leaf = format::seal_node(key(), format::ObjectKind::kLeaf, 1, children, {data, size});
  const auto decoded = format::decode_leaf(parameters, leaf.ref, leaf.bytes);
  if (decoded.ok()) {
    std::uint32_t free_from = 0;
    for (const format::Extent& e : decoded->extents) {
      if (e.first_page < free_from || e.page_count == 0 || e.end_page() > parameters.leaf_pages)
        std::abort();
      free_from = e.end_page();
    }
  }
  const auto inner =
      format::seal_node(key(), format::ObjectKind::kInner, 2, children, {data, size});
  const auto slots = format::decode_inner(parameters, 2, inner.ref, inner.bytes);
  if (slots.ok() && slots->slots.size() != parameters.fanout) std::abort();
  return 0;
}
