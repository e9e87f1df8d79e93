// rdim-server as its user meets it: command line, exit codes, signals, folders, addresses.
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <grpcpp/grpcpp.h>

#include <filesystem>
#include <fstream>
#include <catch2/catch.hpp>

#include "tests/contract/server_channel.h"
#include "tests/contract/temp_folder.h"

#include "dims/v1/dims.grpc.pb.h"

using namespace dims;
using test::run_server;
using test::ServerProcess;
namespace fs = std::filesystem;

namespace {

bool says(const test::Outcome& outcome, const std::string& text) {
  INFO(outcome.output);
  return outcome.output.find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("the command line is explained and its mistakes are named") {
  const auto version = run_server({"--version"});
  CHECK(version.exit_code == 0);
  CHECK(says(version, "rdim-server 0."));
  CHECK(run_server({"--help"}).exit_code == 0);
  CHECK(run_server({}).exit_code == 2);
  const auto no_listen = run_server({"--data", "/nowhere"});
  CHECK(no_listen.exit_code == 2);
  CHECK(says(no_listen, "--listen"));
  const auto term =
      run_server({"--data", "/nowhere", "--listen", "127.0.0.1:0", "--lease-term", "soon"});
  CHECK(term.exit_code == 2);
  CHECK(says(term, "soon"));
}

TEST_CASE("a store is made private and stopped cleanly by a signal") {
  const test::TempFolder folder;
  const std::string data = folder.path + "/data";
  for (const int signal_number : {SIGTERM, SIGINT}) {
    ServerProcess server(data);
    struct stat info {};
    REQUIRE(stat(data.c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == 0700);
    CHECK(server.end(signal_number) == 0);
  }
}

TEST_CASE("as many files may be open as the host allows") {
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  rlimit few = before;
  few.rlim_cur = 128;
  REQUIRE(setrlimit(RLIMIT_NOFILE, &few) == 0);
  const test::TempFolder folder;
  ServerProcess server(folder.path + "/data");
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
  rlimit now{};
  REQUIRE(prlimit(server.pid(), RLIMIT_NOFILE, nullptr, &now) == 0);
  CHECK(now.rlim_cur == before.rlim_max);
}

TEST_CASE("what it cannot serve it refuses, says why, and leaves alone") {
  const test::TempFolder folder;
  const std::string data = folder.path + "/data";
  ServerProcess server(data);
  const auto twice = run_server({"--data", data, "--listen", "127.0.0.1:0"});
  CHECK(twice.exit_code == 3);
  CHECK(says(twice, "open in another process"));
  const auto taken = run_server({"--data", folder.path + "/other", "--listen", server.address()});
  CHECK(taken.exit_code == 4);
  CHECK(says(taken, "is in use"));
  const auto nowhere = run_server({"--data", folder.path + "/other", "--listen", "192.0.2.1:7440"});
  CHECK(nowhere.exit_code == 4);
  CHECK(says(nowhere, "192.0.2.1:7440"));
  const auto no_port = run_server({"--data", folder.path + "/other", "--listen", "localhost"});
  CHECK(no_port.exit_code == 4);

  const std::string foreign = folder.path + "/foreign";
  fs::create_directory(foreign);
  std::ofstream(foreign + "/FORMAT") << "dims-store 9\n";
  const auto future = run_server({"--data", foreign, "--listen", "127.0.0.1:0"});
  CHECK(future.exit_code == 3);
  CHECK(says(future, "format 9"));
  CHECK(std::distance(fs::directory_iterator(foreign), fs::directory_iterator()) == 1);
  const auto parent = run_server({"--data", folder.path + "/a/b/c", "--listen", "127.0.0.1:0"});
  CHECK(parent.exit_code == 3);
  CHECK(says(parent, folder.path + "/a/b/c"));
}

TEST_CASE("a socket of the file system serves too, and nobody takes it from a living server") {
  const test::TempFolder folder;
  const std::string address = "unix:" + folder.path + "/rdim.sock";
  ServerProcess server(folder.path + "/data", {"--listen", address});
  const auto second = run_server({"--data", folder.path + "/other", "--listen", address});
  CHECK(second.exit_code == 4);
  CHECK(says(second, "is in use"));
  const auto stub =
      v1::Dims::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::StoreInfoReply info;
  CHECK(stub->StoreInfo(&context, {}, &info).ok());
  // A dead server's socket is in nobody's way.
  CHECK(server.end(SIGKILL) == 128 + SIGKILL);
  ServerProcess next(folder.path + "/data", {"--listen", address});
  CHECK(next.end(SIGTERM) == 0);
}

TEST_CASE("open streams do not hold up the end") {
  const test::TempFolder folder;
  ServerProcess server(folder.path + "/data");
  const auto stub = v1::Dims::NewStub(test::channel_to(server));
  grpc::ClientContext watch_context, get_context;
  const auto watch = stub->Watch(&watch_context, {});
  v1::Event event;
  REQUIRE(watch->Read(&event));
  CHECK(event.kind() == v1::Event::READY);
  const auto get = stub->Get(&get_context);
  v1::GetRequest request;
  request.set_request(1);
  REQUIRE(get->Write(request));
  v1::GetReply reply;
  REQUIRE(get->Read(&reply));  // an error of the request: no image
  CHECK(reply.has_error());
  CHECK(server.end(SIGTERM) == 0);
  CHECK(!watch->Read(&event));
  CHECK(watch->Finish().error_code() == grpc::StatusCode::UNAVAILABLE);
  CHECK(!get->Read(&reply));
  CHECK(get->Finish().error_code() == grpc::StatusCode::UNAVAILABLE);
}
