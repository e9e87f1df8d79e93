// What tests of the whole LDIM disk need: an RDIM in memory, an image in it, a key file, a
// simulated or memory disk below the cache folder, and a model of what the guest wrote.
//
// Threads: one test. Ownership: the fixture outlives the disks it opens.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <catch2/catch.hpp>

#include "common/format/key_file.h"
#include "common/io/memory_file.h"
#include "common/tree/cutter.h"
#include "common/tree/editor.h"
#include "common/tree/uploader.h"
#include "nbdkit-ldim/disk/disk.h"
#include "tests/support/fake_remote.h"
#include "tests/support/seed.h"
#include "tests/support/sim_file.h"

namespace dims::test {

inline void require_ok(const Status& status) {
  INFO((status.ok() ? std::string() : status.error().to_string()));
  REQUIRE(status.ok());
}

// Empty if equal; else where they differ (a failed comparison of the contents themselves would
// print megabytes).
inline std::string difference(const Bytes& got, const Bytes& wanted) {
  if (got.size() != wanted.size())
    return "sizes " + std::to_string(got.size()) + " and " + std::to_string(wanted.size());
  std::size_t first = wanted.size();
  std::size_t last = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (got[i] == wanted[i]) continue;
    first = std::min(first, i);
    last = i;
  }
  if (first == wanted.size()) return "";
  return "bytes " + std::to_string(first) + " to " + std::to_string(last) + " differ (first: got " +
         std::to_string(got[first]) + ", wanted " + std::to_string(wanted[first]) + ")";
}

// A key file on disk that goes with the object.
class TemporaryKey {
 public:
  explicit TemporaryKey(Random& random) : key(format::generate_key_file(random)) {
    path = (std::filesystem::temp_directory_path() /
            ("dims-test-key-" + std::to_string(::getpid()) + "-" + std::to_string(random.u64())))
               .string();
    require_ok(format::create_key_file(path, key));
  }
  ~TemporaryKey() { std::filesystem::remove(path); }
  TemporaryKey(const TemporaryKey&) = delete;
  TemporaryKey& operator=(const TemporaryKey&) = delete;
  format::KeyFile key;
  std::string path;
};

// Puts `content` on the server as the next version of `name` (created if it is not there).
inline VersionId commit_content(contract::Remote& remote, const format::KeyFile& key,
                                const std::string& name, const Bytes& content, Random& random) {
  contract::ImageInfo image;
  auto found = remote.find_image(name);
  if (found.ok()) {
    image = *found;
  } else {
    image.id = random.id<ImageId>();
    image.name = name;
    image.image_bytes = content.size();
    image.domain = key.domain;
    image.key_check = key.key_check(image.id);
    auto made = remote.create_image(image);
    REQUIRE(made.ok());
    image = *made;
  }
  const format::DomainKey domain_key = key.domain_key();
  tree::TreeShape shape{image.tree, image.image_bytes, {}};
  tree::RemoteNodeSource nodes(remote, image.id, contract::Priority::kDemand);
  tree::Uploader uploader(remote, image.id, {});
  tree::TreeEditor editor(shape, domain_key, nodes,
                          [&](format::SealedObject node) { return uploader.add(std::move(node)); });
  Bytes padded = content;
  padded.resize(static_cast<std::size_t>(round_up(content.size(), kPageBytes)), 0);
  std::vector<tree::PlacedExtent> extents;
  for (const PageRange chunk : tree::Cutter(domain_key, image.tree.chunk_mean_bytes).cut(padded)) {
    auto sealed = format::seal_chunk(
        domain_key, ByteView(padded).subspan(chunk.first * kPageBytes, chunk.count * kPageBytes));
    extents.push_back({chunk.first, chunk.count, 0, sealed.ref});
    require_ok(uploader.add(std::move(sealed)));
  }
  require_ok(editor.replace({0, padded.size() / kPageBytes}, extents));
  const auto root = editor.finish();
  REQUIRE(root.ok());
  require_ok(uploader.finish());
  contract::LeaseRequest lease_request{image.id, random.id<SessionId>(),
                                       key.machine_of_record(random.id<MachineId>()), "importer",
                                       false};
  const auto lease = remote.acquire_lease(lease_request);
  REQUIRE(lease.ok());
  format::VersionRecord record;
  record.org = key.org;
  record.parent = image.head;
  record.image = image.id;
  record.root = root->object_key();
  record.image_bytes = image.image_bytes;
  record.tree = image.tree;
  record.sequence = image.head_sequence + 1;
  if (key.member) {
    record.domain_epoch = domain_key.epoch();
    record.image_epoch = key.image_epoch();
    record.machine = key.machine_of_record({});
    record.time_unix_ns = static_cast<std::uint64_t>(system_clock().wall().count());
  }
  format::seal_root_key(record, key.image_key(image.id), root->key, random);
  contract::CommitOrder order{image.id, lease->lease, lease->token, image.head,
                              format::encode_version(record, key.signing)};
  const auto answer = remote.commit(order);
  INFO((answer.ok() ? std::string() : answer.error().to_string()));
  REQUIRE(answer.ok());
  REQUIRE(answer->missing.empty());
  require_ok(remote.release_lease(image.id, *lease));
  return answer->version;
}

