// Bits flip, sectors come back from elsewhere or from earlier, in the journal, the cache, the other
// files, the stored objects and on the wire: the guest gets the right bytes or an error, never
// wrong ones, and no version holds any. DIMS_TEST_SIZE = damages.
#include <array>
#include <nlohmann/json.hpp>

#include "tests/sim/sim_machine.h"

using namespace dims;
using namespace dims::sim;

namespace {

// What the server's store does to an object or a record of a version.
enum class Rot { kBit, kHalf, kLost, kAnothers, kOlder, kRecordOlder, kRecordLost };
constexpr std::size_t kRots = 7;
constexpr std::array<const char*, kRots> kRotNames = {
    "a bit",         "half of it",      "lost",         "another object's bytes",
    "an older root", "an older record", "a lost record"};

struct Totals {
  std::uint64_t journal = 0, cache = 0, others = 0, stored = 0, wire = 0, steps = 0;
  std::array<std::uint64_t, kRots> rots{};
  std::uint64_t refused_reads = 0, refused_opens = 0, refused_commits = 0, worlds = 0;
  std::uint64_t damages() const { return journal + cache + others + stored + wire; }
};

// One range of a file that was changed, and what stood there.
struct Bent {
  std::string path;
  std::uint64_t offset = 0;
  Bytes before, after;
};

class Damaged {
 public:
  explicit Damaged(std::uint64_t seed)
      : world_(seed, 1024),
        random_(world_.random),
        machine_(world_, "pc", mix(seed), std::chrono::seconds(0), 0) {
    test::require_ok(machine_.open());
  }

  void live(int steps, Totals& totals) {
    for (int step = 0; step < steps; ++step) {
      work();
      if (random_.below(4) == 0) remember();
      ++totals.steps;
      const std::uint64_t what = random_.below(100);
      if (what < 28)
        journal_live(totals);
      else if (what < 50)
        cache_live(totals);
      else if (what < 61)
        journal_restart(totals);
      else if (what < 66)
        cache_restart(totals);
      else if (what < 71)
        other_file(totals);
      else if (what < 99)
        stored(totals);
      else
        wire(totals);
      world_.check_versions({&machine_});
    }
    REQUIRE(machine_.flush());
    machine_.commit_all();
    machine_.read_all();
    world_.check_versions({&machine_});
    ++totals.worlds;
  }

 private:
  void work() {
    for (std::uint64_t i = 1 + random_.below(4); i > 0; --i) {
      if (random_.below(5) == 0)
        REQUIRE(machine_.flush());
      else
        REQUIRE(machine_.write());
    }
    if (random_.below(6) == 0) {
      const auto done = machine_.commit();
      REQUIRE(done.ok());
    }
  }

  std::vector<std::string> files_of(const std::string& folder) {
    std::vector<std::string> out;
    const auto names = machine_.files().list(folder);
    if (names.ok()) {
      for (const std::string& name : *names) out.push_back(folder + "/" + name);
    }
    return out;
  }

  // For damage with old bytes.
  void remember() {
    old_.clear();
    for (const char* folder : {"/ldim/journal", "/ldim/cache", "/ldim"}) {
      for (const std::string& path : files_of(folder)) old_[path] = machine_.files().peek(path);
    }
  }

  std::optional<Bent> bend(const std::vector<std::string>& paths) {
    if (paths.empty()) return std::nullopt;
    Bent bent;
    bent.path = paths[random_.below(paths.size())];
    const Bytes now = machine_.files().peek(bent.path);
    std::size_t used = now.size();
    while (used > 0 && now[used - 1] == 0) --used;
    if (used == 0) return std::nullopt;
    std::size_t at = random_.below(used);
    const std::uint64_t kind = random_.below(8);
    Bytes put;
    if (kind < 3) {
      put = {static_cast<std::uint8_t>(now[at] ^ (1u << random_.below(8)))};
    } else {
      at = at / kSectorBytes * kSectorBytes;
      const std::size_t count =
          std::min<std::size_t>(now.size() - at, kSectorBytes * (1 + random_.below(8)));
      if (kind < 5) {  // misdirected: from elsewhere
        const Bytes from = machine_.files().peek(paths[random_.below(paths.size())]);
        if (from.size() <= count) return std::nullopt;
        const std::size_t other = random_.below(from.size() - count) / kSectorBytes * kSectorBytes;
        put.assign(from.begin() + static_cast<std::ptrdiff_t>(other),
                   from.begin() + static_cast<std::ptrdiff_t>(other + count));
      } else if (kind < 7) {  // old but valid
        const auto old = old_.find(bent.path);
        if (old == old_.end() || old->second.size() < at + count) return std::nullopt;
        put.assign(old->second.begin() + static_cast<std::ptrdiff_t>(at),
                   old->second.begin() + static_cast<std::ptrdiff_t>(at + count));
      } else {
        put.assign(count, 0);
      }
    }
    bent.offset = at;
    bent.before.assign(now.begin() + static_cast<std::ptrdiff_t>(at),
                       now.begin() + static_cast<std::ptrdiff_t>(at + put.size()));
    if (bent.before == put) return std::nullopt;
    machine_.files().poke(bent.path, at, put);
    bent.after = std::move(put);
    return bent;
  }

