// PageBuffer: bytes that begin at a page's boundary, for what the kernel copies out of files.
//
// malloc puts large blocks 16 bytes behind a boundary, where the kernel was seen to copy file pages
// at a fifth of its speed (bench/copy_bench shows it). Threads: a value, movable.
// Ownership: of its memory. Units: bytes; zeroed at first.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

#include "common/base/bytes.h"
#include "common/base/units.h"

namespace dims {

class PageBuffer {
 public:
  explicit PageBuffer(std::size_t bytes)
      : bytes_(bytes),
        data_(static_cast<std::uint8_t*>(std::aligned_alloc(kPageBytes, allocated(bytes)))) {
    if (data_ == nullptr) throw std::bad_alloc();
    std::memset(data_.get(), 0, bytes_);
  }

  std::uint8_t* data() { return data_.get(); }
  MutByteView view() { return {data_.get(), bytes_}; }
  ByteView view() const { return {data_.get(), bytes_}; }

 private:
  struct Free {
    void operator()(std::uint8_t* memory) const { std::free(memory); }
  };
  static std::size_t allocated(std::size_t bytes) {
    return static_cast<std::size_t>(round_up(bytes, kPageBytes));
  }

  std::size_t bytes_;
  std::unique_ptr<std::uint8_t[], Free> data_;
};

}  // namespace dims
