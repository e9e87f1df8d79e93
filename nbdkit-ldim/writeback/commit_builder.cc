#include "nbdkit-ldim/writeback/commit_builder.h"

#include <algorithm>

#include "nbdkit-ldim/pagemap/pending_map.h"

namespace dims::ldim {
namespace {

constexpr std::uint64_t kStepPages = 1024;  // 4 MiB assembled at a time
constexpr unsigned kOwnChunkLives = 1;  // what this machine wrote is likely to be read here again

// The pages as the epochs left them: the newest record wins; what none covers comes from the base.
Status assemble(const CommitParts& parts, const PendingMap& frozen, std::uint64_t disk_bytes,
                PageRange pages, Bytes& out) {
  const ByteRange range{pages.first * kPageBytes, pages.count * kPageBytes};
  out.assign(static_cast<std::size_t>(range.count), 0);
  const auto pieces = frozen.lookup(range);
  const auto from_base = [&](std::uint64_t from, std::uint64_t to) -> Status {
    to = std::min(to, disk_bytes);
    if (from >= to) return ok_status();
    return parts.reader.read({from, to - from}, out.data() + (from - range.offset),
                             FetchWait::kDoNotWait, nullptr);
  };
  std::uint64_t at = range.offset;
  for (const PendingPiece& piece : pieces) {
    if (piece.range.offset > at) DIMS_TRY(from_base(at, piece.range.offset));
    if (piece.kind == WriteKind::kData) {
      DIMS_TRY(parts.journal.read(
          piece.location, piece.record_range, piece.range.offset,
          MutByteView(out).subspan(static_cast<std::size_t>(piece.range.offset - range.offset),
                                   static_cast<std::size_t>(piece.range.count))));
    }
    at = piece.range.end();
  }
  return from_base(at, range.end());
}

// A discard of a whole disk need not be assembled to be found empty.
bool all_cleared(const PendingMap& frozen, std::uint64_t disk_bytes, PageRange pages) {
  const std::uint64_t first = pages.first * kPageBytes;
  const std::uint64_t end = std::min(pages.end() * kPageBytes, disk_bytes);
  std::uint64_t at = first;
  for (const PendingPiece& piece : frozen.lookup({first, end - first})) {
    if (piece.range.offset != at || piece.kind == WriteKind::kData) return false;
    at = piece.range.end();
  }
  return at == end;
}

}  // namespace

Result<BuiltCommit> build_commit(const CommitParts& parts,
                                 const std::vector<JournalRecord>& records) {
  PendingMap frozen;
  for (const JournalRecord& record : records) frozen.insert(record);
  BuiltCommit built;
  built.touched = frozen.touched_pages();
  const tree::TreeShape shape = parts.reader.tree().shape();
  FetchedNodes nodes(parts.fetcher, contract::Priority::kWriteBack, FetchWait::kDoNotWait);
  tree::TreeEditor editor(shape, parts.domain_key, nodes, [&](format::SealedObject node) -> Status {
    ++built.nodes;
    parts.fetcher.keep_node(node.ref.id, node.bytes);
    return parts.uploader.add(std::move(node));
  });
  Bytes content;
  for (const PageRange run : built.touched) {
    for (std::uint64_t at = run.first; at < run.end(); at += kStepPages) {
      const PageRange step{at, std::min(kStepPages, run.end() - at)};
      if (all_cleared(frozen, shape.image_bytes, step)) {
        DIMS_TRY(editor.replace(step, {}));
        built.pages += step.count;
        continue;
      }
      DIMS_TRY(assemble(parts, frozen, shape.image_bytes, step, content));
      std::vector<tree::PlacedExtent> extents;
      for (const PageRange chunk : parts.cutter.cut(content)) {
        const ByteView pages =
            ByteView(content).subspan(static_cast<std::size_t>(chunk.first * kPageBytes),
                                      static_cast<std::size_t>(chunk.count * kPageBytes));
        format::SealedObject sealed = format::seal_chunk(parts.domain_key, pages, parts.compress);
        (void)parts.cache.insert(sealed.ref.id, pages, kOwnChunkLives).ok();
        extents.push_back({step.first + chunk.first, chunk.count, 0, sealed.ref});
        ++built.chunks;
        DIMS_TRY(parts.uploader.add(std::move(sealed)));
      }
      built.pages += step.count;
      DIMS_TRY(editor.replace(step, extents));
    }
  }
  DIMS_ASSIGN(built.root, editor.finish());
  return built;
}

}  // namespace dims::ldim