  void mend(const Bent& bent) {
    // The file may be gone, or have been written again.
    const Bytes now = machine_.files().peek(bent.path);
    if (now.size() < bent.offset + bent.after.size()) return;
    if (std::equal(bent.after.begin(), bent.after.end(),
                   now.begin() + static_cast<std::ptrdiff_t>(bent.offset)))
      machine_.files().poke(bent.path, bent.offset, bent.before);
  }

  void journal_live(Totals& totals) {
    const auto bent = bend(files_of("/ldim/journal"));
    if (!bent) return;
    ++totals.journal;
    totals.refused_reads += machine_.read_or_refuse();
    if (random_.below(4) == 0) {
      const auto done = machine_.commit();
      if (!done.ok()) ++totals.refused_commits;
    }
    mend(*bent);
  }

  void cache_live(Totals& totals) {
    if (!bend(files_of("/ldim/cache"))) return;
    ++totals.cache;
    machine_.read_all();  // damaged = absent: fetched again
  }

  void reopen_bent(const std::optional<Bent>& bent, Totals& totals) {
    const Status opened = machine_.open();
    if (opened.ok()) {
      if (bent) mend(*bent);  // damage where nothing is read now may matter later
      return;
    }
    ++totals.refused_opens;
    INFO("DIMS_TEST_SEED=" << world_.seed << " " << opened.error().to_string());
    REQUIRE(bent.has_value());
    mend(*bent);
    test::require_ok(machine_.open());
  }

  void journal_restart(Totals& totals) {
    machine_.kill_before_damage();
    const auto bent = bend(files_of("/ldim/journal"));
    if (bent) ++totals.journal;
    reopen_bent(bent, totals);
  }

  void cache_restart(Totals& totals) {
    machine_.kill();
    if (bend(files_of("/ldim/cache"))) ++totals.cache;
    test::require_ok(machine_.open());  // whatever happened to the cache
  }

  void other_file(Totals& totals) {
    machine_.kill();
    const auto bent = bend({"/ldim/state", "/ldim/identity", "/ldim/keys", "/ldim/machine-secret"});
    if (bent) ++totals.others;
    reopen_bent(bent, totals);
  }

  void wipe_cache() {
    machine_.kill();
    for (const std::string& path : files_of("/ldim/cache")) machine_.files().erase(path);
  }

  Bytes object_of(const format::ObjectKey& key) {
    Bytes bytes;
    world_.server.objects().get({&key, 1}, [&](std::size_t, Result<Bytes> object) {
      if (object.ok()) bytes = *object;
      return true;
    });
    return bytes;
  }

  // The head's record and its parent's, as they are stored.
  struct Head {
    std::string row;
    Bytes bytes, parents;
    format::VersionRecord record, parent;
  };
  std::optional<Head> head() {
    const auto info = world_.server.catalog().get_image(world_.image);
    REQUIRE(info.ok());
    Head out;
    out.row = catalog::version_key(info->head);
    const auto row = world_.server.refs().get(out.row);
    if (!row.ok() || !*row) return std::nullopt;
    out.bytes = (*row)->value;
    out.record = *format::decode_version(out.bytes, false);
    const auto parent = world_.server.refs().get(catalog::version_key(out.record.parent));
    if (!parent.ok() || !*parent) return std::nullopt;
    out.parents = (*parent)->value;
    out.parent = *format::decode_version(out.parents, false);
    return out;
  }
  void set_row(const std::string& name, const std::optional<Bytes>& value) {
    auto& refs = world_.server.refs();
    const auto now = refs.get(name);
    if (now.ok() && *now) REQUIRE(refs.remove(name, (*now)->revision).ok());
    if (value) REQUIRE(refs.put(name, *value, 0).ok());
  }