// The whole content of a version, read without LDIM.
inline Result<Bytes> version_content(contract::Remote& remote, const format::KeyFile& key,
                                     const ImageId& image, const VersionId& version) {
  DIMS_ASSIGN(const contract::VersionInfo info, remote.get_version(image, version, 0));
  DIMS_ASSIGN(const auto root, format::open_root(info.record, key.image_key(info.record.image)));
  Bytes content(static_cast<std::size_t>(round_up(info.record.image_bytes, kPageBytes)), 0);
  tree::RemoteNodeSource nodes(remote, image, contract::Priority::kDemand);
  const tree::TreeShape shape{info.record.tree, info.record.image_bytes, root};
  const Status visited = tree::visit_leaves(
      shape, {0, pages_for(shape.image_bytes)}, nodes,
      [&](std::uint64_t first_page, const format::Reference&, const format::Leaf& leaf) -> Status {
        std::vector<format::ObjectKey> wanted;
        for (const format::Extent& e : leaf.extents) wanted.push_back(e.ref.object_key());
        std::vector<Bytes> pages(wanted.size());
        DIMS_TRY(remote.get(image, wanted, contract::Priority::kDemand,
                            [&](std::size_t i, Result<Bytes> object) {
                              if (!object.ok()) return;
                              auto opened = format::open_object(leaf.extents[i].ref, *object);
                              if (opened.ok()) pages[i] = *std::move(opened);
                            }));
        for (std::size_t i = 0; i < wanted.size(); ++i) {
          const format::Extent& e = leaf.extents[i];
          if (pages[i].size() < (e.first_in_chunk + std::size_t{e.page_count}) * kPageBytes) {
            return make_error(ErrorCode::kCorrupt, "chunk is missing or short");
          }
          std::copy_n(pages[i].begin() + e.first_in_chunk * static_cast<std::ptrdiff_t>(kPageBytes),
                      e.page_count * kPageBytes,
                      content.begin() +
                          static_cast<std::ptrdiff_t>((first_page + e.first_page) * kPageBytes));
        }
        return ok_status();
      });
  DIMS_TRY(visited);
  content.resize(info.record.image_bytes);
  return content;
}

inline Bytes read_version(contract::Remote& remote, const format::KeyFile& key,
                          const ImageId& image, const VersionId& version) {
  auto content = version_content(remote, key, image, version);
  INFO((content.ok() ? std::string() : content.error().to_string()));
  REQUIRE(content.ok());
  return *std::move(content);
}

inline Bytes random_content(SeededRandom& random, std::size_t bytes) {
  Bytes content(bytes, 0);
  // Stretches of zeros, text-like repeats and noise, as disks have.
  for (std::size_t at = 0; at < bytes;) {
    const std::size_t n = std::min<std::size_t>(bytes - at, (1 + random.below(40)) * 1500);
    switch (random.below(3)) {
      case 0:
        break;
      case 1:
        std::fill_n(content.begin() + static_cast<std::ptrdiff_t>(at), n,
                    static_cast<std::uint8_t>(1 + random.below(255)));
        break;
      default:
        random.fill(MutByteView(content).subspan(at, n));
    }
    at += n;
  }
  return content;
}

class DiskFixture {
 public:
  explicit DiskFixture(std::uint64_t seed_value = seed()) : random(seed_value), key(random) {
    options.server = "test:1";
    options.image = "disk";
    options.key_path = key.path;
    options.cache_folder = "/ldim";
    options.cache_bytes = 32 * kMiB;
    options.journal_bytes = 256 * kMiB;
    options.write_back = ldim::WriteBackPolicy::kManual;
    options.connect_wait = std::chrono::milliseconds(0);
    options.away_wait = std::chrono::milliseconds(0);
    options.machine_name = "tester";
  }

  Result<std::unique_ptr<ldim::Disk>> try_open(io::FileSystem& fs, contract::Remote& remote,
                                               std::function<bool(ldim::CommitStep)> at_step = {}) {
    return ldim::Disk::open(options, {remote, fs, system_clock(), random, std::move(at_step)});
  }
  std::unique_ptr<ldim::Disk> open(io::FileSystem& fs, contract::Remote& remote,
                                   std::function<bool(ldim::CommitStep)> at_step = {}) {
    auto disk = try_open(fs, remote, std::move(at_step));
    INFO((disk.ok() ? std::string() : disk.error().to_string()));
    REQUIRE(disk.ok());
    return std::move(disk).value();
  }
  static Bytes read_all(ldim::Disk& disk) {
    Bytes content(disk.size());
    constexpr std::size_t kStep = 256 * 1024;
    for (std::size_t at = 0; at < content.size(); at += kStep) {
      require_ok(disk.read({at, std::min(kStep, content.size() - at)}, content.data() + at));
    }
    return content;
  }
  static void sync(ldim::Disk& disk) {
    const auto report = disk.sync(true, std::chrono::seconds(60));
    INFO((report.ok() ? std::string() : report.error().to_string()));
    REQUIRE(report.ok());
  }

  SeededRandom random;
  TemporaryKey key;
  ldim::DiskOptions options;
};

// Writes to the disk and to what it should hold.
inline void write_at(ldim::Disk& disk, Bytes& model, std::uint64_t offset, std::size_t count,
                     std::uint8_t value) {
  const Bytes data(count, value);
  require_ok(disk.write({offset, count}, data.data(), false));
  std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(offset), count, value);
}

}  // namespace dims::test
