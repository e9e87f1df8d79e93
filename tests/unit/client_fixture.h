// Objects, an image and a connected client, as the client's tests need them.
#pragma once

#include "common/client/client.h"
#include "common/format/key_file.h"
#include "tests/support/seed.h"
#include "tests/unit/client_service.h"

namespace dims::test {

struct Objects {
  std::vector<format::ObjectKey> keys;
  std::vector<Bytes> bytes;
  std::vector<contract::Remote::PutItem> items() const {
    std::vector<contract::Remote::PutItem> out;
    for (std::size_t i = 0; i < keys.size(); ++i) out.push_back({keys[i], bytes[i]});
    return out;
  }
};

inline Objects make_objects(const format::DomainKey& domain, std::size_t count,
                            SeededRandom& random, std::size_t pages_max = 8) {
  Objects out;
  for (std::size_t i = 0; i < count; ++i) {
    Bytes pages((1 + random.below(pages_max)) * kPageBytes);
    random.fill(pages);
    format::SealedObject object = format::seal_chunk(domain, pages, false);
    out.keys.push_back(object.ref.object_key());
    out.bytes.push_back(std::move(object.bytes));
  }
  return out;
}

inline contract::ImageInfo make_image(const format::KeyFile& key, SeededRandom& random,
                                      const std::string& name, std::uint64_t bytes = 64 * kMiB) {
  contract::ImageInfo image;
  image.id = random.id<ImageId>();
  image.name = name;
  image.image_bytes = bytes;
  image.domain = key.domain;
  image.key_check = key.key_check(image.id);
  return image;
}

// A server, a client of it, and an image to act for.
struct ClientFixture {
  explicit ClientFixture(const std::function<void(client::ClientOptions&)>& change =
                             [](client::ClientOptions&) {})
      : image(make_image(key, random, "disk")) {
    client::ClientOptions options;
    options.address = server.address();
    options.machine_name = "tester";
    change(options);
    remote = client::connect(options).value();
    if (!server.data().create_image(image).ok()) std::abort();
  }

  SeededRandom random{seed()};
  format::KeyFile key = format::generate_key_file(random);
  TestServer server;
  contract::ImageInfo image;
  std::unique_ptr<contract::Remote> remote;

  Objects stored_objects(std::size_t count, std::size_t pages_max = 8) {
    Objects objects = make_objects(key.domain_key(), count, random, pages_max);
    if (!server.data().put(image.id, objects.items()).ok()) std::abort();
    return objects;
  }
};

// Waits for what other threads will surely do; false after half a minute.
inline bool eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 3000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

inline bool eventually(Behaviour& behaviour,
                       const std::function<bool(const Behaviour&)>& condition) {
  return eventually([&] {
    std::lock_guard lock(behaviour.mutex);
    return condition(behaviour);
  });
}

}  // namespace dims::test
