#include <catch2/catch.hpp>

#include "common/crypto/aead.h"
#include "common/crypto/hash.h"
#include "common/crypto/sign.h"

using namespace dims;

TEST_CASE("sha256 matches the published vector and streams") {
  CHECK(crypto::sha256(as_bytes("abc")).hex() ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  crypto::Sha256 stream;
  stream.update(as_bytes("a"));
  (void)stream.peek();
  stream.update(as_bytes("bc"));
  CHECK(stream.peek() == crypto::sha256(as_bytes("abc")));
}

TEST_CASE("prf separates labels, fields and keys") {
  Secret32 key;
  key.bytes[0] = 1;
  const auto base = crypto::prf(key, "label", {as_bytes("ab"), as_bytes("c")});
  CHECK(base == crypto::prf(key, "label", {as_bytes("ab"), as_bytes("c")}));
  CHECK(!(base == crypto::prf(key, "label", {as_bytes("a"), as_bytes("bc")})));
  CHECK(!(base == crypto::prf(key, "labela", {as_bytes("b"), as_bytes("c")})));
  key.bytes[0] = 2;
  CHECK(!(base == crypto::prf(key, "label", {as_bytes("ab"), as_bytes("c")})));
}

TEST_CASE("page cipher opens what it sealed and nothing else") {
  Secret32 key;
  system_random().fill(key.mut());
  const crypto::PageCipher cipher(key);
  const crypto::PageCipher other(Secret32{});
  Bytes plain(4096);
  system_random().fill(plain);
  Bytes sealed(4096);
  crypto::Tag tag;
  cipher.seal(7, as_bytes("ad"), plain, sealed.data(), tag.data());
  Bytes back(4096, 0xff);
  REQUIRE(cipher.open(7, as_bytes("ad"), sealed, tag.data(), back.data()));
  CHECK(back == plain);
  CHECK(!cipher.open(8, as_bytes("ad"), sealed, tag.data(), back.data()));
  CHECK(is_all_zero(back));  // a failed open leaves no plaintext behind
  CHECK(!cipher.open(7, as_bytes("aD"), sealed, tag.data(), back.data()));
  CHECK(!other.open(7, as_bytes("ad"), sealed, tag.data(), back.data()));
  sealed[100] ^= 1;
  CHECK(!cipher.open(7, as_bytes("ad"), sealed, tag.data(), back.data()));
  sealed[100] ^= 1;
  CHECK(cipher.open(7, as_bytes("ad"), sealed, tag.data(), sealed.data()));  // in place
  CHECK(sealed == plain);
}

TEST_CASE("wrapped keys need the same key and the same associated data") {
  Secret32 key;
  const auto wrapped = crypto::wrap(key, as_bytes("ad"), as_bytes("secret"), system_random());
  CHECK(as_text(*crypto::unwrap(key, as_bytes("ad"), wrapped)) == "secret");
  CHECK(!crypto::unwrap(key, as_bytes("da"), wrapped));
  CHECK(!crypto::unwrap(key, as_bytes("ad"), ByteView(wrapped).first(10)));
}

TEST_CASE("signatures bind type, organisation and body") {
  Secret32 seed;
  seed.bytes[3] = 9;
  const auto key = crypto::signing_key_from_seed(seed);
  const OrgId org;
  const auto signature = crypto::sign(key, "version", org, as_bytes("body"));
  CHECK(crypto::verify(key.public_key, "version", org, as_bytes("body"), signature));
  CHECK(!crypto::verify(key.public_key, "grant", org, as_bytes("body"), signature));
  CHECK(!crypto::verify(key.public_key, "version", org, as_bytes("bodY"), signature));
}
