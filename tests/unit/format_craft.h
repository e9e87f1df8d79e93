// A writer of objects of its own, after docs/formats/object.md and not after the code: it has the
// keys and may lie about every length.
#pragma once

#include "common/base/wire.h"
#include "common/crypto/aead.h"
#include "common/format/object.h"
#include "tests/support/seed.h"

namespace dims::test {

inline format::DomainKey test_domain_key(std::uint8_t first = 1) {
  DomainId domain;
  Secret32 secret;
  for (std::size_t i = 0; i < 16; ++i) domain.bytes[i] = static_cast<std::uint8_t>(0xd0 + i);
  for (std::size_t i = 0; i < 32; ++i) secret.bytes[i] = static_cast<std::uint8_t>(first + i);
  return {domain, 1, secret};
}

struct PayloadFields {
  std::uint8_t codec = 0;
  std::uint16_t pages = 0;
  std::uint32_t data_bytes = 0;
  std::uint32_t raw_bytes = 0;
};

inline Bytes craft_payload(const PayloadFields& fields, ByteView data) {
  Bytes payload;
  Writer w(payload);
  w.u8(fields.codec);
  w.u8(0);
  w.u16(fields.pages);
  w.u32(fields.data_bytes);
  w.u32(fields.raw_bytes);
  w.u32(0);
  w.raw(data);
  w.pad_to(static_cast<std::size_t>(round_up(payload.size(), 512)));
  return payload;
}

inline format::SealedObject craft_object(const format::DomainKey& key, std::uint8_t kind,
                                         std::uint8_t level, ByteView payload) {
  format::SealedObject out;
  Writer w(out.bytes);
  w.raw(as_bytes("DOJ1"));
  w.u8(1);
  w.u8(kind);
  w.u8(level);
  w.u8(0);
  w.id(key.domain());
  w.u32(key.epoch());
  w.u32(static_cast<std::uint32_t>(payload.size()));
  w.u32(0);
  w.u32(0);
  out.ref.domain = key.domain();
  out.ref.key = crypto::prf(key.sealing_key(), "object", {ByteView(&kind, 1), out.bytes, payload});
  w.id(crypto::prf(out.ref.key, "commit", {}));
  const Bytes ad = out.bytes;
  Bytes sealed(payload.size());
  crypto::Tag tag;
  crypto::seal_once(out.ref.key, ad, payload, sealed.data(), tag.data());
  w.raw(sealed);
  w.raw(tag);
  out.ref.id = format::object_id(out.bytes);
  return out;
}

// Pages with something to compress: words from a small list.
inline Bytes texty_pages(SeededRandom& random, std::size_t count) {
  static constexpr std::string_view kWords[] = {"disk ",    "image ", "page ", "chunk ",
                                                "version ", "0000 ",  "\n"};
  Bytes out;
  while (out.size() < count * kPageBytes) {
    const ByteView word = as_bytes(kWords[random.below(7)]);
    out.insert(out.end(), word.begin(), word.end());
  }
  out.resize(count * kPageBytes);
  return out;
}

inline Bytes random_pages(SeededRandom& random, std::size_t count) {
  Bytes out(count * kPageBytes);
  random.fill(out);
  return out;
}

}  // namespace dims::test
