// A journal's file as somebody left it: opening may refuse it, and never crashes; what it accepts
// can be read and sealed on.
#include <cstdlib>

#include "common/io/memory_file.h"
#include "nbdkit-ldim/journal/journal.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/support/keys.h"

using namespace dims;

namespace {

const std::string kPath = "/journal/0000000001.jnl";
constexpr std::size_t kFileBytes = 32 * 1024;

ldim::JournalOptions options() {
  ldim::JournalOptions out;
  out.folder = "/journal";
  out.machine.bytes.fill(0x11);
  out.image.bytes.fill(0x22);
  out.session.bytes.fill(0x33);
  out.key = dims::test::filled_key(0x44);
  out.segment_bytes = kFileBytes;
  out.limit_bytes = 8 * kFileBytes;
  return out;
}

}  // namespace

std::vector<Bytes> fuzz_seeds() {
  io::MemoryFileSystem fs;
  ManualClock clock;
  SeededRandom random(1);
  if (!fs.make_folder("/journal").ok()) return {};
  std::vector<Bytes> seeds;
  {
    const auto journal = ldim::Journal::open(fs, options(), clock, random);
    if (!journal.ok()) return {};
    const Bytes data(5000, 7);
    for (std::uint64_t i = 0; i < 3; ++i) {
      (void)(*journal)
          ->append(ldim::WriteKind::kData, {i * 700, 700}, ByteView(data).first(700))
          .ok();
      (void)(*journal)->append(ldim::WriteKind::kZero, {i * 9000, 4096}, {}).ok();
      (void)(*journal)->flush().ok();
      const auto names = fs.list("/journal");
      if (!names.ok()) return {};
      for (const std::string& name : *names) {
        auto bytes = io::read_file(fs, "/journal/" + name, kFileBytes);
        if (bytes.ok()) seeds.push_back(std::move(bytes).value());
      }
    }
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > kFileBytes) return 0;
  io::MemoryFileSystem fs;
  ManualClock clock;
  SeededRandom random(2);
  if (!fs.make_folder("/journal").ok()) std::abort();
  const auto file = fs.open(kPath, io::OpenMode::kCreate);
  if (!file.ok() || !(*file)->write_at(0, {data, size}).ok()) std::abort();
  const auto journal = ldim::Journal::open(fs, options(), clock, random);
  if (!journal.ok()) return 0;
  for (const ldim::JournalRecord& record : (*journal)->records(0, ~std::uint64_t{0})) {
    if (record.kind != ldim::WriteKind::kData) continue;
    Bytes out(record.range.count);
    if (!(*journal)->read(record.location, record.range, record.range.offset, out).ok())
      std::abort();  // recovery verifies every block
  }
  if (!(*journal)->flush().ok()) std::abort();
  return 0;
}
