// Lines that a local user sends to LDIM's control socket.
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "common/io/memory_file.h"
#include "nbdkit-ldim/control/commands.h"
#include "tests/fuzz/fuzz_disk.h"
#include "tests/fuzz/fuzz_input.h"

using namespace dims;

std::vector<Bytes> fuzz_seeds() {
  std::vector<Bytes> seeds;
  for (const char* line :
       {R"({"command":"status","verify":true})", R"({"command":"sync","wait":false})",
        R"({"command":"sync","wait":true,"longest_ms":1})", R"({"command":"quiesce","hold_ms":5})",
        R"({"command":"resume"})", R"({"command":"session-end"})",
        R"({"command":"prefetch","ranges":[[0,4096],[8192,1]]})", R"({"command":"check"})"}) {
    const auto bytes = as_bytes(std::string_view(line));
    seeds.emplace_back(bytes.begin(), bytes.end());
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static fuzz::SmallDisk disk;
  if (size > 4096) return 0;
  int answers = 0;
  bool done = false;
  ldim::run_command(disk.disk(), {reinterpret_cast<const char*>(data), size},
                    [&](const nlohmann::json& answer) {
                      (void)answer.dump();
                      done = answer.contains("done");
                      return ++answers < 4;  // then the client is gone
                    });
  if (answers == 0 || !done) std::abort();
  // Whatever it was: the disk lives, and is not held.
  (void)disk.disk().resume().ok();
  std::uint8_t byte = 0;
  if (!disk.disk().read({5, 1}, &byte).ok()) std::abort();
  return 0;
}
