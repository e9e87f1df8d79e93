// Every call of the engine in a scripted run fails once, in every way: two lives of a store,
// opened, written to and ended, in order and by a power cut. What was acknowledged stays, the store
// opens again, and goes on. A run is a process of its own, for the server's answer to a disk that
// failed is to end: then the next start comes after a kill or, every other time, after a power cut.
// All indexes are tried in every run of this test, for the script is small; under a sanitizer some.
#include <sys/mman.h>
#include <sys/wait.h>
#include <spdlog/spdlog.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <catch2/catch.hpp>

#include "tests/fault/server_rig.h"
#include "tests/support/seed.h"
#include "tests/support/sizes.h"

using namespace dims;
using namespace dims::test;

namespace {

constexpr int kCommitsALife = 3;
constexpr unsigned kHangsAfterSeconds = 60;

// What the processes of a run tell each other.
struct Shared {
  RigMemory memory;
  bool hit = false;           // the fault was met
  bool ended_itself = false;  // the disk had failed
  bool aborted = false;       // the engine did
  char wrong[512] = {};

  void say(const std::string& what) { std::strncpy(wrong, what.c_str(), sizeof wrong - 1); }
};

struct Unmap {
  void operator()(Shared* shared) const { ::munmap(shared, sizeof *shared); }
};
using SharedPtr = std::unique_ptr<Shared, Unmap>;

SharedPtr make_shared_memory() {
  void* const at =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(at != MAP_FAILED);
  return SharedPtr(new (at) Shared());
}

std::function<void()> aborted;

void live(const std::string& folder, std::uint64_t call, FileFault fault, Shared& shared) {
  ServerRig rig(seed(), folder, shared.memory);
  const auto end = [&](bool power_cut) {
    shared.hit = shared.hit || rig.disk().failed_once();
    rig.disk().freeze();
    SeededRandom random(call);
    if (power_cut) rig.disk().apply(random);
    ::_exit(0);
  };
  rig.on_disk_failure = [&](const std::string&) {
    shared.ended_itself = true;
    end(call % 2 == 1);
  };
  // RocksDB 7.8 as Debian builds it has an assertion that may come first.
  aborted = [&] {
    shared.aborted = true;
    end(call % 2 == 1);
  };
  std::signal(SIGABRT, [](int) { aborted(); });
  const auto prepared = [&]() -> Status {
    DIMS_TRY(rig.open());
    DIMS_TRY(rig.make_image());
    DIMS_TRY(rig.acquire());
    return rig.commit_once();
  }();
  if (!prepared.ok()) return shared.say("no store: " + prepared.error().to_string());
  rig.close();
  rig.disk().fail_at(call, fault);
  for (int life = 0; life < 2; ++life) {
    if (!rig.open().ok()) {  // the fault may stop it, once
      rig.close();
      const Status again = rig.open();
      if (!again.ok()) return shared.say("cannot open: " + again.error().to_string());
    }
    (void)rig.acquire();
    for (int n = 0; n < kCommitsALife; ++n) (void)rig.commit_once();
    shared.hit = shared.hit || rig.disk().failed_once();
    if (life == 1) end(true);
    rig.close();
    shared.hit = shared.hit || rig.disk().failed_once();
  }
}

void look(const std::string& folder, Shared& shared) {
  ServerRig rig(seed() + 1, folder, shared.memory);
  const Status after = [&]() -> Status {
    DIMS_TRY(rig.open());
    if (const std::string wrong = rig.look(); !wrong.empty()) {
      shared.say(wrong);
      return ok_status();
    }
    DIMS_TRY(rig.acquire());
    DIMS_TRY(rig.commit_once());  // and it goes on
    if (const std::string wrong = rig.look(); !wrong.empty()) shared.say("gone on: " + wrong);
    return ok_status();
  }();
  if (!after.ok()) shared.say("afterwards: " + after.error().to_string());
}

pid_t in_a_process(const std::function<void()>& body) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child != 0) return child;
  ::alarm(kHangsAfterSeconds);
  body();
  ::_exit(0);
}

// One index at a time in each of two slots; the engine's own threads wait more than they work.
struct Run {
  SharedPtr shared;
  std::string folder;
  std::uint64_t call = 0;
  pid_t process = 0;
  bool looking = false;
};

// The engine's threads make the number of calls differ by a few: it ends where none is met any
// more, some times over.
void fail_every_call(FileFault fault) {
  spdlog::set_level(spdlog::level::off);
  const Calls calls = calls_to_fail();
  const std::uint64_t beyond = 7 + calls.step;
  std::uint64_t next = 1 + calls.first, last_hit = 0, hits = 0, ended = 0, aborts = 0, answered = 0;
  std::vector<Run> runs(2);
  std::vector<std::string> wrong;
  const auto begin = [&](Run& run) {
    run = Run{make_shared_memory(), scratch_folder(), next, 0, false};
    next += calls.step;
    run.process = in_a_process([&] { live(run.folder, run.call, fault, *run.shared); });
  };
  for (Run& run : runs) begin(run);
  while (true) {
    int status = 0;
    const pid_t done = ::waitpid(-1, &status, 0);
    if (done < 0) break;
    for (Run& run : runs) {
      if (run.process != done) continue;
      if (WIFSIGNALED(status)) {
        run.shared->say(WTERMSIG(status) == SIGALRM
                            ? std::string("it hangs")
                            : "it died of signal " + std::to_string(WTERMSIG(status)));
      }
      if (run.shared->wrong[0] == 0 && !run.looking) {
        run.looking = true;
        run.process = in_a_process([&] { look(run.folder, *run.shared); });
        continue;
      }
      if (run.shared->wrong[0] != 0)
        wrong.push_back("call " + std::to_string(run.call) + ": " + run.shared->wrong);
      if (run.shared->hit) ++hits, last_hit = std::max(last_hit, run.call);
      if (run.shared->ended_itself) ++ended;
      if (run.shared->aborted) ++aborts;
      answered += run.shared->memory.commits;
      std::filesystem::remove_all(run.folder);
      run.process = 0;
      if (next <= last_hit + beyond && wrong.size() < 10) begin(run);
    }
  }
  for (const std::string& one : wrong) CHECK(one == "");
  CHECK(hits * calls.step >= 10);
  std::printf(
      "%llu calls, each failed once, seed %llu: %llu times the server ended itself, %llu times "
      "the engine aborted, %llu commits answered, none lost\n",
      static_cast<unsigned long long>(hits), static_cast<unsigned long long>(seed()),
      static_cast<unsigned long long>(ended), static_cast<unsigned long long>(aborts),
      static_cast<unsigned long long>(answered));
}

}  // namespace

TEST_CASE("server_error_at_any_call_loses_no_commit") { fail_every_call(FileFault::kIo); }
TEST_CASE("server_without_space_at_any_call_loses_no_commit") {
  fail_every_call(FileFault::kNoSpace);
}
TEST_CASE("server_append_cut_short_anywhere_loses_no_commit") {
  fail_every_call(FileFault::kShortWrite);
}
TEST_CASE("server_sync_that_fails_and_then_lies_loses_no_commit") {
  fail_every_call(FileFault::kSync);
}
TEST_CASE("server_read_error_at_any_call_loses_no_commit") { fail_every_call(FileFault::kRead); }
