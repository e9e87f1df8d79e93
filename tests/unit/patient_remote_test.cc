// Transfers that wait for a server that goes away in the middle.
#include <thread>

#include "image-tools/transfer/patient_remote.h"
#include "tests/unit/import_fixture.h"

using namespace dims;
using namespace dims::test;

namespace {

Error away() { return make_error(ErrorCode::kUnavailable, "injected"); }

// An import and an export of it over `remote`, compared.
Status there_and_back(ImportBench& bench, contract::Remote& remote, const MemoryDisk& disk) {
  transfer::Progress progress;
  MemorySource source(disk);
  transfer::ImportOptions options;
  options.name = "image";
  DIMS_ASSIGN(const auto report, transfer::import_image({remote, source, bench.clock, bench.random},
                                                        bench.key, bench.who, options, progress));
  DIMS_ASSIGN(const auto image, remote.get_image(report.image));
  DIMS_ASSIGN(const auto version, transfer::find_version(remote, image, ""));
  MemoryTarget target(disk.bytes, false, true);
  DIMS_TRY(transfer::export_version(remote, bench.key, image, version, target, {}, progress));
  CHECK((target.pages == disk.pages));
  return ok_status();
}

}  // namespace

TEST_CASE("a transfer waits for a server that goes away at any call, and sends nothing twice") {
  for (const RemoteCall call :
       {RemoteCall::kHello, RemoteCall::kImages, RemoteCall::kLease, RemoteCall::kHas,
        RemoteCall::kPut, RemoteCall::kCommit, RemoteCall::kVersions, RemoteCall::kGet}) {
    for (const bool lost_answer : {false, true}) {
      ImportBench bench;
      INFO("call " << static_cast<int>(call) << (lost_answer ? ", applied" : ", not applied"));
      const MemoryDisk disk = test::random_disk(bench.random, 5 * kMiB, 40);
      transfer::Progress progress;
      transfer::PatientRemote patient(bench.remote, std::chrono::minutes(5), system_clock(),
                                      progress);
      if (lost_answer)
        bench.remote.lose_replies(call, 2);
      else
        bench.remote.fail(call, away(), 2);
      const Status done = there_and_back(bench, patient, disk);
      INFO((done.ok() ? "" : done.error().to_string()));
      REQUIRE(done.ok());
      const auto image = bench.remote.find_image("image");
      CHECK(bench.remote.list_versions(image->id, 0)->size() == 1);
    }
  }
}

TEST_CASE("a transfer goes on when the line is back") {
  ImportBench bench;
  const MemoryDisk disk = test::random_disk(bench.random, 20 * kMiB, 60);
  transfer::Progress progress;
  transfer::PatientRemote patient(bench.remote, std::chrono::minutes(5), system_clock(), progress);
  bench.remote.hold(RemoteCall::kPut);
  std::thread line([&] {
    while (bench.remote.waiting(RemoteCall::kPut) == 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    bench.remote.set_available(false);  // ends what is held
    bench.remote.release(RemoteCall::kPut);
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    bench.remote.set_available(true);
  });
  const Status done = there_and_back(bench, patient, disk);
  line.join();
  INFO((done.ok() ? "" : done.error().to_string()));
  CHECK(done.ok());
}

TEST_CASE("a call after a long time without any has its own patience") {
  ImportBench bench;
  transfer::Progress progress;
  transfer::PatientRemote patient(bench.remote, std::chrono::minutes(2), bench.clock, progress);
  REQUIRE(patient.hello().ok());
  bench.clock.advance(std::chrono::minutes(10));  // zeros, or a target that takes its time
  bench.remote.fail(RemoteCall::kHello, away(), 2);
  CHECK(patient.hello().ok());
}

TEST_CASE("patience has an end, and an interrupt ends it at once") {
  ImportBench bench;
  const MemoryDisk disk = test::random_disk(bench.random, kMiB, 60);
  {
    transfer::Progress progress;
    transfer::PatientRemote brief(bench.remote, std::chrono::milliseconds(300), system_clock(),
                                  progress);
    bench.remote.set_available(false);
    const Status failed = there_and_back(bench, brief, disk);
    REQUIRE(!failed.ok());
    CHECK(failed.error().code == ErrorCode::kUnavailable);
  }
  {
    transfer::Progress progress;
    transfer::PatientRemote patient(bench.remote, std::chrono::hours(24), system_clock(), progress);
    std::thread interrupt([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      progress.cancel = true;
    });
    CHECK(!there_and_back(bench, patient, disk).ok());
    interrupt.join();
  }
  transfer::Progress progress;
  transfer::PatientRemote none(bench.remote, std::chrono::milliseconds(0), system_clock(),
                               progress);
  bench.remote.set_available(true);
  bench.remote.fail(RemoteCall::kHas, away(), 1);
  CHECK(there_and_back(bench, none, disk).error().code == ErrorCode::kUnavailable);
  CHECK(there_and_back(bench, none, disk).ok());
}
