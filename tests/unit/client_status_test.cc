// Errors on the wire, and addresses.
#include <catch2/catch.hpp>

#include "common/client/channel.h"
#include "common/client/grpc_status.h"
#include "tests/unit/client_fixture.h"

using namespace dims;
using namespace dims::test;

TEST_CASE("every error of ours crosses the wire whole") {
  for (int i = static_cast<int>(ErrorCode::kInvalidArgument);
       i <= static_cast<int>(ErrorCode::kInternal); ++i) {
    const Error error{static_cast<ErrorCode>(i), "what and where", "what to do", "who"};
    const grpc::Status status = client::to_grpc(error);
    CHECK(!status.ok());
    const Error back = client::from_grpc(status, "host:1");
    CHECK(back.code == error.code);
    CHECK(back.message == error.message);
    CHECK(back.hint == error.hint);
    CHECK(back.holder == error.holder);
    CHECK(client::from_detail(client::to_detail(error)).code == error.code);
  }
}

TEST_CASE("a status without detail still becomes the nearest error and names the server") {
  using grpc::StatusCode;
  const auto code_of = [](StatusCode code, const char* message = "m") {
    const Error error = client::from_grpc(grpc::Status(code, message), "host:1");
    CHECK(error.message.find("host:1") != std::string::npos);
    CHECK(error.message.find(message) != std::string::npos);
    return error.code;
  };
  CHECK(code_of(StatusCode::UNAVAILABLE) == ErrorCode::kUnavailable);
  CHECK(code_of(StatusCode::CANCELLED) == ErrorCode::kUnavailable);
  CHECK(code_of(StatusCode::NOT_FOUND) == ErrorCode::kNotFound);
  CHECK(code_of(StatusCode::UNAUTHENTICATED) == ErrorCode::kPermissionDenied);
  CHECK(code_of(StatusCode::UNIMPLEMENTED) == ErrorCode::kUnsupported);
  CHECK(code_of(StatusCode::RESOURCE_EXHAUSTED) == ErrorCode::kResourceExhausted);
  CHECK(code_of(StatusCode::DATA_LOSS) == ErrorCode::kCorrupt);
  CHECK(code_of(StatusCode::INTERNAL) == ErrorCode::kInternal);
  CHECK(code_of(StatusCode::INTERNAL, "Received RST_STREAM with error code 2") ==
        ErrorCode::kUnavailable);
  CHECK(code_of(StatusCode::UNKNOWN, "Stream removed") == ErrorCode::kUnavailable);
  const Error odd =
      client::from_grpc(grpc::Status(StatusCode::ABORTED, "m", "\xff not a message"), "host:1");
  CHECK(odd.code == ErrorCode::kConflict);
  v1::ErrorDetail unknown;
  unknown.set_code("code-of-the-future");
  unknown.set_message("still readable");
  const Error future = client::from_detail(unknown);
  CHECK(future.code == ErrorCode::kInternal);
  CHECK(future.message == "still readable");
}

TEST_CASE("bare errors of a running server are mapped by their status") {
  ClientFixture f;
  f.server.behaviour().set([](Behaviour& b) { b.bare_errors = true; });
  const auto missing = f.remote->find_image("nothing");
  REQUIRE(!missing.ok());
  CHECK(missing.error().code == ErrorCode::kNotFound);
  CHECK(missing.error().message.find(f.server.address()) != std::string::npos);
}

TEST_CASE("addresses") {
  CHECK(client::parse_endpoint("127.0.0.1:7440", {})->target == "dns:///127.0.0.1:7440");
  CHECK(client::parse_endpoint("rdim.example:7440", {})->target == "dns:///rdim.example:7440");
  CHECK(client::parse_endpoint("[::1]:7440", {})->target == "dns:///[::1]:7440");
  CHECK(client::parse_endpoint("unix:/run/rdim.sock", {})->target == "unix:/run/rdim.sock");
  for (const std::string& bad : {std::string(), std::string("host"), std::string("host:0x1"),
                                 std::string("unix:"), "unix:/" + std::string(200, 'x')}) {
    INFO(bad);
    client::ClientOptions options;
    options.address = bad;
    const auto refused = client::connect(options);
    REQUIRE(!refused.ok());
    CHECK(refused.error().code == ErrorCode::kInvalidArgument);
    CHECK(!refused.error().hint.empty());
  }
}
