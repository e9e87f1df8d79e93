// A disk as an array of pages that name what lies there, and the same disk as a sealed tree in
// memory.
#pragma once

#include <map>
#include <unordered_map>

#include "common/tree/editor.h"

namespace dims::test {

// What one page holds: a page of a chunk, or zeros (zero reference).
struct PageContent {
  format::Reference ref;
  std::uint16_t page_in_chunk = 0;
  friend bool operator==(const PageContent&, const PageContent&) = default;
};
using PageModel = std::map<std::uint64_t, PageContent>;  // absent = zeros

// Sealed nodes by id. Counts loads; refuses what it does not hold.
class MemoryNodes : public tree::NodeSource {
 public:
  Status load(std::span<const format::Reference> refs, const Sink& sink) override {
    ++calls;
    for (std::size_t i = 0; i < refs.size(); ++i) {
      const auto found = nodes.find(refs[i].id);
      if (found == nodes.end())
        return make_error(ErrorCode::kNotFound, "no node " + refs[i].id.short_hex());
      ++loads;
      DIMS_TRY(sink(i, found->second));
    }
    return ok_status();
  }
  std::unordered_map<ObjectId, Bytes, IdHash> nodes;
  std::size_t calls = 0;
  std::size_t loads = 0;
};

}  // namespace dims::test
