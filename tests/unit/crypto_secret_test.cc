// Secrets in memory, boxes, and the watch over nonces.
#include <catch2/catch.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <fstream>
#include <set>
#include <type_traits>

#include "common/crypto/aead.h"
#include "common/crypto/box.h"
#include "common/crypto/passphrase.h"
#include "tests/support/nonce_book.h"

#if defined(__SANITIZE_ADDRESS__)
#define DIMS_UNDER_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DIMS_UNDER_ASAN
#endif
#endif

// Sanitizers put an mlock() that does nothing in the place of the C library's.
#if defined(DIMS_UNDER_ASAN) || defined(__SANITIZE_THREAD__)
constexpr bool kMlockIsReal = false;
#else
constexpr bool kMlockIsReal = true;
#endif

using namespace dims;
using crypto::SecretBytes;
using crypto::SecretKey;

static_assert(!std::is_copy_constructible_v<SecretBytes> &&
              !std::is_copy_assignable_v<SecretBytes>);
static_assert(!std::is_copy_constructible_v<SecretKey> && !std::is_copy_assignable_v<SecretKey>);
static_assert(!std::is_copy_constructible_v<crypto::SecretSigner> &&
              !std::is_copy_constructible_v<crypto::BoxKey>);

namespace {

// How the child that does this ends: 0, or its signal.
template <typename Do>
int signal_of(Do act) {
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGSEGV, SIG_DFL);
    act();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

}  // namespace

TEST_CASE("secret: taken from where it was, moved, and gone from where it came") {
  Bytes source{1, 2, 3, 4};
  SecretBytes secret = SecretBytes::take(source);
  CHECK(is_all_zero(source));
  CHECK(to_hex(secret.view()) == "01020304");
  SecretBytes moved = std::move(secret);
  CHECK(secret.empty());  // NOLINT: that is the question
  CHECK(moved.size() == 4);
  const std::uint8_t* const where = moved.view().data();
  SecretBytes copy = moved.clone();
  CHECK(copy.view().data() != where);
  copy.shorten(2);
  CHECK(to_hex(copy.view()) == "0102");
  copy.clear();
  CHECK(copy.empty());
  Secret32 plain;
  plain.bytes.fill(7);
  const SecretKey key = SecretKey::take(plain);
  CHECK(plain.is_zero());
  CHECK(key.key().bytes[31] == 7);
  CHECK(!SecretKey::from_view(Bytes(31)));
}

TEST_CASE("secret: a held key is one copy, whoever holds it, and gone from where it came") {
  Secret32 plain;
  plain.bytes.fill(9);
  const Secret32 same = plain;
  crypto::HeldKey key(std::move(plain));
  CHECK(plain.is_zero());  // NOLINT: that is the question
  CHECK(key == same);
  const crypto::HeldKey other = key;
  CHECK(&other.key() == &key.key());
  key = Secret32{};
  CHECK(other == same);
  CHECK(crypto::HeldKey().is_zero());
  CHECK(key == crypto::HeldKey());
}

TEST_CASE("secret: held keys share pages, are wiped when they go, and disturb no other") {
  const std::uint8_t* gone = nullptr;
  std::vector<crypto::HeldKey> keys;
  for (int i = 0; i < 1000; ++i) {
    Secret32 plain;
    plain.bytes.fill(static_cast<std::uint8_t>(i % 251 + 1));
    keys.emplace_back(plain);
    const crypto::HeldKey brief(plain);
    gone = brief.view().data();
  }
  CHECK(is_all_zero(ByteView(gone, Secret32::kBytes)));
  for (std::size_t i = 0; i < keys.size(); i += 2) keys[i] = crypto::HeldKey();
  std::set<std::uintptr_t> pages;
  for (std::size_t i = 1; i < keys.size(); i += 2) {
    CHECK(keys[i].view()[31] == i % 251 + 1);
    pages.insert(reinterpret_cast<std::uintptr_t>(keys[i].view().data()) / 4096);
  }
  CHECK(pages.size() < keys.size() / 50);
}

// What the kernel says of the page that holds an address: "lo" is locked, "dd" left out of dumps.
static std::string flags_of(const void* address) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  std::ifstream maps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    unsigned long from = 0, to = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2) inside = from <= at && at < to;
    if (inside && line.starts_with("VmFlags:")) return line + " ";
  }
  return {};
}

TEST_CASE("secret: what holds keys is locked and left out of core dumps") {
  const SecretBytes bytes(100);
  Secret32 plain;
  plain.bytes.fill(3);
  const crypto::HeldKey held(plain);
  for (const void* where :
       {static_cast<const void*>(bytes.view().data()), static_cast<const void*>(&held.key())}) {
    const std::string flags = flags_of(where);
    if (flags.empty()) return;  // this kernel does not say
    CHECK(flags.find(" dd ") != std::string::npos);
    if (kMlockIsReal && crypto::memory_can_be_locked())
      CHECK(flags.find(" lo ") != std::string::npos);
  }
}

