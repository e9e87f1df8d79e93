// Builds the tree of the next version from the journal records of whole epochs: only pages that
// they touch are cut anew; only leaves above those and their parents are sealed anew.
//
// Threads: one call at a time, on the caller's thread. Units: pages. Errors: as journal, reader and
// uploader give them. Durable: nothing.
#pragma once

#include <functional>
#include <vector>

#include "common/tree/cutter.h"
#include "common/tree/editor.h"
#include "common/tree/uploader.h"
#include "nbdkit-ldim/fetch/reader.h"
#include "nbdkit-ldim/journal/journal.h"

namespace dims::ldim {

struct CommitParts {
  Journal& journal;
  BaseReader& reader;
  Fetcher& fetcher;
  PageCache& cache;
  const format::DomainKey& domain_key;
  const tree::Cutter& cutter;
  tree::Uploader& uploader;
  bool compress = true;
};

struct BuiltCommit {
  format::Reference root;
  std::vector<PageRange> touched;
  std::uint64_t pages = 0;  // cut anew
  std::uint64_t chunks = 0;
  std::uint64_t nodes = 0;
};

Result<BuiltCommit> build_commit(const CommitParts& parts,
                                 const std::vector<JournalRecord>& records);

}  // namespace dims::ldim
