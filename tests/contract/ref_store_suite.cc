#include "tests/contract/ref_store_suite.h"

#include <array>
#include <thread>
#include <catch2/catch.hpp>

namespace dims::test {
namespace {

using contract::RefStore;

std::string text_at(RefStore& store, const std::string& key) {
  const auto value = store.get(key);
  REQUIRE(value.ok());
  return *value ? std::string(as_text((*value)->value)) : "(absent)";
}

void conflict(const Result<std::uint64_t>& put) {
  REQUIRE(!put.ok());
  CHECK(put.error().code == ErrorCode::kConflict);
}

void compare_and_swap(RefStore& store) {
  CHECK(text_at(store, "k") == "(absent)");
  conflict(store.put("k", as_bytes("x"), 7));
  const auto first = store.put("k", as_bytes("one"), 0);
  REQUIRE(first.ok());
  CHECK(*first != 0);
  CHECK(text_at(store, "k") == "one");
  CHECK((*store.get("k"))->revision == *first);
  conflict(store.put("k", as_bytes("x"), 0));
  const auto second = store.put("k", as_bytes("two"), *first);
  REQUIRE(second.ok());
  CHECK(*second != *first);
  conflict(store.put("k", as_bytes("x"), *first));
  CHECK(text_at(store, "k") == "two");
  const auto empty = store.put("k", {}, *second);
  REQUIRE(empty.ok());
  CHECK(text_at(store, "k").empty());
}

// All rows of one step, or none.
void put_all(RefStore& store) {
  const auto row = [](const char* key, const char* value, std::uint64_t expected) {
    const ByteView bytes = as_bytes(value);
    return contract::RefPut{key, Bytes(bytes.begin(), bytes.end()), expected};
  };
  REQUIRE(store.put_all({row("a", "one", 0), row("b", "one", 0)}).ok());
  CHECK(text_at(store, "a") == "one");
  CHECK(text_at(store, "b") == "one");
  const std::uint64_t revision = (*store.get("a"))->revision;
  CHECK(revision != 0);
  const Status late =
      store.put_all({row("c", "two", 0), row("a", "two", revision), row("b", "x", 0)});
  REQUIRE(!late.ok());
  CHECK(late.error().code == ErrorCode::kConflict);
  CHECK(text_at(store, "a") == "one");
  CHECK(text_at(store, "c") == "(absent)");
  const Status twice = store.put_all({row("c", "one", 0), row("c", "two", 0)});
  REQUIRE(!twice.ok());
  CHECK(twice.error().code == ErrorCode::kInvalidArgument);
  CHECK(text_at(store, "c") == "(absent)");
  REQUIRE(store.put_all({row("c", "two", 0), row("a", "two", revision)}).ok());
  CHECK(text_at(store, "a") == "two");
  conflict(store.put("a", as_bytes("x"), revision));
  CHECK(store.put_all({}).ok());
}

void remove(RefStore& store) {
  const auto revision = store.put("k", as_bytes("v"), 0);
  REQUIRE(revision.ok());
  const Status wrong = store.remove("k", *revision + 1);
  REQUIRE(!wrong.ok());
  CHECK(wrong.error().code == ErrorCode::kConflict);
  CHECK(store.remove("k", *revision).ok());
  CHECK(text_at(store, "k") == "(absent)");
  // Made again, it is not the one that somebody remembers.
  const auto again = store.put("k", as_bytes("v"), 0);
  REQUIRE(again.ok());
  CHECK(*again != *revision);
  conflict(store.put("k", as_bytes("late"), *revision));
}

void list(RefStore& store) {
  for (const char* key : {"a/1", "b/1", "b/2", "b/3", "b0", "c/1"}) {
    REQUIRE(store.put(key, as_bytes(key), 0).ok());
  }
  const auto keys = [&](const std::string& prefix, const std::string& after, std::size_t limit) {
    std::string joined;
    const auto rows = store.list(prefix, after, limit);
    REQUIRE(rows.ok());
    for (const auto& [key, value] : *rows) {
      CHECK(as_text(value.value) == key);
      CHECK(value.revision == (*store.get(key))->revision);
      joined += key + " ";
    }
    return joined;
  };
  CHECK(keys("b/", "", 10) == "b/1 b/2 b/3 ");
  CHECK(keys("b/", "b/1", 10) == "b/2 b/3 ");
  CHECK(keys("b/", "b/1", 1) == "b/2 ");
  CHECK(keys("b/", "b/3", 10).empty());
  CHECK(keys("", "b/3", 10) == "b0 c/1 ");
  CHECK(keys("d", "", 10).empty());
}

// Many raise one counter by compare-and-swap: no raise is lost.
void races(RefStore& store) {
  constexpr int kThreads = 4, kRaises = 25;
  std::array<bool, kThreads> failed{};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int done = 0; done < kRaises;) {
        const auto now = store.get("counter");
        const std::uint64_t revision = now.ok() && *now ? (*now)->revision : 0;
        const int value = revision == 0 ? 0 : std::stoi(std::string(as_text((*now)->value)));
        const auto put = store.put("counter", as_bytes(std::to_string(value + 1)), revision);
        if (put.ok()) {
          ++done;
        } else if (put.error().code != ErrorCode::kConflict) {
          failed[t] = true;
          return;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const bool bad : failed) CHECK(!bad);
  CHECK(text_at(store, "counter") == std::to_string(kThreads * kRaises));
}

}  // namespace

void ref_store_suite(RefStore& store) {
  SECTION("compare and swap") { compare_and_swap(store); }
  SECTION("put all") { put_all(store); }
  SECTION("remove") { remove(store); }
  SECTION("list") { list(store); }
  SECTION("races") { races(store); }
}

}  // namespace dims::test
