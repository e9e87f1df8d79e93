"""Seeded mutants of our own code: each breaks one promise, and a test must notice.

An entry: name, file, the text as it stands (once in the file), the text of the mutant, and the tests that
kill it, in order: (ctest program, Catch2 filter or ""). Read by scripts/mutants.
"""

JOURNAL = "nbdkit-ldim/journal/"
WRITE_BACK = "nbdkit-ldim/writeback/write_back.cc"
CATALOG = "rdim-server/catalog/"

VERSIONS = ("sim_versions", "")
NETWORK = ("sim_network", "")
WRITERS = ("sim_writers", "")
DAMAGE = ("sim_damage", "")
CATALOG_UNIT = ("test_catalog", "")

MUTANTS = [
    ("journal_skips_fdatasync", JOURNAL + "journal_flush.cc",
     "done = file->file().sync_data();", "done = file == nullptr ? file->file().sync_data() : ok_status();", [VERSIONS]),
    ("write_answered_before_lower_orders", JOURNAL + "journal_append.cc",
     "if (retired_order_ < placed.back().body.order)", "if (placed.empty())", [("test_journal", "")]),
    ("failed_sync_does_not_latch", JOURNAL + "journal_flush.cc",
     "if (!done.ok()) done = fail(done.error());", "done = ok_status();", [("test_journal", ""), ("fault_client", "")]),
    ("lost_seal_is_no_damage", JOURNAL + "recovery.cc",
     "if (refuse_damage && (newest_order < seen.synced_claim || newest_order < seen.trimmed.order))",
     "if (refuse_damage && newest_order < seen.trimmed.order)", [("test_journal", ""), DAMAGE]),
    ("journal_block_not_verified", JOURNAL + "segment.cc",
     "    if (!good) {\n      std::memset(out.data(), 0, out.size());",
     "    if (false) {\n      std::memset(out.data(), 0, out.size());", [("test_journal", ""), DAMAGE]),
    ("trim_mark_not_synced", JOURNAL + "journal_space.cc",
     "if (done.ok()) done = home->file().sync_data();", "", [("crash_journal", "")]),
    ("order_ignored_in_the_page_map", "nbdkit-ldim/pagemap/pending_map.cc",
     "if (it->second.order > node.order) {", "if (it->second.order > node.order + (1ull << 60)) {",
     [("test_journal", "*newest write*"), ("test_disk", "")]),
    ("cache_page_not_verified", "nbdkit-ldim/cache/cache_segment.cc",
     "tags.data() + i * crypto::kTagBytes, page)) {", "tags.data() + i * crypto::kTagBytes, page) && false) {",
     [("test_page_cache", "*flipped*"), DAMAGE]),
    ("state_file_renamed_before_its_sync", "common/io/file.cc",
     "    DIMS_TRY(file->sync_data());\n  }\n  DIMS_TRY(fs.rename", "  }\n  DIMS_TRY(fs.rename", [VERSIONS]),
    ("trim_before_commit", WRITE_BACK,
     "  const auto answer = parts_.remote.commit(order);",
     "  DIMS_TRY(parts_.journal.trim(through.epoch));\n  const auto answer = parts_.remote.commit(order);",
     [NETWORK]),
    ("state_recorded_before_the_answer", WRITE_BACK,
     "  const auto answer = parts_.remote.commit(order);",
     "  DIMS_TRY(parts_.state.update([&](LdimState& s) { s.committed = {through.journal, through.epoch, "
     "through.digest}; }));\n  const auto answer = parts_.remote.commit(order);", [NETWORK]),
    ("base_never_recorded", WRITE_BACK,
     "Status recorded = record_base();", "Status recorded = ok_status();", [VERSIONS]),
    ("open_epoch_committed_too", WRITE_BACK,
     "parts_.journal.records(state.committed.epoch, through.epoch);",
     "parts_.journal.records(state.committed.epoch, through.epoch + 1);", [VERSIONS]),
    ("page_map_forgets_newer_writes", WRITE_BACK,
     "parts_.pending.remove_through(done.last_order);", "parts_.pending.remove_through(done.last_order + 2);",
     [VERSIONS]),
    ("tree_keeps_old_leaves", WRITE_BACK,
     "advance(shape, done.touched);", "advance(shape, {});", [VERSIONS]),
    ("own_commit_not_recognised_by_the_client", "nbdkit-ldim/writeback/write_back_branch.cc",
     "      ours->digest == newest.record.commit.digest) {",
     "      ours->digest == newest.record.commit.digest && false) {", [NETWORK]),
    ("stale_lease_kept", WRITE_BACK,
     "if (error.code == ErrorCode::kStaleLease) parts_.lease.drop();", "", [WRITERS]),
    ("branch_from_the_head", "nbdkit-ldim/writeback/write_back_branch.cc",
     "branch.origin = origin;", "branch.origin = origin.is_zero() ? origin : home.head;", [WRITERS]),
    ("zeroed_ranges_taken_from_the_base", "nbdkit-ldim/writeback/commit_builder.cc",
     "    at = piece.range.end();\n  }\n  return from_base",
     "    if (piece.kind != WriteKind::kData) DIMS_TRY(from_base(piece.range.offset, piece.range.end()));\n"
     "    at = piece.range.end();\n  }\n  return from_base", [VERSIONS]),
    ("failed_fetch_read_as_zeros", "nbdkit-ldim/fetch/fetcher.cc",
     "if (error.code == ErrorCode::kCancelled || ++faults >= kServerFaultTries) return error;",
     "if (error.code == ErrorCode::kCancelled || ++faults >= kServerFaultTries) return ok_status();",
     [("fault_client", "a_failed_fetch*"), DAMAGE]),
    ("base_moves_under_unsent_writes", "nbdkit-ldim/disk/disk_session.cc",
     "  if (!unsent && online) {\n", "  if (online) {\n", [WRITERS]),
    ("restart_is_a_new_session", "nbdkit-ldim/disk/disk_session.cc",
     "const bool resumes = !anew && resumable();", "const bool resumes = !anew && resumable() && false;",
     [("test_disk", "")]),
    ("no_token_check", CATALOG + "leases.cc",
     "held.held() && held.lease == lease && image.record.token == token;",
     "held.held() && (held.lease == lease || image.record.token >= token);", [CATALOG_UNIT, WRITERS]),
    ("expired_lease_commits", CATALOG + "leases.cc",
     "if (ours && (even_expired || lease_is_live(image))) return ok_status();",
     "if (ours && (even_expired || !image.removed)) return ok_status();",
     [WRITERS]),
    ("lease_given_away_early", CATALOG + "leases.cc",
     "if (lease_is_live(*image) && !request.take_over) {",
     "if (lease_is_live(*image) && !request.take_over && image->record.token == 0) {", [WRITERS]),
    ("token_does_not_grow", CATALOG + "leases.cc",
     "  ++next.token;\n", "", [WRITERS]),
    ("no_parent_check", CATALOG + "commit.cc",
     "if (parent == image.record.head) return ok_status();",
     "if (parent == image.record.head || !image.removed) return ok_status();", [CATALOG_UNIT, WRITERS]),
    ("lost_reply_not_recognised_by_the_server", CATALOG + "commit.cc",
     "if (found->newest == record.commit) {", "if (found->newest == record.commit && record.sequence == 0) {",
     [CATALOG_UNIT]),
    ("commit_without_its_objects", CATALOG + "commit.cc",
     "if (!presence.missing.empty()) {", "if (presence.missing.size() > 1000000) {", [CATALOG_UNIT]),
    ("sweep_without_looking_at_the_touch_again", CATALOG + "collector.cc",
     "store_.remove_untouched(keys, touched_before_s_)", "store_.remove_untouched(keys, ~std::uint64_t{0})",
     [("fault_collect", "")]),
    ("lease_ends_at_a_restart", CATALOG + "catalog.cc",
     "const auto lease_ends = clock_.boottime() + options_.lease_term;",
     "const auto lease_ends = clock_.boottime();", [CATALOG_UNIT]),
]
