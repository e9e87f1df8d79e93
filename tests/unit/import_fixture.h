// Disks in memory, and what the tests of import and export share.
#pragma once

#include <catch2/catch.hpp>

#include <map>
#include <mutex>

#include "image-tools/media/source.h"
#include "image-tools/media/target.h"
#include "image-tools/transfer/exporter.h"
#include "image-tools/transfer/importer.h"
#include "tests/support/fake_remote.h"
#include "tests/support/seed.h"

namespace dims::test {

// A sparse disk: pages that hold something. Pages beyond count as zeros; the last one may be partly
// beyond.
struct MemoryDisk {
  std::uint64_t bytes = 0;
  std::map<std::uint64_t, Bytes> pages;
  std::uint64_t alignment = 1;  // what next_data() rounds to, outwards

  void fill(SeededRandom& random, std::uint64_t page) {
    Bytes data(kPageBytes);
    random.fill(data);
    const std::uint64_t offset = page * kPageBytes;
    if (offset + kPageBytes > bytes)
      std::fill(data.begin() + static_cast<std::ptrdiff_t>(bytes - offset), data.end(),
                std::uint8_t{0});
    pages[page] = data;
  }
};

class MemorySource : public media::Source {
 public:
  explicit MemorySource(const MemoryDisk& disk) : disk_(disk) {}
  std::uint64_t bytes() const override { return disk_.bytes; }
  const std::string& description() const override { return description_; }
  Status read_at(std::uint64_t offset, MutByteView out) override {
    if (offset + out.size() > disk_.bytes)
      return make_error(ErrorCode::kIo, "a read beyond the end of the disk");
    if (offset >= fail_from) return make_error(ErrorCode::kIo, "the disk is broken here");
    read_bytes += out.size();
    std::fill(out.begin(), out.end(), std::uint8_t{0});
    for (auto it = disk_.pages.lower_bound(offset / kPageBytes);
         it != disk_.pages.end() && it->first * kPageBytes < offset + out.size(); ++it) {
      const ByteRange part = intersect({it->first * kPageBytes, kPageBytes}, {offset, out.size()});
      std::copy_n(
          it->second.begin() + static_cast<std::ptrdiff_t>(part.offset - it->first * kPageBytes),
          part.count, out.begin() + static_cast<std::ptrdiff_t>(part.offset - offset));
    }
    return ok_status();
  }
  Result<std::optional<ByteRange>> next_data(std::uint64_t from) override {
    for (auto it = disk_.pages.lower_bound(from / kPageBytes); it != disk_.pages.end(); ++it) {
      std::uint64_t first = it->first * kPageBytes;
      std::uint64_t end = first + kPageBytes;
      // Some sources know single bytes of data, some only large blocks.
      first = std::max(from, first / disk_.alignment * disk_.alignment);
      end = std::min(disk_.bytes, round_up(end, disk_.alignment));
      if (end <= from) continue;
      return std::optional(ByteRange{first, end - first});
    }
    return std::optional<ByteRange>();
  }
  std::atomic<std::uint64_t> read_bytes{0};
  std::uint64_t fail_from = ~std::uint64_t{0};

 private:
  const MemoryDisk& disk_;
  std::string description_ = "memory";
};

// Gathers what is written; checks that it comes once, inside the disk and, if asked, in order.
class MemoryTarget : public media::Target {
 public:
  MemoryTarget(std::uint64_t bytes, bool ordered, bool zeroed)
      : bytes_(bytes), ordered_(ordered), zeroed_(zeroed) {}
  bool in_order() const override { return ordered_; }
  bool starts_zeroed() const override { return zeroed_; }
  Status write_at(std::uint64_t offset, ByteView data) override {
    const std::lock_guard lock(mutex_);
    take(offset, data.size());
    for (std::size_t done = 0; done < data.size(); done += kPageBytes) {
      const std::size_t part = std::min<std::size_t>(kPageBytes, data.size() - done);
      Bytes page(data.begin() + static_cast<std::ptrdiff_t>(done),
                 data.begin() + static_cast<std::ptrdiff_t>(done + part));
      page.resize(kPageBytes, 0);
      pages[(offset + done) / kPageBytes] = page;
    }
    return ok_status();
  }
  Status zero_at(ByteRange range) override {
    const std::lock_guard lock(mutex_);
    take(range.offset, range.count);
    return ok_status();
  }
  Status finish() override {
    finished = true;
    return ok_status();
  }
  // Everything was said exactly once (for targets that start with unknown content).
  bool covered() const { return covered_ == bytes_; }

  std::map<std::uint64_t, Bytes> pages;
  bool finished = false;
  bool misplaced = false;

 private:
  void take(std::uint64_t offset, std::uint64_t count) {
    if (offset % kPageBytes != 0 || offset + count > bytes_ || (ordered_ && offset != covered_))
      misplaced = true;
    covered_ += count;
  }
  std::uint64_t bytes_;
  bool ordered_;
  bool zeroed_;
  std::mutex mutex_;
  std::uint64_t covered_ = 0;
};

struct ImportBench {
  SeededRandom random{seed()};
  FakeRemote remote;
  format::KeyFile key = format::generate_key_file(random);
  ManualClock clock;
  transfer::Who who{random.id<MachineId>(), "here", random.id<SessionId>()};

  Result<transfer::ImportReport> import(MemorySource& source, transfer::ImportOptions options) {
    transfer::Progress progress;
    return transfer::import_image({remote, source, clock, random}, key, who, options, progress);
  }
  Result<transfer::ImportReport> import(const MemoryDisk& disk, const std::string& name,
                                        bool update = false) {
    MemorySource source(disk);
    transfer::ImportOptions options;
    options.name = name;
    options.update = update;
    return import(source, options);
  }
  Result<transfer::ExportReport> export_to(media::Target& target, const std::string& name,
                                           const std::string& version = {}) {
    transfer::Progress progress;
    DIMS_ASSIGN(const contract::ImageInfo image, remote.find_image(name));
    DIMS_ASSIGN(const contract::VersionInfo which, transfer::find_version(remote, image, version));
    return transfer::export_version(remote, key, image, which, target, {}, progress);
  }
  // Exports to a target of each kind and compares.
  void require_equal(const MemoryDisk& disk, const std::string& name,
                     const std::string& version = {}) {
    for (const auto& [ordered, zeroed] : {std::pair{false, true}, {false, false}, {true, false}}) {
      if (ordered && disk.bytes > 64 * kGiB) continue;
      MemoryTarget target(disk.bytes, ordered, zeroed);
      const auto report = export_to(target, name, version);
      INFO("ordered " << ordered << " zeroed " << zeroed
                      << (report.ok() ? "" : report.error().to_string()));
      REQUIRE(report.ok());
      CHECK(target.finished);
      CHECK(!target.misplaced);
      if (!zeroed) CHECK(target.covered());
      std::map<std::uint64_t, Bytes> expected;
      for (const auto& [page, data] : disk.pages) {
        if (!is_all_zero(data)) expected[page] = data;
      }
      CHECK((target.pages == expected));
    }
  }
};

inline MemoryDisk random_disk(SeededRandom& random, std::uint64_t bytes, unsigned percent) {
  MemoryDisk disk;
  disk.bytes = bytes;
  for (std::uint64_t page = 0; page < pages_for(bytes); ++page) {
    if (random.below(100) < percent) disk.fill(random, page);
  }
  return disk;
}

}  // namespace dims::test
