// Every file of a cache folder, put where it does not belong: into the folder of another image,
// machine or user, in another file's place, or back from an earlier day. What is refused is left as
// it was; what opens shows the right bytes. Names: situation_outcome.
#include <cstdio>
#include <map>

#include "tests/support/disk_fixture.h"

using namespace dims;
using namespace dims::test;

namespace {

const std::string kRoot = "/ldim";

std::vector<std::string> files_of(io::FileSystem& fs) {
  std::vector<std::string> out;
  for (const char* name : {"identity", "machine-secret", "keys", "state", "alive"}) {
    if (*fs.exists(kRoot + "/" + name)) out.push_back(kRoot + "/" + name);
  }
  for (const char* folder : {"journal", "cache"}) {
    const auto names = fs.list(kRoot + "/" + folder);
    REQUIRE(names.ok());
    for (const std::string& name : *names) out.push_back(kRoot + "/" + folder + "/" + name);
  }
  return out;
}

Bytes bytes_of(io::FileSystem& fs, const std::string& path) {
  const auto bytes = io::read_file(fs, path, kGiB);
  REQUIRE(bytes.ok());
  return *bytes;
}

std::string kind_of(const std::string& path) {
  const std::string rest = path.substr(kRoot.size() + 1);
  const std::size_t slash = rest.find('/');
  return slash == std::string::npos ? rest : rest.substr(0, slash);
}

// A folder with cached pages, committed writes and unsent ones, and what its disk holds.
struct Folder {
  std::unique_ptr<SimFileSystem> fs = std::make_unique<SimFileSystem>();
  std::unique_ptr<SimFileSystem> earlier;  // before the unsent writes
  Bytes content, earlier_content;
};

struct Swaps {
  DiskFixture mine;
  DiskFixture theirs{seed() + 7};
  FakeRemote remote;
  Bytes disk = random_content(mine.random, kMiB), disk2 = random_content(mine.random, kMiB);
  Bytes their_disk = random_content(mine.random, kMiB);

  Swaps() {
    for (DiskFixture* t : {&mine, &theirs}) {
      t->options.journal_bytes = 16 * kMiB;
      t->options.cache_bytes = 16 * kMiB;
      t->options.read_ahead = false;
    }
    commit_content(remote, mine.key.key, "disk", disk, mine.random);
    commit_content(remote, mine.key.key, "disk2", disk2, mine.random);
    commit_content(remote, theirs.key.key, "theirs", their_disk, theirs.random);
  }

  Folder make(DiskFixture& t, const std::string& image, Bytes content, std::uint8_t value) {
    t.options.image = image;
    Folder out;
    auto open = t.open(*out.fs, remote);
    require_ok(open->client_connected());
    content = DiskFixture::read_all(*open);
    write_at(*open, content, 50'000, 30'000, value);
    DiskFixture::sync(*open);
    open.reset();
    out.earlier = out.fs->copy();
    out.earlier_content = content;
    remote.server().expire_leases();
    open = t.open(*out.fs, remote);
    write_at(*open, content, 300'000, 40'000, static_cast<std::uint8_t>(value + 1));
    require_ok(open->flush());
    open.reset();
    remote.server().expire_leases();
    out.content = content;
    t.options.image = "disk";
    return out;
  }

  enum class End { kRefused, kTrue, kWrong };
  // Opened as the owner's disk, with whatever file was exchanged.
  End open_and_look(io::FileSystem& fs, const std::vector<const Bytes*>& right, std::string& note,
                    bool away = false) {
    // Without the server nobody waits for a page that is not here.
    auto opened = ldim::Disk::open(
        mine.options, {remote, fs, system_clock(), mine.random, {}, [away] { return away; }});
    if (!opened.ok()) {
      note = opened.error().to_string();
      return opened.error().message.empty() ? End::kWrong : End::kRefused;
    }
    Bytes content((*opened)->size());
    const Status read = (*opened)->read({0, content.size()}, content.data());
    if (!read.ok()) {
      note = read.error().to_string();
      return End::kRefused;
    }
    for (const Bytes* one : right)
      if (difference(content, *one) == "") return End::kTrue;
    note = "other bytes: " + difference(content, *right.front());
    return End::kWrong;
  }

