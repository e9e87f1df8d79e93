#include "image-tools/transfer/node_prefetch.h"

namespace dims::transfer {

Status PrefetchingNodes::load(std::span<const format::Reference> refs, const Sink& sink) {
  for (std::size_t i = 0; i < refs.size(); ++i) {
    DIMS_ASSIGN(Bytes node, take(refs[i].object_key()));
    DIMS_TRY(bring_children(node));
    DIMS_TRY(sink(i, std::move(node)));
  }
  return ok_status();
}

Result<Bytes> PrefetchingNodes::take(const format::ObjectKey& key) {
  for (Nodes& nodes : levels_) {
    if (const auto found = nodes.find(key); found != nodes.end()) return found->second;
  }
  std::optional<Result<Bytes>> got;
  DIMS_TRY(remote_.get(image_, {&key, 1}, contract::Priority::kPrefetch,
                       [&](std::size_t, Result<Bytes> object) { got = std::move(object); }));
  if (!got) return make_error(ErrorCode::kInternal, "the server gave no answer for a tree node");
  return *got;
}

Status PrefetchingNodes::bring_children(ByteView node) {
  DIMS_ASSIGN(const format::ObjectHead head, format::parse_head(node));
  if (head.kind != format::ObjectKind::kInner || head.children.empty()) return ok_status();
  const std::size_t level = head.level - 1U;
  if (levels_.size() <= level) levels_.resize(level + 1);
  Nodes& nodes = levels_[level];
  nodes.clear();
  // A child that cannot be had is an error only when somebody asks for it.
  return remote_.get(image_, head.children, contract::Priority::kPrefetch,
                     [&](std::size_t i, Result<Bytes> object) {
                       if (object.ok())
                         nodes.insert_or_assign(head.children[i], std::move(object).value());
                     });
}

}  // namespace dims::transfer
