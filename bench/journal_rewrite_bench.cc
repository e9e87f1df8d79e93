// The same pages again and again with no server: how much room, what merging writes, how long the
// next start takes. Usage: journal_rewrite_bench FOLDER [MiB rewritten] [limit MiB] [rounds]
// Not built by default: ninja journal_rewrite_bench.
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "nbdkit-ldim/pagemap/tidy.h"

using namespace dims;
using namespace dims::ldim;

namespace {

double seconds_since(std::chrono::steady_clock::time_point from) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
}

int fail(const Error& error) {
  std::fprintf(stderr, "%s\n", error.to_string().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: journal_rewrite_bench FOLDER [MiB] [limit MiB] [rounds]\n");
    return 2;
  }
  const auto number = [&](int index, long otherwise) {
    return static_cast<std::uint64_t>(argc > index ? std::atol(argv[index]) : otherwise);
  };
  const std::uint64_t pages = number(2, 256) * kMiB / kPageBytes;
  const std::uint64_t rounds = number(4, 6);
  JournalOptions options;
  options.folder = argv[1];
  options.limit_bytes = number(3, 1024) * kMiB;
  auto opened = Journal::open(io::posix_file_system(), options, system_clock(), system_random());
  if (!opened.ok()) return fail(opened.error());
  Journal& journal = **opened;
  PendingMap pending;
  JournalTidy tidy(journal, pending);
  tidy.start();
  SeededRandom random(1);
  const Bytes data(kPageBytes, 7);
  std::uint64_t peak = 0;
  std::uint64_t waits = 0;
  const auto began = std::chrono::steady_clock::now();
  for (std::uint64_t i = 0; i < pages * rounds; ++i) {
    // Once in order, so that all is there; then wildly.
    const std::uint64_t page = i < pages ? i : random.below(pages);
    for (;;) {
      const auto records = journal.append(WriteKind::kData, {page * kPageBytes, kPageBytes}, data);
      if (records.ok()) {
        for (const auto& record : *records) pending.insert(record);
        break;
      }
      if (records.error().code != ErrorCode::kNoSpace) return fail(records.error());
      ++waits;
      const auto freed = tidy.run_once(true);
      if (!freed.ok()) return fail(freed.error());
      if (!*freed) return fail(records.error());
    }
    if (i % 4096 == 0) {
      if (const auto sealed = journal.flush(); !sealed.ok()) return fail(sealed.error());
    }
    if (i % 256 == 0) peak = std::max(peak, journal.stats().bytes);
  }
  const double wrote = seconds_since(began);
  tidy.stop();
  if (const auto sealed = journal.flush(); !sealed.ok()) return fail(sealed.error());
  const JournalStats stats = journal.stats();
  std::printf("%llu MiB written over %llu MiB in %.1f s, waited %llu times\n",
              static_cast<unsigned long long>(pages * rounds * kPageBytes / kMiB),
              static_cast<unsigned long long>(pages * kPageBytes / kMiB), wrote,
              static_cast<unsigned long long>(waits));
  std::printf("journal: at most %llu MiB, at the end %llu MiB, %llu merges\n",
              static_cast<unsigned long long>(peak / kMiB),
              static_cast<unsigned long long>(stats.bytes / kMiB),
              static_cast<unsigned long long>(stats.merges));
  opened->reset();
  auto again = Journal::open(io::posix_file_system(), options, system_clock(), system_random());
  if (!again.ok()) return fail(again.error());
  std::printf("next start: %llu records in %.2f s\n",
              static_cast<unsigned long long>((*again)->stats().recovered_records),
              (*again)->stats().recovery_seconds);
  return 0;
}
