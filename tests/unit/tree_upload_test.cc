// Uploader: what is sent, in which order, and what happens when it fails.
#include <catch2/catch.hpp>

#include <atomic>
#include <unordered_map>

#include "common/tree/uploader.h"
#include "tests/support/fake_remote.h"
#include "tests/support/seed.h"

using namespace dims;
using test::FakeRemote;
using test::RemoteCall;

namespace {

struct Setting {
  FakeRemote remote;
  SeededRandom random{test::seed()};
  format::DomainKey key{DomainId{}, 1, Secret32{}};
  ImageId image;

  Setting() {
    contract::ImageInfo info;
    info.id = random.id<ImageId>();
    info.name = std::string("image");
    info.image_bytes = kGiB;
    image = remote.create_image(info)->id;
  }
  format::SealedObject chunk(std::uint64_t pages = 4) {
    Bytes data(pages * kPageBytes);
    random.fill(data);
    return format::seal_chunk(key, data);
  }
};

format::SealedObject copy_of(const format::SealedObject& object) { return object; }

}  // namespace

TEST_CASE("an object is sent once, and not at all when the server has it") {
  Setting s;
  std::vector<format::SealedObject> objects;
  for (int i = 0; i < 300; ++i) objects.push_back(s.chunk());
  for (int round = 0; round < 2; ++round) {
    tree::Uploader uploader(s.remote, s.image, {});
    for (const auto& object : objects) REQUIRE(uploader.add(copy_of(object)).ok());
    for (const auto& object : objects) REQUIRE(uploader.add(copy_of(object)).ok());
    REQUIRE(uploader.finish().ok());
    const auto counts = uploader.counts();
    CHECK(counts.objects == 600);
    CHECK(counts.repeated == 300);
    CHECK(counts.sent == (round == 0 ? 300 : 0));
    CHECK(counts.present == (round == 0 ? 0 : 300));
    CHECK((counts.sent_bytes > 0) == (round == 0));
  }
  CHECK(s.remote.keys_put().size() == 300);
}

TEST_CASE("a parent is never sent before its children have been answered") {
  Setting s;
  tree::UploadOptions options;
  options.threads = 4;
  options.batch_objects = 8;
  options.batch_bytes = 64 * kKiB;
  options.max_bytes_in_flight = 512 * kKiB;
  s.remote.set_delay(std::chrono::milliseconds(
      1));  // the order does not depend on it, only how likely a mistake shows
  std::unordered_map<ObjectId, std::vector<ObjectId>, IdHash> children;
  std::mutex mutex;
  {
    tree::Uploader uploader(s.remote, s.image, options);
    std::vector<std::thread> threads;
    std::vector<SeededRandom> randoms;
    for (int t = 0; t < 3; ++t) randoms.emplace_back(s.random.next());
    for (std::size_t t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        SeededRandom& random = randoms[t];
        for (int i = 0; i < 60; ++i) {
          format::Leaf leaf;
          for (std::uint16_t j = 0; j < 6; ++j) {
            // A small alphabet: threads give equal chunks at the same time.
            Bytes data(kPageBytes, static_cast<std::uint8_t>(1 + random.below(200)));
            data[0] = static_cast<std::uint8_t>(random.below(3));
            auto object = format::seal_chunk(s.key, data);
            leaf.extents.push_back({j, 1, 0, object.ref});
            if (!uploader.add(std::move(object)).ok()) return;
          }
          auto node = format::encode_leaf(s.key, leaf);
          {
            const std::lock_guard lock(mutex);
            auto& list = children[node.ref.id];
            for (const auto& e : leaf.extents) list.push_back(e.ref.id);
          }
          if (!uploader.add(std::move(node)).ok()) return;
        }
      });
    }
    for (auto& thread : threads) thread.join();
    REQUIRE(uploader.finish().ok());
    CHECK(uploader.counts().nodes == 180);
  }
  CHECK(children.size() == 180);
  std::unordered_set<ObjectId, IdHash> there;
  std::size_t nodes = 0;
  for (const auto& key : s.remote.keys_put()) {
    if (const auto found = children.find(key.id); found != children.end()) {
      ++nodes;
      for (const ObjectId& child : found->second) REQUIRE(there.contains(child));
    }
    there.insert(key.id);
  }
  CHECK(nodes == 180);
}

TEST_CASE("what is in flight is bounded, and the giver waits") {
  Setting s;
  tree::UploadOptions options;
  options.max_bytes_in_flight = 256 * kKiB;
  s.remote.hold(RemoteCall::kHas);
  tree::Uploader uploader(s.remote, s.image, options);
  std::atomic<std::uint64_t> given{0};
  std::vector<format::SealedObject> objects;
  for (int i = 0; i < 200; ++i) objects.push_back(s.chunk());
  std::thread giver([&] {
    for (auto& object : objects) {
      if (!uploader.add(std::move(object)).ok()) return;
      ++given;
    }
  });
  while (s.remote.waiting(RemoteCall::kHas) == 0) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(given.load() < 20);  // 16 KiB each: 16 fill the window
  s.remote.release(RemoteCall::kHas);
  giver.join();
  CHECK(given == 200);
  CHECK(uploader.finish().ok());
  CHECK(s.remote.server().object_count() == 200);
}

TEST_CASE("the first failure ends the upload and is told to everyone") {
  Setting s;
  s.remote.fail(RemoteCall::kPut, make_error(ErrorCode::kNoSpace, "the store is full"));
  tree::Uploader uploader(s.remote, s.image, {});
  Status status;
  for (int i = 0; i < 2000 && status.ok(); ++i) status = uploader.add(s.chunk());
  if (status.ok()) status = uploader.finish();
  REQUIRE(!status.ok());
  CHECK(status.error().code == ErrorCode::kNoSpace);
  CHECK(uploader.finish().error().code == ErrorCode::kNoSpace);
  CHECK(uploader.add(s.chunk()).error().code == ErrorCode::kNoSpace);
}

TEST_CASE("an upload that is dropped ends without sending the rest") {
  Setting s;
  s.remote.hold(RemoteCall::kHas);
  auto uploader = std::make_unique<tree::Uploader>(s.remote, s.image, tree::UploadOptions{});
  for (int i = 0; i < 100; ++i) REQUIRE(uploader->add(s.chunk()).ok());
  s.remote.release(RemoteCall::kHas);
  uploader.reset();
  CHECK(s.remote.server().object_count() <= 100);
}
