#include "tests/sim/guest_history.h"

#include <algorithm>
#include <cstring>

namespace dims::sim {
namespace {

std::uint64_t part(std::uint64_t sector, std::uint32_t stamp) {
  return stamp == 0 ? 0 : mix(sector << 32 | stamp);
}

std::string text_of(const Stamps& found, const Stamps& wanted) {
  std::string out;
  std::size_t shown = 0;
  for (std::size_t i = 0; i < found.size() && shown < 8; ++i) {
    if (found[i] == wanted[i]) continue;
    ++shown;
    out += " sector " + std::to_string(i) + ": write " + std::to_string(found[i]) + " instead of " +
           std::to_string(wanted[i]) + ";";
  }
  return out;
}

}  // namespace

void fill_sector(std::uint64_t sector, std::uint32_t stamp, std::uint8_t* out) {
  std::memset(out, 0, kSectorBytes);
  if (stamp == 0) return;
  const auto number = static_cast<std::uint32_t>(sector);
  const std::uint64_t filling = mix(sector << 32 | stamp);
  std::memcpy(out, &stamp, sizeof stamp);
  std::memcpy(out + 4, &number, sizeof number);
  for (std::size_t at = 8; at < kSectorBytes; at += sizeof filling) {
    const std::uint64_t word = filling ^ (at < 64 ? mix(at ^ filling) : at);
    std::memcpy(out + at, &word, sizeof word);
  }
}

Bytes content_of(const Stamps& stamps, std::uint64_t first, std::uint64_t count) {
  count = std::min<std::uint64_t>(count, stamps.size() - first);
  Bytes out(count * kSectorBytes);
  for (std::uint64_t i = 0; i < count; ++i)
    fill_sector(first + i, stamps[first + i], out.data() + i * kSectorBytes);
  return out;
}

Stamps stamps_of(ByteView content, std::uint64_t first, std::string& wrong) {
  Stamps out;
  std::uint8_t wanted[kSectorBytes];
  for (std::size_t at = 0; at + kSectorBytes <= content.size(); at += kSectorBytes) {
    std::uint32_t stamp = 0;
    std::memcpy(&stamp, content.data() + at, sizeof stamp);
    fill_sector(first + at / kSectorBytes, stamp, wanted);
    if (std::memcmp(wanted, content.data() + at, kSectorBytes) != 0 && wrong.empty())
      wrong = "sector " + std::to_string(first + at / kSectorBytes) +
              " holds what no write ever put there";
    out.push_back(stamp);
  }
  return out;
}

std::uint64_t hash_stamps(const Stamps& stamps) {
  std::uint64_t hash = 0;
  for (std::size_t i = 0; i < stamps.size(); ++i) hash ^= part(i, stamps[i]);
  return hash;
}

void GuestHistory::begin(Stamps base) {
  now_ = std::move(base);
  hash_ = hash_stamps(now_);
  flushed_ = now_;
  flushed_hash_ = hash_;
  since_.clear();
  note_flush();
}

void GuestHistory::apply(Stamps& stamps, std::uint64_t& hash, const Change& change) {
  for (std::uint64_t i = change.first; i < change.first + change.count; ++i) {
    hash ^= part(i, stamps[i]) ^ part(i, change.stamp);
    stamps[i] = change.stamp;
  }
}

void GuestHistory::write(std::uint64_t first, std::uint64_t count, std::uint32_t stamp) {
  since_.push_back({first, count, stamp});
  apply(now_, hash_, since_.back());
}

void GuestHistory::flush() {
  for (const Change& change : since_) apply(flushed_, flushed_hash_, change);
  since_.clear();
  note_flush();
}

void GuestHistory::note_flush() { by_hash_[hash_].push_back(++points_); }

std::string GuestHistory::rewind(const Stamps& found) {
  const std::uint64_t wanted = hash_stamps(found);
  Stamps at = flushed_;
  std::uint64_t hash = flushed_hash_;
  for (std::size_t kept = 0;; ++kept) {
    if (hash == wanted && at == found) {
      now_ = std::move(at);
      hash_ = hash;
      flushed_ = now_;
      flushed_hash_ = hash_;
      since_.clear();
      note_flush();
      return {};
    }
    if (kept == since_.size()) break;
    apply(at, hash, since_[kept]);
  }
  return "no moment between the last flush and now: against the last flush" +
         text_of(found, flushed_) + " against now" + text_of(found, now_);
}

std::vector<std::uint64_t> GuestHistory::moments() const {
  Stamps at = flushed_;
  std::uint64_t hash = flushed_hash_;
  std::vector<std::uint64_t> out{hash};
  for (const Change& change : since_) {
    apply(at, hash, change);
    out.push_back(hash);
  }
  return out;
}

void GuestHistory::rewind_to(std::uint64_t wanted) {
  for (std::size_t kept = 0; flushed_hash_ != wanted && kept < since_.size(); ++kept)
    apply(flushed_, flushed_hash_, since_[kept]);
  since_.clear();
  now_ = flushed_;
  hash_ = flushed_hash_;
  note_flush();
}

std::optional<std::uint64_t> GuestHistory::flush_point(std::uint64_t hash,
                                                       std::uint64_t after) const {
  const auto known = by_hash_.find(hash);
  if (known == by_hash_.end()) return std::nullopt;
  const auto next = std::lower_bound(known->second.begin(), known->second.end(), after);
  if (next == known->second.end()) return std::nullopt;
  return *next;
}

}  // namespace dims::sim
