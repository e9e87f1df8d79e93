// World: one server, one image, its key, the writes' numbers, and the judge of versions.
// SimMachine: one LDIM host: simulated disk, clock, connection, the real Disk, and what its guest
// knows. DIMS_TEST_LOG=1 shows what the product logs.
//
// Threads: one test drives all. Ownership: the world outlives its machines. Errors: what is wrong
// is REQUIREd here, with the seed in the message; what a fault may cause is returned.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "tests/sim/guest_history.h"
#include "tests/sim/sim_remote.h"
#include "tests/support/disk_fixture.h"

namespace dims::sim {

class SimMachine;

class World {
 public:
  World(std::uint64_t seed, std::uint64_t sectors);

  std::uint32_t next_stamp() { return next_stamp_++; }
  // Every version that the server showed since the last call is a flush point of the machine that
  // signed for it, in order; and the judge of leases is content.
  void check_versions(std::vector<SimMachine*> machines);
  // Whether any version that the server holds has this content.
  bool holds(std::uint64_t hash);
  // For messages: the version not judged yet that is most like `wanted`.
  std::string nearest(const Stamps& wanted);
  Stamps stamps_of_head(const ImageId& image);
  Stamps stamps_of_version(const ImageId& image, const VersionId& version);
  std::uint64_t versions_checked() const { return versions_checked_; }

  const std::uint64_t seed;
  const std::uint64_t sectors;
  SeededRandom random;
  SimClock clock;
  SimServer server;
  test::TemporaryKey key;
  SimRemote clean;  // without faults, for judges
  ImageId image;

 private:
  std::uint32_t next_stamp_ = 1;
  std::uint64_t versions_checked_ = 0;
  struct Shown {
    std::string name;
    format::VersionRecord record;
    Stamps stamps;
    std::uint64_t hash = 0;
  };
  void visit_new();

  std::set<VersionId> seen_;
  std::vector<Shown> to_judge_;  // parents first
  std::set<std::uint64_t> contents_;
};

class SimMachine {
 public:
  SimMachine(World& world, std::string name, std::uint64_t seed, std::chrono::seconds clock_off,
             int clock_permille);
  ~SimMachine();

  // The disk of this machine is opened; a session that begins anew takes the server's head as the
  // guest's content. An error is returned only while the network may be at fault.
  Status open();
  // open() does not compare the whole content: for damage that makes reads fail.
  void skip_reading_at_open(bool skip) { skip_reading_ = skip; }
  bool is_open() const { return disk_ != nullptr; }
  ldim::Disk& disk() { return *disk_; }
  test::SimFileSystem& files() { return *files_; }
  SimRemote& remote() { return remote_; }
  GuestHistory& history() { return history_; }
  const MachineId& id() const { return id_; }
  std::uint64_t last_point = 0;  // the flush point of the newest version checked

  // One request of the guest, drawn; false: the disk refused it (only after arm_power_cut()).
  bool write();
  bool zero();
  bool flush();
  void read_some();  // and compares
  void read_all();
  // The same in small reads, each of which is right or refused; how many were refused.
  std::uint64_t read_or_refuse();
  // One attempt of the write-back.
  Result<bool> commit();
  // Attempts until everything flushed is on the server; the network must let it through.
  void commit_all();
  // The process dies; the kernel keeps what it has. The next open() finds it.
  void kill();
  // The host loses power; the next open() finds what that leaves.
  void power_cut();
  // Dead, and then something bent the files: what was not flushed may be gone.
  void kill_before_damage();
  // The power goes at one of the next file calls; requests fail from then on.
  void arm_power_cut();
  // The next attempt of the write-back stops behind this step; then kill() or power_cut().
  void stop_behind(ldim::CommitStep step) { stop_behind_ = step; }
  // The guest is shut down; the session ends, in order.
  void end_session();
  nlohmann::json status();

 private:
  // A journal that is half full ends its epoch by itself, to be merged or sent.
  void note_crowded();
  enum class After { kFresh, kKill, kPowerCut, kClosed };
  ByteRange drawn_range(std::uint64_t& first, std::uint64_t& count);
  void learn_identity();
  bool rewind_to_held(std::size_t first_moment);
  void begin_session(const VersionId& version, bool unsent);

  World& world_;
  SeededRandom random_;
  LockedRandom disk_random_;
  SkewedClock clock_;
  std::unique_ptr<test::SimFileSystem> files_ = std::make_unique<test::SimFileSystem>();
  SimRemote remote_;
  ldim::DiskOptions options_;
  std::optional<ldim::CommitStep> stop_behind_;
  After after_ = After::kFresh;
  bool skip_reading_ = false;
  std::string session_;
  MachineId id_;
  GuestHistory history_;
  std::unique_ptr<ldim::Disk> disk_;
};

}  // namespace dims::sim
