#include "tests/sim/sim_machine.h"

#include <nlohmann/json.hpp>

#include <spdlog/spdlog.h>

#include "nbdkit-ldim/disk/cache_folder.h"

namespace dims::sim {

using test::require_ok;

namespace {

std::vector<std::string> differences(const Stamps& got, const Stamps& wanted) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < wanted.size() && out.size() < 8; ++i) {
    if (got[i] != wanted[i])
      out.push_back("sector " + std::to_string(i) + ": write " + std::to_string(got[i]) +
                    " instead of " + std::to_string(wanted[i]));
  }
  return out;
}

}  // namespace

World::World(std::uint64_t seed_value, std::uint64_t sector_count)
    : seed(seed_value),
      sectors(sector_count),
      random(seed_value),
      server(clock, mix(seed_value + 1)),
      key(random),
      clean(server, clock, 0) {
  if (std::getenv("DIMS_TEST_LOG") == nullptr) spdlog::set_level(spdlog::level::critical);
  Stamps first(sectors, 0);
  const std::uint32_t stamp = next_stamp();
  for (std::size_t i = 0; i < first.size(); ++i) {
    if (i / 64 % 3 != 0) first[i] = stamp;  // with holes, as disks have
  }
  test::commit_content(clean, key.key, "disk", content_of(first), random);
  const auto made = clean.find_image("disk");
  REQUIRE(made.ok());
  image = made->id;
  seen_.insert(made->head);
  contents_.insert(hash_stamps(first));
}

Stamps World::stamps_of_version(const ImageId& of, const VersionId& version) {
  std::string wrong;
  Stamps out = stamps_of(test::read_version(clean, key.key, of, version), 0, wrong);
  INFO("DIMS_TEST_SEED=" << seed << " version " << version.short_hex() << ": " << wrong);
  REQUIRE(wrong.empty());
  return out;
}

Stamps World::stamps_of_head(const ImageId& of) {
  const auto info = server.catalog().get_image(of);
  REQUIRE(info.ok());
  return stamps_of_version(of, info->head);
}

void World::visit_new() {
  for (const auto& info : server.catalog().list_images("", 1000)) {
    std::vector<contract::VersionInfo> fresh;  // newest first
    VersionId at = info.head;
    while (!at.is_zero() && !seen_.contains(at)) {
      auto version = server.catalog().get_version(info.id, at, 0);
      REQUIRE(version.ok());
      at = version->record.parent;
      fresh.push_back(std::move(version).value());
    }
    for (auto it = fresh.rbegin(); it != fresh.rend(); ++it) {
      seen_.insert(it->id);
      Shown shown{info.name, it->record, stamps_of_version(info.id, it->id), 0};
      shown.hash = hash_stamps(shown.stamps);
      contents_.insert(shown.hash);
      spdlog::info("version {} of {}: {} epoch {}", it->id.short_hex(), shown.name,
                   shown.record.sequence, shown.record.commit.epoch);
      to_judge_.push_back(std::move(shown));
    }
  }
}

bool World::holds(std::uint64_t hash) {
  visit_new();
  return contents_.contains(hash);
}

std::string World::nearest(const Stamps& wanted) {
  std::string out = "no version";
  std::size_t fewest = ~std::size_t{0};
  for (const Shown& shown : to_judge_) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (shown.stamps[i] != wanted[i]) ++count;
    }
    if (count >= fewest) continue;
    fewest = count;
    const auto differs = differences(shown.stamps, wanted);
    out = shown.name + " sequence " + std::to_string(shown.record.sequence) + " differs in " +
          std::to_string(count) + " sectors" + (differs.empty() ? "" : ": " + differs.front());
  }
  return out;
}

void World::check_versions(std::vector<SimMachine*> machines) {
  INFO("DIMS_TEST_SEED=" << seed);
  const auto violations = server.violations();
  INFO((violations.empty() ? std::string() : violations.front()));
  REQUIRE(violations.empty());
  visit_new();
  for (const Shown& shown : to_judge_) {
    ++versions_checked_;
    SimMachine* writer = nullptr;
    for (SimMachine* machine : machines) {
      if (machine->id() == shown.record.machine) writer = machine;
    }
    REQUIRE(writer != nullptr);
    const auto point = writer->history().flush_point(shown.hash, writer->last_point);
    INFO("image " << shown.name << ", sequence " << shown.record.sequence << ", epoch "
                  << shown.record.commit.epoch);
    const auto differs = differences(shown.stamps, writer->history().flushed());
    std::string text;
    for (const std::string& one : differs) text += one + "; ";
    INFO("against the newest flush: " << text << "flush points " << writer->last_point << " of "
                                      << writer->history().flush_points());
    REQUIRE(point.has_value());
    writer->last_point = *point;
  }
  to_judge_.clear();
}

