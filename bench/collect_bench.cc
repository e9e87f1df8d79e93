// A collection over a store of its own: what marking costs, with and without saving how far it is.
// Prints one line a run.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "rdim-server/catalog/collector.h"
#include "rdim-server/stores/store.h"

using namespace dims;

namespace {

[[noreturn]] void fail(const std::string& why) {
  std::fprintf(stderr, "collect_bench: %s\n", why.c_str());
  std::exit(1);
}
template <typename T>
T must(Result<T> result) {
  if (!result.ok()) fail(result.error().to_string());
  return std::move(*result);
}
void must(const Status& status) {
  if (!status.ok()) fail(status.error().to_string());
}

constexpr std::size_t kFanOut = 512, kChunksALeaf = 64;

// A tree of so many leaves; its chunks are names only: a mark does not read them.
format::ObjectKey make_tree(contract::ObjectStore& store, const DomainId& domain,
                            std::size_t leaves, Random& random, std::uint64_t& nodes) {
  const format::DomainKey key(domain, 1, Secret32{});
  std::uint8_t level = 1;
  std::vector<format::ObjectKey> above;
  const auto put = [&](const std::vector<format::ObjectKey>& children) {
    Bytes data(16);
    random.fill(data);
    const auto kind = level == 1 ? format::ObjectKind::kLeaf : format::ObjectKind::kInner;
    const auto node = format::seal_node(key, kind, level, children, data);
    const contract::ObjectStore::PutItem item{node.ref.object_key(), node.bytes};
    must(store.put(std::span(&item, 1)));
    ++nodes;
    above.push_back(node.ref.object_key());
  };
  for (std::size_t n = 0; n < leaves; ++n) {
    std::vector<format::ObjectKey> chunks(kChunksALeaf);
    for (auto& chunk : chunks) chunk = {domain, random.id<ObjectId>()};
    put(chunks);
  }
  while (above.size() > 1 || level == 1) {
    ++level;
    const std::vector<format::ObjectKey> below = std::exchange(above, {});
    for (std::size_t at = 0; at < below.size(); at += kFanOut) {
      const auto end = std::min(below.size(), at + kFanOut);
      put({below.begin() + static_cast<std::ptrdiff_t>(at),
           below.begin() + static_cast<std::ptrdiff_t>(end)});
    }
  }
  return above.front();
}

double seconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) fail("usage: collect_bench FOLDER [LEAVES]; the folder must not exist");
  const std::string folder = argv[1];
  const std::size_t leaves = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : 50'000;
  if (std::filesystem::exists(folder)) fail(folder + " exists");
  crypto::initialise();
  Clock& clock = system_clock();
  SeededRandom random(1);
  stores::StoreOptions options;
  options.folder = folder;
  const auto store = must(stores::Store::open(options, clock, random));
  const auto catalog = must(catalog::Catalog::open(store->objects(), store->refs(),
                                                   store->generation(), clock, random, {}));
  contract::ImageInfo image;
  image.id = random.id<ImageId>();
  image.name = "disk";
  image.image_bytes = kGiB;
  image.domain = random.id<DomainId>();
  image = must(catalog->create_image(image));
  std::uint64_t nodes = 0;
  const auto root = make_tree(store->objects(), image.domain, leaves, random, nodes);
  // As a commit would leave it, without its look for the chunks.
  format::VersionRecord record;
  record.image = image.id;
  record.root = root;
  record.image_bytes = image.image_bytes;
  record.tree = image.tree;
  record.sequence = 1;
  const Bytes bytes = format::encode_version(record, crypto::signing_key_from_seed(Secret32{}));
  must(store->objects().barrier());
  must(store->refs().put(catalog::version_key(format::version_id(bytes)), bytes, 0));
  catalog::SessionRecord session;
  session.mode = "shared";
  session.base = format::version_id(bytes);
  must(store->refs().put(catalog::session_key(image.id, random.id<SessionId>()),
                         catalog::encode_session(session), 0));
  const std::string runs = folder + "/runs";
  must(io::posix_file_system().make_folder(runs));
  for (const auto every : {std::chrono::seconds(3600), std::chrono::seconds(1)}) {
    catalog::CollectorOptions wanted;
    wanted.upload_grace = std::chrono::seconds(0);
    wanted.space.fs = &io::posix_file_system();
    wanted.space.folder = runs;
    wanted.save_every = every;
    catalog::Collector collector(*catalog, store->objects(), clock, wanted);
    std::map<catalog::CollectorPhase, std::chrono::nanoseconds> took;
    std::chrono::nanoseconds longest{0};
    for (bool more = true; more;) {
      const auto phase = collector.phase();
      const auto began = clock.boottime();
      more = must(collector.step());
      const auto time = clock.boottime() - began;
      took[phase] += time;
      longest = std::max(longest, time);
    }
    std::printf(
        "%llu nodes marked in %.2f s (%.0f a second), found in %.2f s, longest step %.3f s; "
        "saved every %lld s\n",
        static_cast<unsigned long long>(collector.figures().nodes_marked),
        seconds(took[catalog::CollectorPhase::kMark]),
        static_cast<double>(collector.figures().nodes_marked) /
            seconds(took[catalog::CollectorPhase::kMark]),
        seconds(took[catalog::CollectorPhase::kFind]), seconds(longest),
        static_cast<long long>(every.count()));
  }
  return 0;
}
