#include "tests/fault/wire_world.h"

#include <nlohmann/json.hpp>

namespace dims::test {
namespace {

constexpr std::uint64_t kSectors = 2048;
constexpr std::chrono::milliseconds kLeaseTerm{1500};
// Beyond every run: whoever waits so long waits for ever.
constexpr std::chrono::minutes kForEver{20};

// What a broken line may make of an attempt that says so; everything else is a bug.
bool lines_fault(const Error& error) {
  return ldim::is_away(error) || error.code == ErrorCode::kStaleLease ||
         error.code == ErrorCode::kLeaseHeld || error.code == ErrorCode::kMissingObjects;
}

std::uint64_t log_uniform(SeededRandom& random, unsigned bits_from, unsigned bits_to) {
  const std::uint64_t top = 1ull << (bits_from + random.below(bits_to - bits_from));
  return top + random.below(top);
}

}  // namespace

WireServer::WireServer(std::uint64_t seed, std::chrono::milliseconds lease_term) : random_(seed) {
  auto control = access::AccessControl::open(refs_, system_clock(), random_, std::nullopt);
  REQUIRE(control.ok());
  control_ = std::move(*control);
  catalog::CatalogOptions options;
  options.lease_term = lease_term;
  auto images = catalog::Catalog::open(objects_, refs_, random_.id<GenerationId>(), system_clock(),
                                       random_, options);
  REQUIRE(images.ok());
  catalog_ = std::move(*images);
  catalog::MaintenanceOptions upkeep;
  upkeep.space.fs = &io::posix_file_system();
  upkeep.space.folder = folder_.path;
  maintenance_ =
      std::make_unique<catalog::Maintenance>(*catalog_, objects_, refs_, system_clock(), upkeep);
  services::ServerOptions wanted;
  wanted.listen = {"127.0.0.1:0", "unix:" + folder_.path + "/sock"};
  wanted.version = "test";
  const auto now_s = std::chrono::duration_cast<std::chrono::seconds>(system_clock().wall());
  wanted.certificate =
      crypto::make_certificate("test", now_s.count() - 3600, now_s.count() + 24 * 3600);
  fingerprint_ = crypto::read_certificate(wanted.certificate.certificate_pem)->fingerprint.hex();
  auto started = services::RdimServer::start(*catalog_, objects_, *maintenance_, *control_, wanted);
  INFO((started.ok() ? std::string() : started.error().to_string()));
  REQUIRE(started.ok());
  server_ = std::move(*started);
}

WireServer::~WireServer() {
  if (server_ != nullptr) server_->stop(std::chrono::milliseconds(0));
}

std::string WireServer::known(const std::string& address) const {
  return address.starts_with("unix:") ? address : address + "#" + fingerprint_;
}

std::unique_ptr<contract::Remote> WireServer::connect(
    const std::string& address, const std::function<void(client::ClientOptions&)>& change) const {
  client::ClientOptions options;
  options.address = known(address);
  options.machine_name = "tester";
  change(options);
  auto remote = client::connect(options);
  if (!remote.ok()) std::abort();
  return std::move(remote).value();
}

WireWorld::WireWorld(std::uint64_t seed, WireTotals& totals)
    : seed_(seed),
      totals_(totals),
      random_(sim::mix(seed)),
      reader_random_(sim::mix(seed + 1)),
      disk_random_(sim::mix(seed + 2)),
      over_tls_(random_.below(4) != 0),
      patience_most_ms_(60u << random_.below(3)) {
  const std::lock_guard one_at_a_time(totals.making);
  server_ = std::make_unique<WireServer>(sim::mix(seed + 3), kLeaseTerm);
  clean_ = server_->connect(server_->local());
  key_ = std::make_unique<TemporaryKey>(random_);
  sim::Stamps first(kSectors, 0);
  const std::uint32_t stamp = next_stamp_++;
  for (std::size_t i = 0; i < first.size(); ++i) {
    if (i / 64 % 3 != 0) first[i] = stamp;  // with holes, as disks have
  }
  seen_.insert(commit_content(*clean_, key_->key, "disk", sim::content_of(first), random_));
  image_ = clean_->find_image("disk").value().id;
  history_.begin(std::move(first));
  options_.server = "test:1";
  options_.image = "disk";
  options_.key_path = key_->path;
  options_.cache_folder = "/ldim";
  options_.cache_bytes = 16 * kMiB;
  options_.journal_bytes = 64 * kMiB;  // never crowded: epochs end where the guest flushes
  options_.connect_wait = std::chrono::milliseconds(0);
  options_.seal_after = std::chrono::hours(24 * 365 * 20);
  options_.machine_name = "writer";
  options_.write_back =
      random_.below(3) == 0 ? ldim::WriteBackPolicy::kEager : ldim::WriteBackPolicy::kManual;
  options_.read_ahead = random_.below(2) == 0;
  make_line(writer_, sim::mix(seed + 4));
  make_line(reader_, sim::mix(seed + 5));
}

WireWorld::~WireWorld() {
  for (Machine* const machine : {&writer_, &reader_}) {
    if (machine->remote) machine->remote->shutdown();
    machine->disk.reset();
    machine->remote.reset();
    totals_.bytes_passed += machine->line->bytes_passed();
    totals_.bytes_lost += machine->line->bytes_lost();
  }
  ++totals_.worlds;
}

void WireWorld::make_line(Machine& machine, std::uint64_t seed) {
  machine.fates = SeededRandom(seed);
  const std::string target = over_tls_ ? server_->tcp() : server_->local();
  const std::string name = &machine == &writer_ ? "/writer" : "/reader";
  machine.line = std::make_unique<BreakingProxy>(
      target, server_->folder() + name,
      BreakingProxy::Calls{[this, &machine] { return draw_fault(machine.fates); },
                           [this, &machine](const WireFault& fault) {
                             ++machine.faults;
                             ++faults_;
                             ++totals_.faults;
                             ++totals_.kinds[static_cast<std::size_t>(fault.kind)];
                           }});
}

std::optional<WireFault> WireWorld::draw_fault(SeededRandom& random) const {
  using Kind = WireFaultKind;
  constexpr Kind kKinds[] = {Kind::kFin,         Kind::kFin,         Kind::kReset, Kind::kReset,
                             Kind::kTail,        Kind::kTail,        Kind::kStall, Kind::kStall,
                             Kind::kHalfOpenOne, Kind::kHalfOpenBoth};
  WireFault fault;
  fault.kind = kKinds[random.below(std::size(kKinds))];
  fault.up = random.below(2) == 0;
  const std::uint64_t place = random.below(10);
  if (place == 0)
    fault.after = random.below(2048);  // handshake, Hello
  else
    fault.after = place < 6 ? log_uniform(random, 10, 14) : log_uniform(random, 14, 18);
  // However slow this machine is, handshakes and some calls come through.
  if (place != 0) fault.at_least = std::min<std::uint64_t>(fault.after, 256 + random.below(2048));
  fault.patience = std::chrono::milliseconds(10 + random.below(patience_most_ms_));
  fault.lasts =
      std::chrono::milliseconds(1 + random.below(random.below(50) == 0                 ? 2500
                                                 : fault.kind == WireFaultKind::kStall ? 60
                                                                                       : 120));
  fault.then_reset = random.below(2) == 0;
  return fault;
}

void WireWorld::connect(Machine& machine, SeededRandom& random) const {
  auto remote = server_->connect(machine.line->address(), [&](client::ClientOptions& options) {
    options.machine_name = options_.machine_name;
    options.put_request_bytes = std::uint64_t{16 * kKiB} << random.below(6);
    options.keys_per_request = random.below(2) == 0 ? 64 : 4;
  });
  machine.remote =
      std::make_unique<CountingRemote>(std::move(remote), totals_.counts, machine.faults);
}

bool WireWorld::broken_enough() const {
  return stop_ || faults_ >= wanted_ || totals_.faults >= totals_.wanted;
}

void WireWorld::say(const std::string& what) {
  const std::lock_guard lock(wrong_mutex_);
  if (wrong_.empty()) wrong_ = "DIMS_TEST_SEED=" + std::to_string(seed_) + ": " + what;
  stop_ = true;
}

Result<sim::Stamps> WireWorld::stamps_of(const VersionId& version) {
  DIMS_ASSIGN(const Bytes content, version_content(*clean_, key_->key, image_, version));
  std::string wrong;
  sim::Stamps stamps = sim::stamps_of(content, 0, wrong);
  if (!wrong.empty()) return make_error(ErrorCode::kCorrupt, wrong);
  return stamps;
}

std::string WireWorld::run(std::uint64_t faults) {
  wanted_ = faults;
  std::thread reader([this] { read_along(); });
  work();
  healed_ = true;
  reader.join();
  return wrong_;
}

// --- the writer ---

void WireWorld::work() {
  open_writer();
  while (!broken_enough()) {
    step();
    judge();
  }
  if (!stopped()) drain();
}

void WireWorld::step() {
  for (std::uint64_t i = 1 + random_.below(5); i > 0 && !stopped(); --i) {
    const std::uint64_t what = random_.below(12);
    if (what == 0)
      zero_some();
    else if (what < 4)
      flush();
    else if (what < 6)
      read_some(1 + random_.below(3));
    else
      write_some();
  }
  const std::uint64_t event = random_.below(40);
  if (event == 0) {
    kill();
    open_writer();
  } else if (event < 3) {
    end_session(event == 2);
    open_writer();
  }
  if (options_.write_back == ldim::WriteBackPolicy::kManual) {
    (void)commit();
  } else if (random_.below(4) == 0) {
    // Its own thread sends; now and then the guest waits for that.
    (void)writer_.disk->sync(true, std::chrono::milliseconds(200)).ok();
    history_.flush();
  }
}

std::uint64_t WireWorld::draw_range(std::uint64_t& first, std::uint64_t most) {
  const std::uint64_t count = random_.below(2) == 0 ? 8 : 1 + random_.below(most);
  first = random_.below(kSectors - count + 1);
  if (random_.below(2) == 0) first = first / 8 * 8;
  return count;
}

void WireWorld::write_some() {
  std::uint64_t first = 0;
  const std::uint64_t count = draw_range(first, 64);
  const std::uint32_t stamp = next_stamp_++;
  Bytes data(count * sim::kSectorBytes);
  for (std::uint64_t i = 0; i < count; ++i)
    sim::fill_sector(first + i, stamp, data.data() + i * sim::kSectorBytes);
  const bool fua = random_.below(12) == 0;
  history_.write(first, count, stamp);
  const Status written =
      writer_.disk->write({first * sim::kSectorBytes, data.size()}, data.data(), fua);
  if (!written.ok()) return say("a write failed: " + written.error().to_string());
  if (fua) history_.flush();
}

void WireWorld::zero_some() {
  std::uint64_t first = 0;
  const std::uint64_t count = draw_range(first, 64);
  history_.write(first, count, 0);
  const Status zeroed = writer_.disk->zero({first * sim::kSectorBytes, count * sim::kSectorBytes},
                                           random_.below(2) == 0, false);
  if (!zeroed.ok()) say("zeroes failed: " + zeroed.error().to_string());
}

void WireWorld::flush() {
  const Status flushed = writer_.disk->flush();
  if (!flushed.ok()) return say("a flush failed: " + flushed.error().to_string());
  history_.flush();
  ++totals_.flushes;
}

void WireWorld::read_some(std::uint64_t count) {
  for (; count > 0 && !stopped(); --count) {
    std::uint64_t first = 0;
    const std::uint64_t sectors = draw_range(first, 256);
    Bytes data(sectors * sim::kSectorBytes);
    const Status read = writer_.disk->read({first * sim::kSectorBytes, data.size()}, data.data());
    if (!read.ok()) return say("a read failed: " + read.error().to_string());
    const std::string differs = difference(data, sim::content_of(history_.now(), first, sectors));
    if (!differs.empty())
      return say("the writer read wrong bytes at sector " + std::to_string(first) + ": " + differs);
    ++totals_.reads;
  }
}

bool WireWorld::commit() {
  const auto done = writer_.disk->write_back_once();
  if (done.ok()) return true;
  ++totals_.commits_failed;
  if (!lines_fault(done.error())) say("a commit failed: " + done.error().to_string());
  return false;
}

void WireWorld::kill() {
  ++totals_.kills;
  // As a dying process does it: calls under way end in the middle.
  if (random_.below(2) == 0) writer_.remote->shutdown();
  writer_.disk.reset();
  writer_.remote.reset();
  history_.seal();  // everything is there, and recovery will seal it
}

// In order. Another machine goes on only if nothing is left behind.
void WireWorld::end_session(bool leave_machine) {
  if (leave_machine) {
    flush();
    for (int tries = 0; tries < 20 && !stopped() && !writer_.disk->all_sent(); ++tries)
      (void)commit();
  }
  (void)writer_.disk->client_connected().ok();
  writer_.disk->client_left(true);
  const Status closed = writer_.disk->close(std::chrono::milliseconds(500));
  if (!closed.ok()) return say("a session did not end: " + closed.error().to_string());
  history_.flush();
  const bool sent = writer_.disk->all_sent();
  writer_.disk.reset();
  writer_.remote.reset();
  ++totals_.sessions;
  if (!leave_machine || !sent) return;
  writer_.files = std::make_unique<io::MemoryFileSystem>();
  ++totals_.machines;
}

// Whatever it opens, the guest finds what it left.
void WireWorld::open_writer() {
  if (stopped()) return;
  const auto give_up = std::chrono::steady_clock::now() + kForEver;
  connect(writer_, random_);
  for (;;) {
    auto opened =
        ldim::Disk::open(options_, {*writer_.remote, *writer_.files, system_clock(), disk_random_});
    if (opened.ok()) {
      writer_.disk = std::move(opened).value();
      break;
    }
    if (!lines_fault(opened.error()))
      return say("the disk did not open: " + opened.error().to_string());
    if (std::chrono::steady_clock::now() > give_up)
      return say("the disk never opened: " + opened.error().to_string());
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  compare_all(*writer_.disk, history_.now(), "the writer");
}

// The line is whole now: everything arrives.
void WireWorld::drain() {
  writer_.line->heal();
  flush();
  const auto give_up = std::chrono::steady_clock::now() + kForEver;
  while (!stopped() && !writer_.disk->all_sent()) {
    if (std::chrono::steady_clock::now() > give_up) return say("not everything arrived");
    if (!commit()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  if (stopped()) return;
  compare_all(*writer_.disk, history_.now(), "the writer, in the end,");
  judge();
  const auto image = clean_->get_image(image_);
  if (!image.ok()) return say(image.error().to_string());
  const auto head = stamps_of(image->head);
  if (!head.ok()) return say(head.error().to_string());
  if (*head != history_.flushed()) say("the head is not what was flushed last");
}

// Every version that the server shows is a flush point of the guest, in order.
void WireWorld::judge() {
  if (stopped()) return;
  const auto images = clean_->list_images();
  if (!images.ok()) return say(images.error().to_string());
  if (images->size() != 1) return say("one writer got a branch: " + images->back().name);
  std::vector<VersionId> fresh;
  for (VersionId at = images->front().head; !seen_.contains(at);) {
    const auto version = clean_->get_version(image_, at, 0);
    if (!version.ok()) return say(version.error().to_string());
    fresh.push_back(at);
    at = version->record.parent;
  }
  for (auto it = fresh.rbegin(); it != fresh.rend(); ++it) {
    const auto stamps = stamps_of(*it);
    if (!stamps.ok()) return say(stamps.error().to_string());
    const auto point = history_.flush_point(sim::hash_stamps(*stamps), last_point_);
    if (!point) return say("version " + it->short_hex() + " is no flush point behind the last one");
    last_point_ = *point;
    seen_.insert(*it);
    ++totals_.versions;
  }
}

void WireWorld::compare_all(ldim::Disk& disk, const sim::Stamps& wanted, const std::string& who) {
  Bytes data(disk.size());
  const Status read = disk.read({0, data.size()}, data.data());
  if (!read.ok()) return say(who + " could not read: " + read.error().to_string());
  const std::string differs = difference(data, sim::content_of(wanted));
  if (!differs.empty()) say(who + " read wrong bytes: " + differs);
  ++totals_.reads;
}

// --- the reader: sessions that only read, one after another, each on the newest version ---

bool WireWorld::open_reader(VersionId& version) {
  ldim::DiskOptions options = options_;
  options.mode = ldim::SessionMode::kReadOnly;
  options.machine_name = "reader";
  if (reader_.files == nullptr || reader_random_.below(3) == 0)
    reader_.files = std::make_unique<io::MemoryFileSystem>();
  connect(reader_, reader_random_);
  const auto give_up = std::chrono::steady_clock::now() + kForEver;
  for (;;) {
    auto opened =
        ldim::Disk::open(options, {*reader_.remote, *reader_.files, system_clock(), disk_random_});
    if (opened.ok()) {
      reader_.disk = std::move(opened).value();
      break;
    }
    if (!lines_fault(opened.error())) {
      say("the reader's disk did not open: " + opened.error().to_string());
      return false;
    }
    if (stopped() || std::chrono::steady_clock::now() > give_up) {
      say("the reader's disk never opened: " + opened.error().to_string());
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  const std::string text = reader_.disk->status(false)["version"]["id"];
  version = VersionId::from_hex_text(text).value_or(VersionId{});
  return true;
}

void WireWorld::read_along() {
  for (bool last = false; !last && !stopped();) {
    last = broken_enough();
    if (last) reader_.line->heal();
    VersionId version;
    if (!open_reader(version)) return;
    const auto wanted = stamps_of(version);
    if (!wanted.ok()) return say("the reader's version: " + wanted.error().to_string());
    const Bytes content = sim::content_of(*wanted);
    std::vector<std::thread> guests;
    const std::uint64_t order = reader_random_.next();
    for (std::uint64_t guest = 0; guest < 2; ++guest) {
      guests.emplace_back([&, guest] {
        SeededRandom random(sim::mix(order + guest));
        for (std::uint64_t i = 4 + random.below(10); i > 0 && !stopped(); --i) {
          const std::size_t count = 4096 * (1 + random.below(32));
          const std::size_t at = random.below(content.size() - count);
          Bytes data(count);
          const Status read = reader_.disk->read({at, count}, data.data());
          if (!read.ok()) return say("the reader could not read: " + read.error().to_string());
          if (!std::equal(data.begin(), data.end(), content.data() + at))
            return say("the reader read wrong bytes near byte " + std::to_string(at));
          ++totals_.reads;
        }
      });
    }
    for (std::thread& guest : guests) guest.join();
    if (last) compare_all(*reader_.disk, *wanted, "the reader, in the end,");
    (void)reader_.disk->client_connected().ok();
    reader_.disk->client_left(reader_random_.below(2) == 0);
    if (reader_random_.below(4) == 0) reader_.remote->shutdown();
    (void)reader_.disk->close(std::chrono::milliseconds(100)).ok();
    reader_.disk.reset();
    reader_.remote.reset();
  }
}

}  // namespace dims::test
