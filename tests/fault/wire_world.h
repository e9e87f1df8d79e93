// A real server in this process, over stores in memory; a line that breaks before it; and machines
// that work over the line with the real client under the real disk.
//
// Threads: WireServer: one owner. WireWorld: run() by one thread, which starts one more; worlds are
// independent, so many may run side by side. Ownership: totals outlive worlds. Units: sectors of
// 512 bytes, faults. Errors: run() says what is wrong, empty = right; only their making asserts.
#pragma once

#include <condition_variable>
#include <map>
#include <set>

#include "common/client/client.h"
#include "common/io/memory_file.h"
#include "rdim-server/services/server.h"
#include "rdim-server/stores/memory_stores.h"
#include "tests/contract/temp_folder.h"
#include "tests/fault/counting_remote.h"
#include "tests/fault/wire_proxy.h"
#include "tests/sim/guest_history.h"
#include "tests/support/disk_fixture.h"

namespace dims::test {

class WireServer {
 public:
  WireServer(std::uint64_t seed, std::chrono::milliseconds lease_term);
  ~WireServer();
  // For proxies.
  const std::string& tcp() const { return server_->addresses()[0]; }
  const std::string& local() const { return server_->addresses()[1]; }
  // What a client of `address`, "127.0.0.1:PORT" or "unix:PATH", is given.
  std::string known(const std::string& address) const;
  std::unique_ptr<contract::Remote> connect(
      const std::string& address, const std::function<void(client::ClientOptions&)>& change =
                                      [](client::ClientOptions&) {}) const;
  const std::string& folder() const { return folder_.path; }

 private:
  sim::LockedRandom random_;
  TempFolder folder_;
  stores::MemoryObjectStore objects_{system_clock()};
  stores::MemoryRefStore refs_;
  std::unique_ptr<access::AccessControl> control_;
  std::unique_ptr<catalog::Catalog> catalog_;
  std::unique_ptr<catalog::Maintenance> maintenance_;
  std::unique_ptr<services::RdimServer> server_;
  std::string fingerprint_;
};

// Of all worlds of a run.
struct WireTotals {
  explicit WireTotals(std::uint64_t faults_wanted) : wanted(faults_wanted) {}
  const std::uint64_t wanted;
  std::atomic<std::uint64_t> faults{0}, begun{0}, worlds{0};
  std::array<std::atomic<std::uint64_t>, kWireFaultKinds> kinds{};
  WireCounts counts;
  std::atomic<std::uint64_t> versions{0}, reads{0}, flushes{0}, commits_failed{0}, kills{0},
      sessions{0}, machines{0}, bytes_passed{0}, bytes_lost{0};
  std::mutex making;  // Catch takes one assertion at a time

  // Grows as long as anything moves.
  std::uint64_t movement() const { return faults + versions + reads + flushes + worlds; }
};

class WireWorld {
 public:
  WireWorld(std::uint64_t seed, WireTotals& totals);
  ~WireWorld();
  // Works until so many faults have happened, leaves the line whole, lets everything arrive.
  std::string run(std::uint64_t faults);

 private:
  // A machine: its folder, its line, its connection, its disk.
  struct Machine {
    std::unique_ptr<io::MemoryFileSystem> files = std::make_unique<io::MemoryFileSystem>();
    std::unique_ptr<BreakingProxy> line;
    std::unique_ptr<contract::Remote> remote;
    std::unique_ptr<ldim::Disk> disk;
    std::atomic<std::uint64_t> faults{0};
    SeededRandom fates{0};  // of its proxy's thread
  };

  void make_line(Machine& machine, std::uint64_t seed);
  std::optional<WireFault> draw_fault(SeededRandom& random) const;
  void connect(Machine& machine, SeededRandom& random) const;
  bool broken_enough() const;
  bool stopped() const { return stop_; }
  void say(const std::string& what);

  // The writer, and what judges it.
  void work();
  void step();
  void write_some();
  void zero_some();
  void flush();
  void read_some(std::uint64_t count);
  bool commit();
  void kill();
  void end_session(bool leave_machine);
  void open_writer();
  void drain();
  void judge();
  std::uint64_t draw_range(std::uint64_t& first, std::uint64_t most);
  Result<sim::Stamps> stamps_of(const VersionId& version);

  // The reader, on a thread of its own.
  void read_along();
  bool open_reader(VersionId& version);
  void compare_all(ldim::Disk& disk, const sim::Stamps& wanted, const std::string& who);

  const std::uint64_t seed_;
  WireTotals& totals_;
  SeededRandom random_, reader_random_;
  sim::LockedRandom disk_random_;
  const bool over_tls_;
  const std::uint64_t patience_most_ms_;  // of a fault that waits for bytes
  std::unique_ptr<WireServer> server_;
  std::unique_ptr<contract::Remote> clean_;  // beside the line, for the judge
  std::unique_ptr<TemporaryKey> key_;
  ldim::DiskOptions options_;
  std::uint64_t wanted_ = 0;
  std::atomic<std::uint64_t> faults_{0};
  std::atomic<bool> stop_{false}, healed_{false};
  ImageId image_;
  Machine writer_, reader_;

  sim::GuestHistory history_;
  std::uint32_t next_stamp_ = 1;
  std::uint64_t last_point_ = 0;
  std::set<VersionId> seen_;

  std::mutex wrong_mutex_;
  std::string wrong_;
};

}  // namespace dims::test
