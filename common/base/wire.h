// Little-endian encoding for on-disk records: Writer appends, Reader checks every bound.
// Threads: one owner at a time. Errors: a Reader that ran past its end is latched !ok() and returns
// zeros; callers check ok() once after the last field.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/base/bytes.h"

namespace dims {

class Writer {
 public:
  explicit Writer(Bytes& out) : out_(out) {}

  template <typename T>
  void integer(T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      out_.push_back(static_cast<std::uint8_t>(static_cast<std::uint64_t>(value) >> (8 * i)));
    }
  }
  void u8(std::uint8_t v) { integer(v); }
  void u16(std::uint16_t v) { integer(v); }
  void u32(std::uint32_t v) { integer(v); }
  void u64(std::uint64_t v) { integer(v); }
  void raw(ByteView bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }
  template <typename Tag, std::size_t N>
  void id(const Id<Tag, N>& value) {
    raw(value.view());
  }
  // Length-prefixed (u32) byte string.
  void string(ByteView bytes) {
    u32(static_cast<std::uint32_t>(bytes.size()));
    raw(bytes);
  }
  void pad_to(std::size_t size) { out_.resize(size, 0); }

 private:
  Bytes& out_;
};

class Reader {
 public:
  explicit Reader(ByteView in) : in_(in) {}

  template <typename T>
  T integer() {
    if (!take(sizeof(T))) return T{};
    std::uint64_t v = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      v |= static_cast<std::uint64_t>(in_[pos_ - sizeof(T) + i]) << (8 * i);
    }
    return static_cast<T>(v);
  }
  std::uint8_t u8() { return integer<std::uint8_t>(); }
  std::uint16_t u16() { return integer<std::uint16_t>(); }
  std::uint32_t u32() { return integer<std::uint32_t>(); }
  std::uint64_t u64() { return integer<std::uint64_t>(); }
  ByteView raw(std::size_t count) {
    if (!take(count)) return {};
    return in_.subspan(pos_ - count, count);
  }
  template <typename IdType>
  IdType id() {
    IdType value;
    ByteView bytes = raw(IdType::kBytes);
    if (!bytes.empty()) std::memcpy(value.bytes.data(), bytes.data(), IdType::kBytes);
    return value;
  }
  ByteView string() { return raw(u32()); }

  bool ok() const { return ok_; }
  bool at_end() const { return ok_ && pos_ == in_.size(); }
  std::size_t remaining() const { return in_.size() - pos_; }
  std::size_t position() const { return pos_; }

 private:
  bool take(std::size_t count) {
    if (!ok_ || count > in_.size() - pos_) {
      ok_ = false;
      return false;
    }
    pos_ += count;
    return true;
  }

  ByteView in_;
  std::size_t pos_ = 0;
  bool ok_ = true;
};

}  // namespace dims