SimMachine::SimMachine(World& world, std::string name, std::uint64_t seed,
                       std::chrono::seconds clock_off, int clock_permille)
    : world_(world),
      random_(seed),
      disk_random_(mix(seed)),
      clock_(world.clock, clock_off, clock_permille),
      remote_(world.server, world.clock, mix(seed + 7)) {
  options_.server = "sim:1";
  options_.image = "disk";
  options_.key_path = world.key.path;
  options_.cache_folder = "/ldim";
  options_.cache_bytes = 16 * kMiB;
  options_.journal_bytes = 2 * kMiB;
  options_.write_back = ldim::WriteBackPolicy::kManual;
  options_.connect_wait = std::chrono::milliseconds(0);
  options_.machine_name = std::move(name);
  options_.read_ahead = false;
  options_.seal_after = std::chrono::hours(24 * 365 * 20);  // age ends no epoch
}

SimMachine::~SimMachine() { disk_.reset(); }

void SimMachine::learn_identity() {
  const auto identity = ldim::read_identity(*files_, options_.cache_folder);
  if (identity.ok() && *identity) id_ = (*identity)->machine;
}

// The newest moment that any version holds is where recovery cut the journal off.
bool SimMachine::rewind_to_held(std::size_t first) {
  bool found = false;
  std::uint64_t newest = 0;
  const auto moments = history_.moments();
  for (std::size_t i = first; i < moments.size(); ++i) {
    if (!world_.holds(moments[i])) continue;
    found = true;
    newest = moments[i];
  }
  if (found) history_.rewind_to(newest);
  return found;
}

// Begun anew on the version that it says; what the last session had flushed must be in a version.
void SimMachine::begin_session(const VersionId& version, bool unsent) {
  if (unsent) {  // could not be sent yet: its base stays, and so does what the guest sees
    if (after_ == After::kKill) history_.seal();
    return;
  }
  if (after_ == After::kPowerCut) {
    const bool found = rewind_to_held(0);
    REQUIRE(found);
    after_ = After::kClosed;
  } else if (after_ != After::kFresh) {
    history_.seal();
    const bool held = world_.holds(history_.moments().front());
    INFO("its writes were to be at the server; " << world_.nearest(history_.flushed()));
    REQUIRE(held);
  }
  history_.begin(world_.stamps_of_version(world_.image, version));
}

Status SimMachine::open() {
  INFO("DIMS_TEST_SEED=" << world_.seed);
  auto opened = ldim::Disk::open(
      options_, {remote_, *files_, clock_, disk_random_, [this](ldim::CommitStep step) {
                   return !(stop_behind_ && *stop_behind_ == step);
                 }});
  spdlog::info("{} opens: {}", options_.machine_name,
               opened.ok() ? std::string("ok") : opened.error().to_string());
  if (!opened.ok()) {
    if (after_ == After::kPowerCut && rewind_to_held(1)) after_ = After::kKill;
    return opened.error();
  }
  disk_ = std::move(opened).value();
  learn_identity();
  const std::string session = status()["session"]["id"];
  Bytes content(disk_->size());
  if (session != session_) {
    session_ = session;
    const auto version = VersionId::from_hex_text(status()["version"]["id"].get<std::string>());
    REQUIRE(version.has_value());
    begin_session(*version, status()["journal"]["unsent_epochs"].get<std::uint64_t>() != 0);
  } else if (after_ == After::kKill) {
    history_.seal();
  }
  if (skip_reading_) return ok_status();
  const Status read = disk_->read({0, content.size()}, content.data());
  REQUIRE(read.ok());
  std::string wrong;
  const Stamps found = stamps_of(content, 0, wrong);
  REQUIRE(wrong == "");
  if (after_ == After::kPowerCut) {
    const std::string lost = history_.rewind(found);
    REQUIRE(lost == "");
  } else {
    const auto differs = differences(found, history_.now());
    INFO((differs.empty() ? std::string() : differs.front()));
    REQUIRE(differs.empty());
  }
  after_ = After::kKill;
  return ok_status();
}

ByteRange SimMachine::drawn_range(std::uint64_t& first, std::uint64_t& count) {
  const std::uint64_t shape = random_.below(10);
  count = shape < 5 ? 8 : shape < 8 ? 1 + random_.below(7) : 1 + random_.below(48);
  count = std::min(count, world_.sectors);
  first = random_.below(world_.sectors - count + 1);
  if (shape < 4) first = first / 8 * 8;
  if (random_.below(3) == 0) first = std::min(first, world_.sectors / 16);  // a hot place
  count = std::min(count, world_.sectors - first);
  return {first * kSectorBytes, count * kSectorBytes};
}

void SimMachine::note_crowded() {
  const nlohmann::json journal = status()["journal"];
  if (2 * journal["bytes"].get<std::uint64_t>() > journal["limit_bytes"].get<std::uint64_t>())
    history_.may_end_here();
}