#ifndef DIMS_UNDER_ASAN
TEST_CASE("secret: a cipher's key is nowhere but in locked memory") {
  if (!crypto::memory_can_be_locked()) return;
  // Only its complement stands here, or the search would find itself.
  Secret32 inverse;
  system_random().fill(inverse.mut());
  const auto matches = [&](const std::uint8_t* at) {
    for (std::size_t i = 0; i < Secret32::kBytes; ++i)
      if (at[i] != static_cast<std::uint8_t>(~inverse.bytes[i])) return false;
    return true;
  };
  Secret32 key;
  for (std::size_t i = 0; i < Secret32::kBytes; ++i)
    key.bytes[i] = static_cast<std::uint8_t>(~inverse.bytes[i]);
  const crypto::PageCipher cipher(key);
  crypto::wipe(key.mut());
  Bytes text(4096, 5);
  crypto::Tag tag;
  cipher.seal(1, {}, text, text.data(), tag.data());
  REQUIRE(cipher.open(1, {}, text, tag.data(), text.data()));
  CHECK(text == Bytes(4096, 5));

  std::vector<std::pair<std::uintptr_t, std::uintptr_t>> places;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long from = 0, to = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx rw", &from, &to) == 2 &&
        line.find(" rw") != std::string::npos && line.find("[v") == std::string::npos)
      places.emplace_back(from, to);
  }
  int locked = 0, elsewhere = 0;
  for (const auto& [from, to] : places) {
    for (std::uintptr_t at = from; at + Secret32::kBytes <= to; at += 4) {
      const auto* const bytes = reinterpret_cast<const std::uint8_t*>(at);
      if (!matches(bytes)) continue;
      ++(flags_of(bytes).find(" lo ") != std::string::npos ? locked : elsewhere);
    }
  }
  CHECK(locked >= 2);  // the key itself and what was expanded from it
  CHECK(elsewhere == 0);
}

TEST_CASE("secret: reading past its end or after it went is no reading") {
  CHECK(signal_of([] {
          SecretBytes secret(32);
          volatile const std::uint8_t* p = secret.view().data();
          (void)p[0];
          (void)p[31];
        }) == 0);
  CHECK(signal_of([] {
          SecretBytes secret(32);
          volatile const std::uint8_t* p = secret.view().data();
          (void)p[32];
        }) != 0);
  CHECK(signal_of([] {
          volatile const std::uint8_t* p = nullptr;
          {
            SecretBytes secret(32);
            p = secret.view().data();
          }
          (void)p[0];
        }) != 0);
}
#endif

TEST_CASE("box: opens for its owner only") {
  SeededRandom random(1);
  const auto alice = crypto::BoxKey::from_seed(SecretKey::random(random));
  const auto bob = crypto::BoxKey::from_seed(SecretKey::random(random));
  Bytes box = crypto::seal_box(alice.public_key, as_bytes("secret"));
  CHECK(box.size() == 6 + crypto::kBoxOverheadBytes);
  CHECK(crypto::open_box(alice, box)->text() == "secret");
  CHECK(!crypto::open_box(bob, box));
  for (std::size_t i = 0; i < box.size(); ++i) {
    box[i] ^= 1;
    CHECK(!crypto::open_box(alice, box));
    box[i] ^= 1;
    CHECK(!crypto::open_box(alice, ByteView(box).first(i)));
  }
  CHECK(crypto::open_box(alice, crypto::seal_box(alice.public_key, {}))->empty());
  // A key of small order: nothing that anybody could open.
  CHECK(is_all_zero(crypto::seal_box({}, as_bytes("secret"))));
}

TEST_CASE("passphrase: Argon2id of the published kind, and other salts give other keys") {
  crypto::Salt salt;
  salt.bytes.fill(1);
  const auto one = crypto::stretch(as_bytes("passphrase"), salt, {});
  REQUIRE(one.ok());
  const auto again = crypto::stretch(as_bytes("passphrase"), salt, {});
  CHECK(one->key() == again->key());
  salt.bytes[0] = 2;
  CHECK(!(one->key() == crypto::stretch(as_bytes("passphrase"), salt, {})->key()));
}

TEST_CASE("nonces: a repeated nonce that is planted is caught, in each kind of seal") {
  const Secret32 key = system_random().id<Secret32>();
  std::uint8_t out[64];
  crypto::Tag tag;
  SECTION("pages: nonce 7 twice") {
    test::NonceBook book;
    const crypto::PageCipher cipher(key);
    cipher.seal(7, {}, as_bytes("one"), out, tag.data());
    cipher.seal(8, {}, as_bytes("two"), out, tag.data());
    CHECK(book.repeats() == 0);
    const crypto::PageCipher same(key);  // another object, the same key: a reopened file
    same.seal(7, {}, as_bytes("two"), out, tag.data());
    CHECK(book.repeats() == 1);
    CHECK(book.seals() == 3);
  }
  SECTION("the same message: it tells nothing and is counted apart") {
    test::NonceBook book;
    const crypto::PageCipher cipher(key);
    cipher.seal(7, as_bytes("ad"), as_bytes("one"), out, tag.data());
    cipher.seal(7, as_bytes("ad"), as_bytes("one"), out, tag.data());
    CHECK(book.repeats() == 0);
    CHECK(book.same_again() == 1);
    cipher.seal(7, as_bytes("da"), as_bytes("one"), out, tag.data());
    CHECK(book.repeats() == 1);
  }
  SECTION("objects: one key, two contents") {
    test::NonceBook book;
    crypto::seal_once(key, {}, as_bytes("one"), out, tag.data());
    crypto::seal_once(key, {}, as_bytes("two"), out, tag.data());
    CHECK(book.repeats() == 1);
  }
  SECTION("wrapped keys: a generator that starts again") {
    test::NonceBook book;
    SeededRandom random(1), again(1);
    (void)crypto::wrap(key, {}, as_bytes("one"), random);
    (void)crypto::wrap(key, {}, as_bytes("two"), random);
    CHECK(book.repeats() == 0);
    (void)crypto::wrap(key, {}, as_bytes("two"), again);
    CHECK(book.repeats() == 1);
  }
}
