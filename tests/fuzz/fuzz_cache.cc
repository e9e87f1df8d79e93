// A cache folder's segment and index as somebody left them: damage costs pages and never the open,
// a crash or a wrong byte. The input: four bytes of length, the index file, the segment file.
#include <cstdlib>
#include <cstring>

#include "common/io/memory_file.h"
#include "nbdkit-ldim/cache/page_cache.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/support/keys.h"

using namespace dims;

namespace {

constexpr std::size_t kFileBytesMax = 4 * 1024 * 1024;
constexpr std::uint8_t kObjects = 4;

ldim::PageCacheOptions options() {
  ldim::PageCacheOptions out;
  out.folder = "/cache";
  out.machine.bytes.fill(0x11);
  out.image.bytes.fill(0x22);
  out.key = dims::test::filled_key(0x33);
  out.limit_bytes = ldim::PageCache::kMinLimitBytes;
  return out;
}

ObjectId object_id(std::uint8_t number) {
  ObjectId id;
  id.bytes.fill(number);
  return id;
}

Bytes content(std::uint8_t number) { return Bytes((1 + number % 3) * kPageBytes, number); }

struct Files {
  std::string index_name, segment_name;
  Bytes input;
};

const Files& good() {
  static const Files files = [] {
    Files out;
    io::MemoryFileSystem fs;
    SeededRandom random(1);
    auto cache = ldim::PageCache::open(fs, options(), random);
    if (!cache.ok()) std::abort();
    for (std::uint8_t n = 1; n <= kObjects; ++n) {
      if (!(*cache)->insert(object_id(n), content(n), n % 4).ok()) std::abort();
    }
    if (!(*cache)->sync().ok()) std::abort();
    Bytes index, segment;
    const auto names = fs.list("/cache");
    if (!names.ok()) std::abort();
    for (const std::string& name : *names) {
      auto bytes = io::read_file(fs, "/cache/" + name, kFileBytesMax);
      if (!bytes.ok()) std::abort();
      const bool is_index = name.ends_with(".idx");
      (is_index ? out.index_name : out.segment_name) = name;
      (is_index ? index : segment) = std::move(bytes).value();
    }
    const auto count = static_cast<std::uint32_t>(index.size());
    out.input.resize(sizeof count);
    std::memcpy(out.input.data(), &count, sizeof count);
    out.input.insert(out.input.end(), index.begin(), index.end());
    out.input.insert(out.input.end(), segment.begin(), segment.end());
    return out;
  }();
  return files;
}

void put(io::FileSystem& fs, const std::string& name, ByteView bytes) {
  const auto file = fs.open("/cache/" + name, io::OpenMode::kCreate);
  if (!file.ok() || !(*file)->write_at(0, bytes).ok()) std::abort();
}

}  // namespace

std::vector<Bytes> fuzz_seeds() { return {good().input}; }

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::uint32_t index_bytes = 0;
  if (size < sizeof index_bytes || size > kFileBytesMax) return 0;
  std::memcpy(&index_bytes, data, sizeof index_bytes);
  const ByteView rest(data + sizeof index_bytes, size - sizeof index_bytes);
  const std::size_t cut = std::min<std::size_t>(index_bytes, rest.size());
  io::MemoryFileSystem fs;
  SeededRandom random(2);
  if (!fs.make_folder("/cache").ok()) std::abort();
  put(fs, good().index_name, rest.first(cut));
  put(fs, good().segment_name, rest.subspan(cut));
  const auto cache = ldim::PageCache::open(fs, options(), random);
  if (!cache.ok()) std::abort();
  for (std::uint8_t n = 1; n <= kObjects; ++n) {
    std::uint32_t pages = 0;
    const ldim::CachePlace place = (*cache)->find(object_id(n), &pages);
    if (!place.known()) continue;
    Bytes out(pages * kPageBytes);
    if ((*cache)->read(place, object_id(n), 0, out) == ldim::CacheRead::kOk && out != content(n))
      std::abort();
  }
  if (!(*cache)->insert(object_id(9), content(9), 0).ok()) std::abort();
  return 0;
}
