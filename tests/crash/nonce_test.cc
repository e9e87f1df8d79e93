// Nonces: over a thousand crashes, power cuts, reopenings and restored older copies of a machine's
// folder, no two messages are ever sealed under one key and nonce: journal, cache, state, keys,
// offline logins, objects. And: a generator that starts again is caught.
#include <catch2/catch.hpp>

#include <spdlog/spdlog.h>

#include <deque>

#include "common/crypto/aead.h"
#include "common/format/object.h"
#include "common/trust/offline_store.h"
#include "nbdkit-ldim/cache/page_cache.h"
#include "nbdkit-ldim/journal/journal.h"
#include "nbdkit-ldim/writeback/state_file.h"
#include "tests/support/nonce_book.h"
#include "tests/support/org_fixture.h"
#include "tests/support/seed.h"
#include "tests/support/sim_file.h"
#include "tests/support/sizes.h"

using namespace dims;
using namespace dims::test;

namespace {

// One machine's folder on a disk that crashes and goes back in time.
class Folder {
 public:
  explicit Folder(std::uint64_t seed_of_run)
      : choice_(seed_of_run),
        random_(seed_of_run ^ 0x5eed),
        org_(seed_of_run),
        disk_(std::make_unique<SimFileSystem>()),
        passphrase_{crypto::SecretKey::random(choice_),
                    crypto::SecretSigner::from_seed(crypto::SecretKey::random(choice_))},
        local_key_(choice_.id<Secret32>()) {
    journal_.folder = "/journal";
    cache_.folder = "/cache";
    for (MachineId* machine : {&journal_.machine, &cache_.machine}) *machine = org_.laptop.machine;
    journal_.image = cache_.image = org_.image;
    journal_.key = choice_.id<Secret32>();
    cache_.key = choice_.id<Secret32>();
    journal_.segment_bytes = 64 * kKiB;
    journal_.limit_bytes = kMiB;
    cache_.limit_bytes = ldim::PageCache::kMinLimitBytes;
    REQUIRE(disk_->make_folder("/journal").ok());
    REQUIRE(disk_->make_folder("/cache").ok());
  }

  // Opens everything, works, and ends somehow.
  void cycle(Random& random) {
    journal_.session = choice_.id<SessionId>();
    if (choice_.below(3) == 0) disk_->stop_at_call(disk_->calls() + 5 + choice_.below(150));
    work(random);
    past_.push_back(disk_->copy());
    if (past_.size() > 6) past_.pop_front();
    switch (choice_.below(4)) {
      case 0:  // killed
        disk_ = disk_->copy();
        break;
      case 1:  // a copy from earlier is put back
        disk_ = past_[choice_.below(past_.size())]->copy();
        ++rollbacks_;
        break;
      default:
        disk_ = disk_->after_power_cut(choice_.next());
        ++power_cuts_;
    }
  }
  void cycle() { cycle(random_); }
  std::uint64_t rollbacks() const { return rollbacks_; }
  std::uint64_t power_cuts() const { return power_cuts_; }
  std::uint64_t opened() const { return opened_; }

 private:
  void work(Random& random) {
    auto journal = ldim::Journal::open(*disk_, journal_, clock_, random);
    auto cache = ldim::PageCache::open(*disk_, cache_, random);
    ldim::StateFile state(*disk_, "/state", local_key_, journal_.machine, random);
    trust::OfflineStore offline({*disk_, "/offline", org_.org, org_.laptop.machine,
                                 org_.laptop.secret, clock_, boot_, random});
    opened_ += journal.ok() && cache.ok() ? 1u : 0u;
    for (std::uint64_t steps = 3 + choice_.below(12); steps > 0; --steps) {
      step(journal.ok() ? journal->get() : nullptr, cache.ok() ? cache->get() : nullptr, state,
           offline, random);
    }
  }

  void step(ldim::Journal* journal, ldim::PageCache* cache, ldim::StateFile& state,
            trust::OfflineStore& offline, Random& random) {
    switch (choice_.below(9)) {
      case 0:
      case 1:
      case 2:
        if (journal != nullptr) {
          const Bytes data = some_bytes(1 + choice_.below(3 * kPageBytes));
          (void)journal->append(ldim::WriteKind::kData, {choice_.below(64) * 512, data.size()},
                                data);
        }
        return;
      case 3:
        if (journal != nullptr) (void)journal->flush();
        return;
      case 4:
        if (journal != nullptr && journal->synced().epoch > 0)
          (void)journal->trim(journal->synced().epoch - choice_.below(2));
        return;
      case 5:
        if (journal != nullptr) (void)journal->merge({0, true, {}});
        return;
      case 6:
        if (cache != nullptr) {
          (void)cache->insert(choice_.id<ObjectId>(),
                              some_bytes((1 + choice_.below(3)) * kPageBytes), 1);
          (void)cache->sync();
        }
        return;
      case 7: {
        ldim::LdimState value;
        value.image_name = "disk" + std::to_string(choice_.below(1000));
        (void)state.store(value);
        const format::DomainKey domain(org_.domain, 1, local_key_);
        (void)format::seal_chunk(domain, some_bytes(kPageBytes), false);
        return;
      }
      default: {
        trust::UserRecord record;
        record.name = "alice";
        (void)offline.remember(org_.state(), record, passphrase_, org_.alice);
        (void)trust::encode_machine(org_.laptop, &local_key_, random);
      }
    }
  }

  Bytes some_bytes(std::uint64_t count) {
    Bytes data(count);
    choice_.fill(data);
    return data;
  }

  SeededRandom choice_;  // what happens
  SeededRandom random_;  // stands for the operating system's generator: it never starts again
  OrgFixture org_;
  ManualClock clock_;
  trust::BootId boot_;
  std::unique_ptr<SimFileSystem> disk_;
  std::deque<std::unique_ptr<SimFileSystem>> past_;
  trust::PassphraseKeys passphrase_;
  Secret32 local_key_;
  ldim::JournalOptions journal_;
  ldim::PageCacheOptions cache_;
  std::uint64_t rollbacks_ = 0, power_cuts_ = 0, opened_ = 0;
};

}  // namespace

TEST_CASE("nonces: unique over crashes, power cuts and restored copies") {
  spdlog::set_level(spdlog::level::off);
  const std::uint64_t cycles = rounds(1000, 10'000);
  NonceBook book;
  Folder folder(seed());
  for (std::uint64_t i = 0; i < cycles; ++i) folder.cycle();
  WARN(cycles << " cycles, " << folder.opened() << " opened, " << folder.rollbacks()
              << " rollbacks, " << folder.power_cuts() << " power cuts, " << book.seals()
              << " seals");
  CHECK(book.repeats() == 0);
  CHECK(book.seals() > 10 * cycles);
  CHECK(folder.opened() > cycles / 2);
}

TEST_CASE("nonces: a generator that starts again at every open is caught") {
  spdlog::set_level(spdlog::level::off);
  NonceBook book;
  Folder folder(seed());
  for (int i = 0; i < 20; ++i) {
    SeededRandom again(7);
    folder.cycle(again);
  }
  CHECK(book.repeats() > 0);
}
