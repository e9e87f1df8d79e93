// A small real disk on a server in memory, for fuzz targets that need one.
// Threads: one. It lives as long as the program.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <spdlog/spdlog.h>

#include "common/format/key_file.h"
#include "common/io/memory_file.h"
#include "nbdkit-ldim/disk/disk.h"
#include "tests/support/fake_remote.h"

namespace dims::fuzz {

class SmallDisk {
 public:
  SmallDisk() : random_(1), key_(format::generate_key_file(random_)) {
    spdlog::set_level(spdlog::level::off);
    const auto path =
        std::filesystem::temp_directory_path() / ("dims-fuzz-key-" + std::to_string(::getpid()));
    std::filesystem::remove(path);
    if (!format::create_key_file(path.string(), key_).ok()) std::abort();
    contract::ImageInfo image;
    image.id = random_.id<ImageId>();
    image.name = "disk";
    image.image_bytes = kMiB;
    image.domain = key_.domain;
    image.key_check = key_.key_check(image.id);
    if (!remote_.create_image(image).ok()) std::abort();
    commit_zeros(image);
    ldim::DiskOptions options;
    options.image = "disk";
    options.key_path = path.string();
    options.cache_folder = "/ldim";
    options.cache_bytes = 16 * kMiB;
    options.journal_bytes = kMiB;
    options.write_back = ldim::WriteBackPolicy::kManual;
    options.machine_name = "fuzz";
    auto opened = ldim::Disk::open(options, {remote_, fs_, system_clock(), random_});
    std::filesystem::remove(path);
    if (!opened.ok()) std::abort();
    disk_ = std::move(opened).value();
    const Bytes data(9000, 3);
    if (!disk_->write({0, data.size()}, data.data(), true).ok()) std::abort();
  }
  ldim::Disk& disk() { return *disk_; }

 private:
  // A first version in which everything is zero.
  void commit_zeros(const contract::ImageInfo& image) {
    const auto lease = remote_.acquire_lease(
        {image.id, random_.id<SessionId>(), random_.id<MachineId>(), "maker", false});
    if (!lease.ok()) std::abort();
    format::VersionRecord record;
    record.org = key_.org;
    record.image = image.id;
    record.image_bytes = image.image_bytes;
    record.tree = image.tree;
    record.sequence = 1;
    format::seal_root_key(record, key_.image_key(image.id), {}, random_);
    const auto answer = remote_.commit(
        {image.id, lease->lease, lease->token, {}, format::encode_version(record, key_.signing)});
    if (!answer.ok() || !remote_.release_lease(image.id, *lease).ok()) std::abort();
  }

  SeededRandom random_;
  format::KeyFile key_;
  test::FakeRemote remote_;
  io::MemoryFileSystem fs_;
  std::unique_ptr<ldim::Disk> disk_;
};

}  // namespace dims::fuzz
