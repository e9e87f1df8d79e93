// Appends a second: journal_bench FOLDER [threads] [bytes a write] [appends] [flush every]
// Not built by default: ninja journal_bench.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "common/io/memory_file.h"
#include "nbdkit-ldim/journal/journal.h"

using namespace dims;
using namespace dims::ldim;

namespace {

double seconds_since(std::chrono::steady_clock::time_point from) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr,
                 "usage: journal_bench FOLDER|memory [threads] [bytes] [appends] [flush every]\n");
    return 2;
  }
  const auto number = [&](int index, long otherwise) {
    return argc > index ? std::atol(argv[index]) : otherwise;
  };
  const auto threads = static_cast<std::size_t>(number(2, 1));
  const auto bytes = static_cast<std::size_t>(number(3, 4096));
  const auto appends = static_cast<std::size_t>(number(4, 200000));
  const auto flush_every = static_cast<std::size_t>(number(5, 0));

  io::MemoryFileSystem memory;
  const bool in_memory = std::string(argv[1]) == "memory";
  io::FileSystem& fs = in_memory ? static_cast<io::FileSystem&>(memory) : io::posix_file_system();
  JournalOptions options;
  options.folder = in_memory ? "/journal" : argv[1];
  options.limit_bytes = 16 * kGiB;
  auto opened = Journal::open(fs, options, system_clock(), system_random());
  if (!opened.ok()) {
    std::fprintf(stderr, "%s\n", opened.error().to_string().c_str());
    return 1;
  }
  Journal& journal = **opened;
  std::printf("recovered %llu records in %.3f s\n",
              static_cast<unsigned long long>(journal.stats().recovered_records),
              journal.stats().recovery_seconds);

  std::atomic<bool> bad{false};
  std::vector<JournalRecord> some;
  const auto began = std::chrono::steady_clock::now();
  std::vector<std::thread> workers;
  for (std::size_t t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      const Bytes data(bytes, static_cast<std::uint8_t>(t + 1));
      std::uint64_t at = t * 7919 * 4096;
      for (std::size_t i = 0; i < appends / threads; ++i) {
        at =
            (at * 6364136223846793005ULL + 1442695040888963407ULL) & ((std::uint64_t{1} << 36) - 1);
        auto records = journal.append(WriteKind::kData, {at / 4096 * 4096, bytes}, data);
        if (!records.ok())
          bad = true;
        else if (t == 0 && some.size() < 50000)
          some.push_back(records->front());
        if (flush_every != 0 && i % flush_every == flush_every - 1 && !journal.flush().ok())
          bad = true;
      }
    });
  }
  for (auto& worker : workers) worker.join();
  const double append_seconds = seconds_since(began);
  std::printf("%zu threads, %zu bytes: %.0f appends/s, %.1f MiB/s%s\n", threads, bytes,
              static_cast<double>(appends) / append_seconds,
              static_cast<double>(appends * bytes) / append_seconds / 1048576.0,
              bad ? " (WITH ERRORS)" : "");

  const auto flushing = std::chrono::steady_clock::now();
  (void)journal.flush();
  std::printf("last flush %.3f s\n", seconds_since(flushing));
  Bytes out(std::min<std::size_t>(bytes, 4096));
  const auto reading = std::chrono::steady_clock::now();
  for (const JournalRecord& record : some) {
    if (!journal.read(record.location, record.range, record.range.offset, out).ok()) bad = true;
  }
  std::printf("%.0f reads/s of %zu bytes\n",
              static_cast<double>(some.size()) / seconds_since(reading), out.size());
  const auto commit = journal.synced();
  const auto trimming = std::chrono::steady_clock::now();
  if (std::getenv("KEEP") == nullptr && !journal.trim(commit.epoch).ok()) bad = true;
  std::printf("trim %.3f s%s\n", seconds_since(trimming), bad ? " (ERRORS)" : "");
  return bad ? 1 : 0;
}
