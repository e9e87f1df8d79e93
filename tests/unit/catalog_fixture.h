// A catalog on memory stores with a clock that stands still, and a writer that makes trees and
// records. Threads: one owner.
#pragma once

#include <map>
#include <catch2/catch.hpp>

#include "rdim-server/catalog/catalog.h"
#include "rdim-server/stores/memory_stores.h"
#include "tests/support/seed.h"

namespace dims::test {

using contract::ImageInfo;
using format::ObjectKey;
using format::SealedObject;

// Refuses reads of objects on demand and counts them.
class CountingStore : public stores::MemoryObjectStore {
 public:
  using MemoryObjectStore::MemoryObjectStore;
  void get(std::span<const ObjectKey> keys, const GetSink& sink) override {
    MemoryObjectStore::get(keys, [&](std::size_t index, Result<Bytes> object) {
      ++reads;
      return sink(index, std::move(object));
    });
  }
  Status barrier() override {
    ++barriers;
    return barrier_result;
  }
  std::uint64_t reads = 0;
  std::uint64_t barriers = 0;
  Status barrier_result;
};

struct CatalogFixture {
  ManualClock clock;
  SeededRandom random{seed()};
  CountingStore objects{clock};
  stores::MemoryRefStore refs;
  std::unique_ptr<catalog::Catalog> catalog;

  DomainId domain;
  format::DomainKey domain_key{make_domain(), 1, Secret32{}};
  crypto::SigningKey signer = crypto::signing_key_from_seed(Secret32{});
  static constexpr std::uint64_t kImageBytes = 64 * kMiB;

  CatalogFixture() {
    domain = make_domain();
    restart();
  }
  static DomainId make_domain() {
    DomainId id;
    id.bytes[0] = 9;
    return id;
  }
  // As a restart of the server: what is not in the stores is forgotten.
  void restart() {
    catalog.reset();
    auto opened = catalog::Catalog::open(objects, refs, GenerationId{}, clock, random, {});
    REQUIRE(opened.ok());
    catalog = std::move(*opened);
  }

  ImageInfo wanted(const std::string& name) {
    ImageInfo image;
    image.id = random.id<ImageId>();
    image.name = name;
    image.image_bytes = kImageBytes;
    image.domain = domain;
    image.key_check = random.id<Digest>();
    return image;
  }
  ImageInfo make_image(const std::string& name) {
    const auto made = catalog->create_image(wanted(name));
    REQUIRE(made.ok());
    return *made;
  }

  SealedObject chunk(const format::DomainKey& with) {
    Bytes page(kPageBytes);
    random.fill(page);
    return format::seal_chunk(with, page);
  }
  SealedObject chunk() { return chunk(domain_key); }
  SealedObject node(std::uint8_t level, const std::vector<ObjectKey>& children) {
    const auto kind = level == 1 ? format::ObjectKind::kLeaf : format::ObjectKind::kInner;
    Bytes data(16);
    random.fill(data);  // two nodes with the same children are two nodes
    return format::seal_node(domain_key, kind, level, children, data);
  }
  void put(const SealedObject& object) {
    const contract::ObjectStore::PutItem item{object.ref.object_key(), object.bytes};
    REQUIRE(objects.put(std::span(&item, 1)).ok());
  }
  // A chunk below a leaf below a root, all stored.
  struct SmallTree {
    SealedObject data, leaf, root;
  };
  SmallTree make_tree(bool store = true) {
    SmallTree tree;
    tree.data = chunk();
    tree.leaf = node(1, {tree.data.ref.object_key()});
    tree.root = node(2, {tree.leaf.ref.object_key()});
    if (store) {
      put(tree.data);
      put(tree.leaf);
      put(tree.root);
    }
    return tree;
  }

  contract::LeaseRequest lease_request(const ImageInfo& image, std::uint8_t session) {
    contract::LeaseRequest request;
    request.image = image.id;
    request.session.bytes[0] = session;
    request.machine.bytes[0] = session;
    request.machine_name = "pc" + std::to_string(session);
    return request;
  }
  contract::LeaseGrant acquire(const ImageInfo& image, std::uint8_t session = 1) {
    const auto grant = catalog->acquire_lease(lease_request(image, session));
    REQUIRE(grant.ok());
    return *grant;
  }

  // The next version of the image as it is now.
  format::VersionRecord next_record(const ImageInfo& image, const ObjectKey& root) {
    const auto now = catalog->get_image(image.id);
    REQUIRE(now.ok());
    format::VersionRecord record;
    record.parent = now->head;
    record.image = image.id;
    record.root = root;
    record.image_bytes = image.image_bytes;
    record.tree = image.tree;
    record.sequence = now->head_sequence + 1;
    record.commit.journal.bytes[0] = 5;
    record.commit.epoch = record.sequence;
    record.commit.digest = random.id<Digest>();
    return record;
  }
  contract::CommitOrder order(const format::VersionRecord& record,
                              const contract::LeaseGrant& lease) {
    contract::CommitOrder out;
    out.image = record.image;
    out.lease = lease.lease;
    out.token = lease.token;
    out.parent = record.parent;
    out.record = format::encode_version(record, signer);
    return out;
  }
  // Commits a fresh tree.
  VersionId commit_tree(const ImageInfo& image, const contract::LeaseGrant& lease) {
    const auto tree = make_tree();
    const auto answer =
        catalog->commit(order(next_record(image, tree.root.ref.object_key()), lease));
    REQUIRE(answer.ok());
    REQUIRE(answer->missing.empty());
    return answer->version;
  }
};

template <typename T>
ErrorCode code_of(const Result<T>& result) {
  REQUIRE(!result.ok());
  return result.error().code;
}
inline ErrorCode code_of(const Status& status) {
  REQUIRE(!status.ok());
  return status.error().code;
}

}  // namespace dims::test
