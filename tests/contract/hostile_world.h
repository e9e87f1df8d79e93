// An organisation with its real server in this process, a server that lies before it, a member with
// two machines and what they need for logging in and working on disks. Threads: one owner.
#pragma once

#include <nlohmann/json.hpp>

#include <atomic>
#include <condition_variable>
#include <thread>

#include "common/client/client.h"
#include "nbdkit-ldim/login/login.h"
#include "tests/contract/access_world.h"
#include "tests/contract/hostile_proxy.h"
#include "tests/support/disk_fixture.h"

namespace dims::test {

template <typename Message>
Message parsed(const std::string& bytes) {
  Message message;
  message.ParseFromString(bytes);  // asserts nothing: gRPC's threads are no test's
  return message;
}

// Whoever waits for a server that never answers is told to stop.
class Patience {
 public:
  Patience(std::chrono::milliseconds longest, std::function<void()> on_end)
      : thread_([this, longest, on_end = std::move(on_end)] {
          std::unique_lock lock(mutex_);
          if (changed_.wait_for(lock, longest, [this] { return done_; })) return;
          lock.unlock();
          over_ = true;
          on_end();
        }) {}
  ~Patience() {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  const std::atomic<bool>& over() const { return over_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::atomic<bool> over_{false};
  std::thread thread_;
};

struct HostileWorld {
  static constexpr std::size_t kImageBytes = 3 * kMiB;
  static constexpr const char* kPassphrase = "a long walk in the rain";

  // Who works: a session of the member on one of his machines, with its folder.
  struct Worker {
    std::unique_ptr<ldim::MachineFolder> folder;
    ldim::SessionKeys session;
    std::shared_ptr<client::LoginToken> token;
    std::unique_ptr<contract::Remote> remote;
    std::shared_ptr<const format::KeyFile> keys;
  };

  HostileWorld();

  void make_image(const ImageId& id, const std::string& name, const DomainId& domain,
                  const trust::UserSecrets& owner) {
    contract::ImageInfo image;
    image.id = id;
    image.name = name;
    image.image_bytes = kImageBytes;
    image.domain = domain;
    image.key_check = crypto::sha256({as_bytes("dims/member-image/1"), f.org.view(), id.view()});
    REQUIRE(world->catalog->create_image(image).ok());
    REQUIRE(world->control->people().put_image(id, {owner.user, {}}).ok());
  }
  void grant(trust::KeyScope scope, const trust::ScopeId& id, std::uint32_t epoch,
             const trust::UserSecrets& to, const trust::UserSecrets& by) {
    const auto made = trust::make_grant(f.state(), scope, id, epoch, f.key_of_epoch(id, epoch),
                                        to.user, by.user, by.sign);
    REQUIRE(made.ok());
    REQUIRE(world->control->people().put_grants({*made}).ok());
  }
  std::string make_machine_folder(const std::string& name, const trust::MachineFile& machine) {
    const std::string path = folder.path + "/" + name;
    auto& fs = io::posix_file_system();
    require_ok(fs.make_folder(path));
    require_ok(trust::save_machine(path + "/machine", machine, nullptr, f.random));
    require_ok(client::OrgFolder(fs, path).save({proxy->address(), f.org, f.records}));
    return path;
  }
  // A fresh copy of a machine folder.
  std::string copy_folder(const std::string& from, const std::string& name) {
    const std::string path = folder.path + "/" + name;
    std::filesystem::remove_all(path);
    std::filesystem::copy(from, path, std::filesystem::copy_options::recursive);
    return path;
  }
  static ldim::LoginWish wish(const std::string& machine_folder, const std::string& image,
                              trust::Access access = trust::Access::kWrite) {
    return {machine_folder, "carol", image, access, ""};
  }
  // Login limits, leases and tokens of the last cell are over.
  void next_minute() { world->clock.advance(std::chrono::seconds(61)); }

  Worker work(const std::string& machine_folder, const ldim::SessionKeys& session) {
    Worker out;
    auto opened = ldim::MachineFolder::open(machine_folder);
    REQUIRE(opened.ok());
    out.folder = std::make_unique<ldim::MachineFolder>(std::move(*opened));
    out.session = session;
    out.token = ldim::session_token(*out.folder, out.session);
    client::ClientOptions options;
    options.address = proxy->address();
    options.machine = out.folder->machine().machine;
    options.machine_name = out.folder->machine().name;
    options.token = out.token;
    out.remote = std::move(*client::connect(options));
    auto its_own = ldim::MachineFolder::open(machine_folder);
    REQUIRE(its_own.ok());
    auto keys = ldim::standing_keys(std::move(*its_own), out.session, out.token);
    REQUIRE(keys.ok());
    out.keys = std::make_shared<const format::KeyFile>(std::move(*keys));
    return out;
  }
  ldim::SessionKeys login(const std::string& machine_folder, const std::string& image) {
    next_minute();
    auto session = ldim::log_in(wish(machine_folder, image), as_bytes(kPassphrase));
    INFO((session.ok() ? "" : session.error().to_string()));
    REQUIRE(session.ok());
    return std::move(*session);
  }
  ldim::DiskOptions disk_options(const Worker& worker, const std::string& image) const {
    ldim::DiskOptions options;
    options.server = "test:1";
    options.image = image;
    options.keys = worker.keys;
    options.cache_folder = "/ldim";
    options.cache_bytes = 16 * kMiB;
    options.journal_bytes = 32 * kMiB;
    options.write_back = ldim::WriteBackPolicy::kManual;
    options.connect_wait = std::chrono::milliseconds(0);
    options.machine_name = worker.folder->machine().name;
    options.read_ahead = false;
    return options;
  }
  Result<std::unique_ptr<ldim::Disk>> open_disk(const Worker& worker, const std::string& image,
                                                io::FileSystem& fs,
                                                std::function<bool()> quitting = {}) {
    return ldim::Disk::open(
        disk_options(worker, image),
        {*worker.remote, fs, system_clock(), f.random, {}, std::move(quitting)});
  }

  OrgFixture f{seed(), client::unix_now_s()};
  SeededRandom random{seed() + 1};
  trust::NewUser carol;
  ImageId disk{f.random.id<ImageId>()};     // carol's, private domain: versions 1 to 3
  ImageId other{f.random.id<ImageId>()};    // the same
  ImageId scratch{f.random.id<ImageId>()};  // the same, written by tests
  ImageId common{f.random.id<ImageId>()};   // of the organisation's domain
  ImageId branch{f.random.id<ImageId>()};   // of disk's version 2
  std::vector<Bytes> contents;              // of disk's versions
  Bytes other_content, branch_content, scratch_content;
  TempFolder folder;
  std::unique_ptr<AccessWorld> world;
  std::unique_ptr<HostileProxy> proxy;
  std::string laptop, desk;  // machine folders; laptop has logged in nowhere yet
};

inline HostileWorld::HostileWorld()
    : carol(std::move(*trust::make_user(f.org, f.random.id<trust::UserId>(), "carol",
                                        as_bytes(kPassphrase), {}, f.random))) {
  using namespace trust;
  const UserSecrets& c = carol.secrets;
  f.say(certificate_of(c, "carol", Role::kUser), f.admin.sign);
  for (const ImageId& id : {disk, other, scratch}) {
    f.say(ImageAcl{id, c.user, Access::kAdmin}, c.sign);
    f.say(f.epoch(KeyScope::kImage, scope_id(id), 1), c.sign);
  }
  f.say(ImageAcl{common, f.admin.user, Access::kAdmin}, f.admin.sign);
  f.say(ImageAcl{common, c.user, Access::kWrite}, f.admin.sign);
  f.say(f.epoch(KeyScope::kImage, scope_id(common), 1), f.admin.sign);
  // Bob reads one and writes the other.
  f.say(ImageAcl{disk, f.bob.user, Access::kRead}, c.sign);
  f.say(ImageAcl{common, f.bob.user, Access::kWrite}, f.admin.sign);
  world = std::make_unique<AccessWorld>(f.records);
  world->clock.advance(system_clock().wall() - world->clock.wall());
  require_ok(world->control->people().put_user(carol.record));
  proxy = std::make_unique<HostileProxy>(world->channel, "unix:" + folder.path + "/lies");
  make_image(disk, "disk", c.private_domain, c);
  make_image(other, "other", c.private_domain, c);
  make_image(scratch, "scratch", c.private_domain, c);
  make_image(common, "common", f.domain, f.admin);
  for (const ImageId& id : {disk, other, scratch}) grant(KeyScope::kImage, scope_id(id), 1, c, c);
  grant(KeyScope::kImage, scope_id(common), 1, c, f.admin);
  grant(KeyScope::kDomain, scope_id(f.domain), 1, c, f.admin);

  laptop = make_machine_folder("laptop", f.laptop);
  desk = make_machine_folder("desk", f.desk);
  const auto fill = [&](const std::string& name, const std::vector<Bytes>& versions) {
    const Worker worker = work(desk, login(desk, name));
    for (const Bytes& content : versions)
      commit_content(*worker.remote, *worker.keys, name, content, random);
  };
  contents.push_back(random_content(random, kImageBytes));
  for (int version = 2; version <= 3; ++version) {
    Bytes next = contents.back();
    const Bytes change = random_content(random, kMiB / 2);
    std::copy(change.begin(), change.end(),
              next.begin() + static_cast<std::ptrdiff_t>(random.below(2 * kMiB)));
    contents.push_back(std::move(next));
  }
  other_content = random_content(random, kImageBytes);
  branch_content = random_content(random, kImageBytes);
  scratch_content = random_content(random, kImageBytes);
  fill("disk", {contents[0], contents[1]});
  {
    // A conflict branch of version 2, with a version of its own.
    const Worker worker = work(desk, login(desk, "disk"));
    contract::ImageInfo made = *worker.remote->find_image("disk");
    made.origin = made.head;
    made.head = {};
    made.id = branch;
    made.name = "disk.conflict-desk-2";
    made.conflict_of = "disk";
    made.key_check = worker.keys->key_check(branch);
    REQUIRE(worker.remote->create_image(made).ok());
    commit_content(*worker.remote, *worker.keys, made.name, branch_content, random);
  }
  fill("disk", {contents[2]});
  fill("other", {contents[1], other_content});
  fill("scratch", {scratch_content});
  fill("common", {other_content});
}

}  // namespace dims::test