  // Something rots at the server; what cannot be read is refused, and a put heals it.
  void stored(Totals& totals) {
    wipe_cache();
    const auto keys = world_.server.objects().list(std::nullopt, 100000);
    REQUIRE(keys.ok());
    format::ObjectKey key = (*keys)[random_.below(keys->size())];
    const auto rot = static_cast<Rot>(random_.below(kRots));
    const auto newest = head();
    if (rot >= Rot::kOlder && !newest) return test::require_ok(machine_.open());
    if (rot == Rot::kOlder) key = newest->record.root;
    const Bytes good = object_of(key);
    Bytes bad;
    if (rot == Rot::kHalf) bad = Bytes(good.data(), good.data() + good.size() / 2);
    if (rot == Rot::kAnothers) bad = object_of((*keys)[random_.below(keys->size())]);
    if (rot == Rot::kOlder) bad = object_of(newest->parent.root);
    if (rot == Rot::kBit) {
      world_.server.objects().damage(key);
    } else if (rot == Rot::kLost) {
      REQUIRE(world_.server.objects().remove(key).ok());
    } else if (rot < Rot::kRecordOlder) {
      if (bad == good) return test::require_ok(machine_.open());
      world_.server.objects().misdirect(key, bad);
    } else {
      set_row(newest->row,
              rot == Rot::kRecordLost ? std::nullopt : std::optional<Bytes>(newest->parents));
    }
    ++totals.stored;
    ++totals.rots[static_cast<std::size_t>(rot)];
    const bool opened = try_open_refusing();
    if (opened) totals.refused_reads += machine_.read_or_refuse();
    totals.refused_opens += opened ? 0 : 1;
    if (rot >= Rot::kRecordOlder) {
      set_row(newest->row, newest->bytes);
    } else {
      (void)world_.server.objects().remove(key);
      const contract::ObjectStore::PutItem item{key, good};
      REQUIRE(world_.server.objects().put({&item, 1}).ok());
    }
    if (!machine_.is_open()) test::require_ok(machine_.open());
    machine_.read_all();
  }

  bool try_open_refusing() {
    machine_.skip_reading_at_open(true);
    const Status opened = machine_.open();
    machine_.skip_reading_at_open(false);
    return opened.ok();
  }

  // Everything is fetched again while a third of what arrives is damaged or another object.
  void wire(Totals& totals) {
    wipe_cache();
    REQUIRE(try_open_refusing());
    const auto keys = world_.server.objects().list(std::nullopt, 100);
    REQUIRE(keys.ok());
    world_.server.objects().get({keys->data() + random_.below(keys->size()), 1},
                                [&](std::size_t, Result<Bytes> object) {
                                  if (object.ok()) machine_.remote().set_stand_in(*object);
                                  return true;
                                });
    const std::uint64_t before = machine_.remote().wire_damages();
    machine_.remote().set_plan({0, 0, 400});
    for (int i = 0; i < 2; ++i) totals.refused_reads += machine_.read_or_refuse();
    machine_.remote().set_plan({});
    machine_.read_all();
    totals.wire += machine_.remote().wire_damages() - before;
  }

  World world_;
  SeededRandom& random_;
  SimMachine machine_;
  std::map<std::string, Bytes> old_;
};

}  // namespace

TEST_CASE("damage_anywhere_never_gives_the_guest_a_wrong_byte") {
  const std::uint64_t wanted = test::rounds(5000, 100000);
  Totals totals;
  while (totals.damages() < wanted) {
    const std::uint64_t seed = test::seed() + totals.worlds;
    INFO("DIMS_TEST_SEED=" << seed);
    Damaged world(seed);
    world.live(120, totals);
  }
  std::printf(
      "damages: journal %llu, cache %llu, other files %llu, stored objects %llu, wire %llu; "
      "refused: "
      "%llu reads, %llu starts, %llu commits; %llu worlds\n",
      static_cast<unsigned long long>(totals.journal),
      static_cast<unsigned long long>(totals.cache), static_cast<unsigned long long>(totals.others),
      static_cast<unsigned long long>(totals.stored), static_cast<unsigned long long>(totals.wire),
      static_cast<unsigned long long>(totals.refused_reads),
      static_cast<unsigned long long>(totals.refused_opens),
      static_cast<unsigned long long>(totals.refused_commits),
      static_cast<unsigned long long>(totals.worlds));
  for (std::size_t n = 0; n < kRots; ++n) {
    std::printf("  stored, %s: %llu of %llu steps\n", kRotNames[n],
                static_cast<unsigned long long>(totals.rots[n]),
                static_cast<unsigned long long>(totals.steps));
    // Several steps in a hundred each.
    if (totals.steps >= 1000) CHECK(totals.rots[n] * 50 >= totals.steps);
  }
}