bool SimMachine::write() {
  note_crowded();
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  const ByteRange range = drawn_range(first, count);
  const std::uint32_t stamp = world_.next_stamp();
  Bytes data(range.count);
  for (std::uint64_t i = 0; i < count; ++i)
    fill_sector(first + i, stamp, data.data() + i * kSectorBytes);
  const bool fua = random_.below(12) == 0;
  history_.write(first, count, stamp);  // also if it fails: part of it may be there
  const Status written = disk_->write(range, data.data(), fua);
  spdlog::info("{} writes {} at {}+{}{}", options_.machine_name, stamp, first, count,
               fua ? " fua" : "");
  if (written.ok() && fua) history_.flush();
  return written.ok();
}

bool SimMachine::zero() {
  note_crowded();
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  const ByteRange range = drawn_range(first, count);
  history_.write(first, count, 0);
  return disk_->zero(range, random_.below(2) == 0, false).ok();
}

bool SimMachine::flush() {
  const bool ok = disk_->flush().ok();
  spdlog::info("{} flushes", options_.machine_name);
  if (ok) history_.flush();
  return ok;
}

void SimMachine::read_some() {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  const ByteRange range = drawn_range(first, count);
  Bytes data(range.count);
  INFO("DIMS_TEST_SEED=" << world_.seed << " at sector " << first);
  require_ok(disk_->read(range, data.data()));
  REQUIRE(test::difference(data, content_of(history_.now(), first, count)) == "");
}

void SimMachine::read_all() {
  INFO("DIMS_TEST_SEED=" << world_.seed);
  Bytes data(disk_->size());
  require_ok(disk_->read({0, data.size()}, data.data()));
  std::string wrong;
  const auto differs = differences(stamps_of(data, 0, wrong), history_.now());
  REQUIRE(wrong == "");
  INFO((differs.empty() ? std::string() : differs.front()));
  REQUIRE(differs.empty());
}

nlohmann::json SimMachine::status() { return disk_->status(false); }

std::uint64_t SimMachine::read_or_refuse() {
  INFO("DIMS_TEST_SEED=" << world_.seed);
  std::uint64_t refused = 0;
  constexpr std::uint64_t kSectors = 8;
  Bytes data(kSectors * kSectorBytes);
  for (std::uint64_t first = 0; first + kSectors <= world_.sectors; first += kSectors) {
    if (!disk_->read({first * kSectorBytes, data.size()}, data.data()).ok()) {
      ++refused;
      continue;
    }
    std::string wrong;
    const Stamps found = stamps_of(data, first, wrong);
    REQUIRE(wrong == "");
    for (std::uint64_t i = 0; i < kSectors; ++i) {
      if (found[i] == history_.now()[first + i]) continue;
      INFO("sector " << first + i);
      REQUIRE(found[i] == history_.now()[first + i]);
    }
  }
  return refused;
}

Result<bool> SimMachine::commit() {
  note_crowded();
  auto done = disk_->write_back_once();
  spdlog::info("{} commits: {}", options_.machine_name,
               !done.ok() ? done.error().to_string()
               : *done    ? "yes"
                          : "nothing to do");
  return done;
}

void SimMachine::commit_all() {
  INFO("DIMS_TEST_SEED=" << world_.seed);
  std::string last;
  for (int tries = 0; tries < 60; ++tries) {
    if (status()["journal"]["unsent_epochs"].get<std::uint64_t>() == 0) return;
    const auto done = commit();
    if (!done.ok()) last = done.error().to_string();
  }
  INFO(last);
  REQUIRE(status()["journal"]["unsent_epochs"].get<std::uint64_t>() == 0);
}

void SimMachine::kill() {
  spdlog::info("{} is killed", options_.machine_name);
  disk_.reset();
  stop_behind_.reset();
  history_.seal();  // everything is there, and recovery will seal it
  after_ = After::kKill;
}

void SimMachine::power_cut() {
  spdlog::info("{} loses power", options_.machine_name);
  disk_.reset();
  stop_behind_.reset();
  files_ = files_->after_power_cut(random_.next());
  after_ = After::kPowerCut;
}

void SimMachine::kill_before_damage() {
  disk_.reset();
  stop_behind_.reset();
  after_ = After::kPowerCut;
}

void SimMachine::arm_power_cut() { files_->stop_at_call(files_->calls() + random_.below(12)); }

void SimMachine::end_session() {
  spdlog::info("{} ends its session", options_.machine_name);
  INFO("DIMS_TEST_SEED=" << world_.seed);
  require_ok(disk_->client_connected());
  disk_->client_left(true);
  require_ok(disk_->close(std::chrono::seconds(1)));
  history_.flush();
  disk_.reset();
  after_ = After::kClosed;
}

}  // namespace dims::sim
