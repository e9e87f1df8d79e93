// What a local user sends to LDIM's control socket. The first byte says how: a line, the session
// keys that a renewal carries in its box, or bytes to the socket itself, in pieces.
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "common/io/memory_file.h"
#include "nbdkit-ldim/control/commands.h"
#include "nbdkit-ldim/control/control_server.h"
#include "tests/contract/temp_folder.h"
#include "tests/fuzz/fuzz_disk.h"
#include "tests/fuzz/fuzz_input.h"

using namespace dims;

namespace {

constexpr std::uint8_t kKeysInABox = 1, kToTheSocket = 2;  // everything else is a line
constexpr int kAnswersMax = 4;

struct Controlled {
  fuzz::SmallDisk disk;
  std::uint64_t renewed = 0;
  ldim::Renewal renewal{{}, [this](const ldim::SessionKeys&) {
                          ++renewed;
                          return ok_status();
                        }};
  test::TempFolder folder;
  const std::string path = folder.path + "/control.sock";
  std::unique_ptr<ldim::ControlServer> server;

  static Controlled& get() {
    static Controlled one;
    return one;
  }

  void line(std::string_view text) {
    int answers = 0;
    bool done = false;
    const auto say = [&](const nlohmann::json& answer) {
      (void)answer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
      done = answer.contains("done");
      return ++answers < kAnswersMax;  // then the client is gone
    };
    ldim::run_command(disk.disk(), text, say, &renewal);
    if (answers == 0 || !done) std::abort();
  }

  // Whatever was in the box: the renewal is asked only for what can be read.
  void keys_in_a_box(ByteView keys) {
    const auto to = crypto::BoxPublicKey::from_hex_text(renewal.begin().value("box_key", ""));
    if (!to) std::abort();
    const std::uint64_t before = renewed;
    const bool good = ldim::decode_session_keys(keys).ok();
    line(nlohmann::json{{"command", "renew"}, {"box", to_hex(crypto::seal_box(*to, keys))}}.dump());
    if ((renewed != before) != good) std::abort();
  }

  // Every whole line is answered, in order, and the connection ends.
  void to_the_socket(std::size_t piece, ByteView bytes) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::copy(path.begin(), path.end(), address.sun_path);
    const timeval longest{60, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &longest, sizeof longest);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
      std::abort();
    const auto lines = static_cast<std::size_t>(std::count(bytes.begin(), bytes.end(), '\n'));
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd, bytes.data(), std::min(piece, bytes.size()), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    ::shutdown(fd, SHUT_WR);
    std::string answers;
    char buffer[4096];
    for (;;) {
      const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
      if (n < 0 && errno == EINTR) continue;  // libFuzzer's clock
      if (n < 0) std::abort();                // nobody answers any more
      if (n == 0) break;
      answers.append(buffer, static_cast<std::size_t>(n));
    }
    ::close(fd);
    std::size_t done = 0;
    for (std::size_t at = 0, end = 0; (end = answers.find('\n', at)) != std::string::npos;
         at = end + 1) {
      if (nlohmann::json::parse(answers.substr(at, end - at)).contains("done")) ++done;
    }
    if (done != lines) std::abort();
  }

 private:
  Controlled() {
    auto started = ldim::ControlServer::start(path, disk.disk(), &renewal);
    if (!started.ok()) std::abort();
    server = std::move(started).value();
  }
};

}  // namespace

std::vector<Bytes> fuzz_seeds() {
  std::vector<Bytes> seeds;
  Bytes many{kToTheSocket, 7};
  for (const char* line :
       {R"({"command":"status","verify":true})", R"({"command":"sync","wait":false})",
        R"({"command":"sync","wait":true,"longest_ms":1})", R"({"command":"quiesce","hold_ms":5})",
        R"({"command":"resume"})", R"({"command":"session-end"})",
        R"({"command":"prefetch","ranges":[[0,4096],[8192,1]]})", R"({"command":"check"})",
        R"({"command":"renew-begin"})", R"({"command":"renew","box":"0102"})"}) {
    const auto bytes = as_bytes(std::string_view(line));
    seeds.emplace_back(bytes.begin(), bytes.end());
    many.insert(many.end(), bytes.begin(), bytes.end());
    many.push_back('\n');
  }
  seeds.push_back(many);
  SeededRandom random(2);
  ldim::SessionKeys keys;
  keys.keys = format::generate_key_file(random);
  auto member = std::make_shared<format::MemberKeys>();
  member->image[1] = random.id<Secret32>();
  keys.keys.member = std::move(member);
  keys.certificate = Bytes(200, 3);
  Bytes plain = ldim::encode_session_keys(keys);
  plain.insert(plain.begin(), kKeysInABox);
  seeds.push_back(std::move(plain));
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Controlled& controlled = Controlled::get();
  if (size > 4096) return 0;
  if (size > 0 && data[0] == kKeysInABox) {
    controlled.keys_in_a_box({data + 1, size - 1});
  } else if (size > 1 && data[0] == kToTheSocket) {
    controlled.to_the_socket(1 + data[1], {data + 2, size - 2});
  } else {
    controlled.line({reinterpret_cast<const char*>(data), size});
  }
  // Whatever it was: the disk lives, and is not held.
  (void)controlled.disk.disk().resume().ok();
  std::uint8_t byte = 0;
  if (!controlled.disk.disk().read({5, 1}, &byte).ok()) std::abort();
  return 0;
}
