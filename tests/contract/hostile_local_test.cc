// Every file of a machine's folder, put where it does not belong: on another machine, in another
// file's place, back from an earlier day. A login ends in a refusal or in the right keys, with the
// server and without; and the file in its place again serves as before. And a token that is over.
#include <cstdio>
#include <fstream>

#include "tests/contract/hostile_world.h"
#include "tests/support/sizes.h"

using namespace dims;
using namespace dims::test;

namespace {

namespace fs = std::filesystem;

std::vector<std::string> files_of(const std::string& folder) {
  std::vector<std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().filename() != "lock")
      out.push_back(fs::relative(entry.path(), folder).string());
  std::sort(out.begin(), out.end());
  return out;
}

std::string text_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void put(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string kind_of(const std::string& file) { return file.substr(0, file.find('/')); }

struct Local {
  HostileWorld w;
  std::string earlier;

  Local() {
    (void)w.login(w.laptop, "disk");
    earlier = w.copy_folder(w.laptop, "earlier");
    for (const char* image : {"other", "scratch", "disk"}) {
      (void)w.login(w.laptop, image);
      (void)w.login(w.desk, image);
    }
  }
  // Empty: refused, or right.
  std::string login(const std::string& machine, bool away, bool& refused) {
    w.proxy->set_away(away);
    w.next_minute();
    const auto session =
        ldim::log_in(HostileWorld::wish(machine, "disk"), as_bytes(HostileWorld::kPassphrase));
    w.proxy->set_away(false);
    refused = !session.ok();
    if (!session.ok())
      return session.error().message.empty() ? std::string("refused without a word") : "";
    const auto& member = *session->keys.member;
    const bool right = session->image == w.disk && member.image.size() == 1 &&
                       member.image.at(1) == w.f.key_of_epoch(trust::scope_id(w.disk), 1) &&
                       session->keys.domain == w.carol.secrets.private_domain &&
                       session->keys.domain_secret == w.carol.secrets.private_secret.key() &&
                       member.local == client::local_key_of(w.carol.secrets);
    return right ? "" : "other keys";
  }
};

}  // namespace

TEST_CASE("a_token_that_has_expired_stops_no_start_of_a_disk_whose_cache_is_full") {
  HostileWorld w;
  const auto worker = w.work(w.desk, w.login(w.desk, "disk"));
  io::MemoryFileSystem cache;
  const auto read_through = [&](ldim::Disk& disk) {
    return difference(DiskFixture::read_all(disk), w.contents.back());
  };
  {
    auto disk = w.open_disk(worker, "disk", cache);
    REQUIRE(disk.ok());
    REQUIRE(read_through(**disk) == "");
    require_ok((*disk)->close(std::chrono::seconds(5)));
  }
  const auto expire = [&] {
    REQUIRE(worker.remote->hello().ok());  // it has a token, and thinks it good
    w.world->clock.advance(std::chrono::hours(13));
  };
  expire();
  {
    // It does not wait for another login: it works from what it has, and is told of the server when
    // there is a token again.
    auto disk = w.open_disk(worker, "disk", cache);
    INFO((disk.ok() ? "" : disk.error().to_string()));
    REQUIRE(disk.ok());
    CHECK(read_through(**disk) == "");
    Bytes model = w.contents.back();
    write_at(**disk, model, 8192, 4096, 5);
    DiskFixture::sync(**disk);
    CHECK(difference(DiskFixture::read_all(**disk), model) == "");
    w.contents.back() = model;
    require_ok((*disk)->close(std::chrono::seconds(5)));
  }
  // Nobody answers the login, either.
  expire();
  w.proxy->set_away(true);
  auto disk = w.open_disk(worker, "disk", cache);
  INFO((disk.ok() ? "" : disk.error().to_string()));
  REQUIRE(disk.ok());
  CHECK(read_through(**disk) == "");
  w.proxy->set_away(false);
  DiskFixture::sync(**disk);
}

TEST_CASE("every_file_of_a_machines_folder_put_elsewhere_opens_nothing_wrong") {
  Local l;
  struct Cell {
    std::string relation, file, with;
  };
  std::vector<Cell> plan;
  const auto own = files_of(l.w.laptop);
  for (const std::string& file : own) {
    for (const auto& [relation, folder] : std::map<std::string, std::string>{
             {"another machine", l.w.desk}, {"an earlier day", l.earlier}}) {
      for (const std::string& theirs : files_of(folder))
        if (kind_of(theirs) == kind_of(file))
          plan.push_back({relation, file, folder + "/" + theirs});
    }
    for (const std::string& other : own)
      if (other != file) plan.push_back({"another kind or place", file, l.w.laptop + "/" + other});
  }
  for (std::size_t i = plan.size(); i > 1; --i) std::swap(plan[i - 1], plan[l.w.random.below(i)]);
  const std::uint64_t wanted = rounds(10, plan.size());
  std::map<std::string, std::array<int, 3>> table;
  std::uint64_t cells = 0;
  for (const Cell& cell : plan) {
    if (cells >= wanted) break;
    const std::string before = text_of(l.w.laptop + "/" + cell.file), bytes = text_of(cell.with);
    if (before == bytes) continue;
    ++cells;
    for (const bool away : {true, false}) {
      const std::string machine = l.w.copy_folder(l.w.laptop, "cell");
      put(machine + "/" + cell.file, bytes);
      bool refused = false;
      INFO(cell.relation << ": " << cell.file << " holds " << cell.with
                         << (away ? ", without the server" : ""));
      const std::string wrong = l.login(machine, away, refused);
      CHECK(wrong == "");
      auto& line = table[cell.relation + ", " + kind_of(cell.file)];
      ++line[0];
      ++line[refused ? 1 : 2];
      if (!refused) continue;
      put(machine + "/" + cell.file, before);
      CHECK(l.login(machine, away, refused) == "");
      CHECK(!refused);
    }
  }
  std::printf("%-40s %6s %8s %6s\n", "exchanged with, file", "cells", "refused", "right");
  for (const auto& [name, line] : table)
    std::printf("%-40s %6d %8d %6d\n", name.c_str(), line[0], line[1], line[2]);
  std::printf("%zu exchanges planned\n", plan.size());
}
