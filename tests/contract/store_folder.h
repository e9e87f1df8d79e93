// A store on disk that a test opens, kills, damages and opens again. Threads: one owner.
#pragma once

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>
#include <catch2/catch.hpp>

#include "rdim-server/stores/rocks_objects.h"
#include "rdim-server/stores/store.h"
#include "tests/contract/temp_folder.h"

namespace dims::test {

struct StoreFolder {
  TempFolder temp;
  ManualClock clock;
  stores::StoreOptions options;
  std::string path = temp.path + "/store";

  StoreFolder() { options.folder = path; }

  Result<std::unique_ptr<stores::Store>> try_open(const std::string& at) {
    stores::StoreOptions here = options;
    here.folder = at;
    return stores::Store::open(here, clock, system_random());
  }
  std::unique_ptr<stores::Store> open(const std::string& at) {
    auto store = try_open(at);
    INFO((store.ok() ? "" : store.error().to_string()));
    REQUIRE(store.ok());
    return std::move(*store);
  }
  std::unique_ptr<stores::Store> open() { return open(path); }
  // What lies below the store, which is closed.
  std::unique_ptr<stores::Engine> engine() {
    auto engine = stores::Engine::open(options, false);
    REQUIRE(engine.ok());
    return std::move(*engine);
  }

  // The files as a kill -9 at this moment leaves them.
  std::string killed_copy(const std::string& name) {
    namespace fs = std::filesystem;
    const std::string copy = temp.path + "/" + name;
    fs::copy(path, copy, fs::copy_options::recursive);
    fs::remove(copy + "/db/LOCK");
    return copy;
  }

  // Flips a bit so far from the end of an object, which lies in one blob file; the store is closed.
  void damage_blob(const Bytes& object, std::uint64_t from_end) {
    const std::string_view needle = as_text(ByteView(object));
    int found = 0;
    for (const auto& entry : std::filesystem::directory_iterator(path + "/db")) {
      if (entry.path().extension() != ".blob") continue;
      std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
      std::string content((std::istreambuf_iterator<char>(file)), {});
      const std::size_t at = content.find(needle);
      if (at == std::string::npos) continue;
      ++found;
      const std::size_t place = at + needle.size() - from_end;
      file.clear();
      file.seekp(static_cast<std::streamoff>(place));
      file.put(static_cast<char>(content[place] ^ 1));
    }
    REQUIRE(found == 1);
  }
};

}  // namespace dims::test