  struct Tally {
    int cells = 0, refused = 0, right = 0;
  };
  std::map<std::string, Tally> table;

  // `path` of the folder holds `bytes` instead.
  void cell(const std::string& relation, const Folder& folder, const std::string& path,
            const Bytes& bytes, bool online, bool may_be_earlier) {
    if (bytes_of(*folder.fs, path) == bytes) return;
    const auto fs = folder.fs->copy();
    require_ok(io::replace_file(*fs, path, bytes));
    remote.set_available(online);
    remote.server().expire_leases();
    std::vector<const Bytes*> right = {&folder.content};
    if (may_be_earlier) right.push_back(&folder.earlier_content);
    std::string note;
    const End end = open_and_look(*fs, right, note, !online);
    INFO(relation << ": " << path << (online ? "" : ", without the server") << ": " << note);
    CHECK(end != End::kWrong);
    Tally& tally = table[relation + ", " + kind_of(path)];
    ++tally.cells;
    tally.refused += end == End::kRefused;
    tally.right += end == End::kTrue;
    if (end != End::kRefused) return;
    // Refused: everything else is as it was, and the file in its place again opens it.
    require_ok(io::replace_file(*fs, path, bytes_of(*folder.fs, path)));
    remote.set_available(true);
    remote.server().expire_leases();
    CHECK(open_and_look(*fs, {&folder.content}, note) == End::kTrue);
  }

  void print() const {
    std::printf("%-40s %6s %8s %6s\n", "exchanged with, file", "cells", "refused", "right");
    Tally all;
    for (const auto& [name, t] : table) {
      std::printf("%-40s %6d %8d %6d\n", name.c_str(), t.cells, t.refused, t.right);
      all.cells += t.cells;
      all.refused += t.refused;
      all.right += t.right;
    }
    std::printf("%-40s %6d %8d %6d\n", "all", all.cells, all.refused, all.right);
  }
};

}  // namespace

TEST_CASE("every_local_file_put_elsewhere_is_refused_or_harmless") {
  Swaps s;
  const Folder mine = s.make(s.mine, "disk", s.disk, 0x11);
  const Folder image = s.make(s.mine, "disk2", s.disk2, 0x31);
  const Folder user = s.make(s.theirs, "theirs", s.their_disk, 0x51);
  Folder machine;
  {
    // Another machine's folder of the same image, as it would be after this one's session.
    FakeRemote other(s.remote.shared_server());
    auto open = s.mine.open(*machine.fs, other);
    machine.content = DiskFixture::read_all(*open);
    write_at(*open, machine.content, 600'000, 20'000, 0x71);
    require_ok(open->flush());
  }
  s.remote.server().expire_leases();
  const std::map<std::string, SimFileSystem*> others = {{"another image", image.fs.get()},
                                                        {"another user", user.fs.get()},
                                                        {"another machine", machine.fs.get()},
                                                        {"an earlier day", mine.earlier.get()}};
  const std::vector<std::string> own = files_of(*mine.fs);
  for (const bool online : {true, false}) {
    for (const auto& [relation, fs] : others) {
      for (const std::string& path : own) {
        for (const std::string& theirs : files_of(*fs)) {
          // Journals and caches have names of their own: any segment in the place of any.
          if (kind_of(theirs) != kind_of(path)) continue;
          s.cell(relation, mine, path, bytes_of(*fs, theirs), online, relation == "an earlier day");
        }
      }
    }
    for (const std::string& path : own) {
      for (const std::string& other : own) {
        if (other != path)
          s.cell("another kind or place", mine, path, bytes_of(*mine.fs, other), online, false);
      }
    }
  }
  s.print();
}

TEST_CASE("a_whole_folder_under_another_name_or_key_is_refused") {
  Swaps s;
  const Folder image = s.make(s.mine, "disk2", s.disk2, 0x31);
  const Folder user = s.make(s.theirs, "theirs", s.their_disk, 0x51);
  for (const bool online : {true, false}) {
    s.remote.set_available(online);
    for (const Folder* folder : {&image, &user}) {
      const auto fs = folder->fs->copy();
      const auto opened = s.mine.try_open(*fs, s.remote);
      REQUIRE(!opened.ok());
      CHECK(!opened.error().hint.empty());
    }
  }
}
