// The machine's own file: sealed and not, damaged, moved, readable by others.
#include <catch2/catch.hpp>

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "tests/unit/trust_must.h"

using namespace dims;
using namespace dims::trust;
using namespace dims::test;

TEST_CASE("machine file: opens with its key, and with no other") {
  SeededRandom random(seed());
  auto machine = make_machine(random.id<OrgId>(), "laptop", random);
  machine.server_address = "server:7440";
  machine.server = random.id<Digest>();
  machine.obeyed_wipe_seq = 9;
  const auto key = random.id<Secret32>(), other = random.id<Secret32>();
  for (const Secret32* seal : {static_cast<const Secret32*>(nullptr), &key}) {
    const auto bytes = encode_machine(machine, seal, random);
    const auto back = decode_machine(bytes.view(), seal);
    MUST(back);
    CHECK(back->org == machine.org);
    CHECK(back->machine == machine.machine);
    CHECK(back->name == "laptop");
    CHECK(back->server_address == "server:7440");
    CHECK(back->server == machine.server);
    CHECK(back->sign.public_key == machine.sign.public_key);
    CHECK(back->secret.key() == machine.secret.key());
    CHECK(back->obeyed_wipe_seq == 9);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      auto bent = bytes.clone();
      bent.mut()[i] ^= 0x02;
      CHECK(!decode_machine(bent.view(), seal).ok());
      CHECK(!decode_machine(bytes.view().first(i), seal).ok());
    }
  }
  const auto sealed = encode_machine(machine, &key, random);
  CHECK(as_text(sealed.view()).find("laptop") == std::string_view::npos);
  REFUSED(decode_machine(sealed.view(), &other), ErrorCode::kWrongKey);
  REFUSED(decode_machine(sealed.view(), nullptr), ErrorCode::kWrongKey);
}

TEST_CASE("machine file: one that others may read is refused") {
  SeededRandom random(seed());
  const auto machine = make_machine(random.id<OrgId>(), "laptop", random);
  const std::string folder =
      (std::filesystem::temp_directory_path() / ("dims-machine-" + std::to_string(getpid())))
          .string();
  std::filesystem::create_directory(folder);
  const std::string path = folder + "/machine";
  REFUSED(load_machine(path, nullptr), ErrorCode::kNotFound);
  MUST(save_machine(path, machine, nullptr, random));
  struct stat st {};
  REQUIRE(stat(path.c_str(), &st) == 0);
  CHECK((st.st_mode & 0777) == 0600);
  MUST(load_machine(path, nullptr));
  for (const mode_t mode : {0640u, 0604u, 0620u}) {
    chmod(path.c_str(), mode);
    REFUSED(load_machine(path, nullptr), ErrorCode::kPermissionDenied);
  }
  std::filesystem::remove_all(folder);
}
