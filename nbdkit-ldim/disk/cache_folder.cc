#include "nbdkit-ldim/disk/cache_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <map>
#include <thread>

#include "common/base/wire.h"
#include "common/crypto/aead.h"
#include "common/crypto/secret.h"
#include "common/io/errno_map.h"
#include "common/io/private_file.h"

namespace dims::ldim {
namespace {

constexpr std::string_view kFirstLine = "dims-cache 1";

std::string encode_identity(const FolderIdentity& identity) {
  std::string body(kFirstLine);
  body += "\nmachine = " + identity.machine.hex() + "\nimage = " + identity.image.hex() +
          "\nkey-check = " + identity.key_check.hex() + "\n";
  return body + "check = " + to_hex(crypto::sha256(as_bytes(body)).view().first(8)) + "\n";
}

Result<FolderIdentity> decode_identity(std::string_view text, const std::string& path) {
  const auto corrupt = [&] {
    return make_error(ErrorCode::kCorrupt, path + " is damaged",
                      "use another cache folder, or remove this one if it holds no unsent writes");
  };
  if (text.substr(0, 11) == "dims-cache " && text.substr(0, text.find('\n')) != kFirstLine) {
    return make_error(ErrorCode::kUnsupported, path + " has an unknown format",
                      "update this program");
  }
  FolderIdentity identity;
  const auto field = [&]<typename IdType>(std::string_view name, IdType& out) {
    const std::string key = "\n" + std::string(name) + " = ";
    const auto at = text.find(key);
    if (at == std::string_view::npos) return false;
    const auto value = IdType::from_hex_text(text.substr(at + key.size(), IdType::kBytes * 2));
    if (value) out = *value;
    return value.has_value();
  };
  if (!field("machine", identity.machine) || !field("image", identity.image) ||
      !field("key-check", identity.key_check) || encode_identity(identity) != text) {
    return corrupt();
  }
  return identity;
}

Bytes keys_ad(const FolderIdentity& identity) {
  Bytes ad;
  Writer w(ad);
  w.raw(as_bytes("dims/cache-keys/1"));
  w.id(identity.machine);
  w.id(identity.image);
  return ad;
}

}  // namespace

Result<std::optional<FolderIdentity>> read_identity(io::FileSystem& fs, const std::string& folder) {
  const std::string path = folder + "/identity";
  DIMS_ASSIGN(const bool there, fs.exists(path));
  if (!there) return std::optional<FolderIdentity>{};
  DIMS_ASSIGN(const Bytes text, io::read_file(fs, path, 4096));
  DIMS_ASSIGN(const FolderIdentity identity, decode_identity(as_text(text), path));
  return std::optional<FolderIdentity>{identity};
}

Status check_unused(io::FileSystem& fs, const std::string& folder) {
  DIMS_ASSIGN(const auto names, fs.list(folder));
  for (const std::string& name : names) {
    if (name != "lock" && name != "control.sock" && name != "machine-secret" &&
        name != "machine-secret.new" && name != "identity.new") {
      return make_error(ErrorCode::kInvalidArgument,
                        "cache folder " + folder + " holds other files (" + name + ")",
                        "give LDIM a folder of its own");
    }
  }
  return ok_status();
}

std::array<std::uint8_t, 8> folder_tag(const FolderKeys& keys) {
  const Secret32 tag = crypto::prf(keys.state.key(), "sessions", {});
  std::array<std::uint8_t, 8> out{};
  std::copy_n(tag.view().begin(), out.size(), out.begin());
  return out;
}

Status empty_folder(io::FileSystem& fs, const std::string& folder) {
  DIMS_ASSIGN(const bool there, fs.exists(folder));
  if (!there) return fs.make_folder(folder);
  DIMS_ASSIGN(const auto names, fs.list(folder));
  for (const std::string& name : names) DIMS_TRY(fs.remove(folder + "/" + name));
  return fs.sync_folder(folder);
}

Result<FolderIdentity> prepare_folder(io::FileSystem& fs, const std::string& folder,
                                      const ImageId& image, const format::KeyFile& key,
                                      Random& random) {
  DIMS_TRY(fs.make_folder(folder));
  DIMS_ASSIGN(const auto known, read_identity(fs, folder));
  if (known) {
    if (!(known->image == image)) {
      return make_error(ErrorCode::kInvalidArgument,
                        "cache folder " + folder + " belongs to another image (id " +
                            known->image.hex() + ", not " + image.hex() + ")",
                        "give each image a cache folder of its own");
    }
    if (!(known->key_check == key.key_check(image))) {
      return make_error(ErrorCode::kWrongKey,
                        "the key file does not belong to cache folder " + folder,
                        "use the key file that the image was imported with");
    }
    return *known;
  }
  DIMS_TRY(check_unused(fs, folder));
  FolderIdentity identity{key.machine_of_record(random.id<MachineId>()), image,
                          key.key_check(image)};
  DIMS_TRY(io::replace_file(fs, folder + "/machine-secret", random.id<Secret32>().view()));
  DIMS_TRY(io::replace_file(fs, folder + "/identity", as_bytes(encode_identity(identity))));
  DIMS_TRY(fs.sync_folder(io::parent_folder(folder)));
  return identity;
}

Result<bool> holds_files(io::FileSystem& fs, const std::string& folder) {
  DIMS_ASSIGN(const bool there, fs.exists(folder));
  if (!there) return false;
  DIMS_ASSIGN(const auto names, fs.list(folder));
  return !names.empty();
}

Result<FolderKeys> open_folder_keys(io::FileSystem& fs, const std::string& folder,
                                    const FolderIdentity& identity, const format::KeyFile& key,
                                    Random& random) {
  DIMS_TRY(io::check_private(folder + "/machine-secret", "the machine's secret"));
  DIMS_ASSIGN(Bytes secret_bytes, io::read_file(fs, folder + "/machine-secret", 32));
  if (secret_bytes.size() != Secret32::kBytes)
    return make_error(ErrorCode::kCorrupt, folder + "/machine-secret is damaged");
  const auto secret = crypto::SecretBytes::take(secret_bytes);
  const crypto::HeldKey local = crypto::prf(key.local_key(), "local", {secret.view()});
  const std::string path = folder + "/keys";
  FolderKeys keys;
  keys.state = crypto::prf(key.local_key(), "state", {secret.view(), identity.image.view()});
  DIMS_ASSIGN(const bool there, fs.exists(path));
  if (!there) {
    // New ones would open nothing of what is here, and the cache would throw all of it away.
    DIMS_ASSIGN(const bool used, holds_files(fs, folder + "/journal"));
    if (used) {
      return make_error(ErrorCode::kCorrupt, path + " is missing, and " + folder + " is in use",
                        "without it the journal in this folder cannot be read; restore the file, "
                        "or use a new cache folder");
    }
    keys.journal = random.id<Secret32>();
    keys.pages = random.id<Secret32>();
    Bytes plain;
    Writer w(plain);
    plain.reserve(2 * Secret32::kBytes);  // no copy is left behind by growing
    w.raw(keys.journal.view());
    w.raw(keys.pages.view());
    DIMS_TRY(io::replace_file(fs, path, crypto::wrap(local, keys_ad(identity), plain, random)));
    crypto::wipe(plain);
    return keys;
  }
  DIMS_ASSIGN(const Bytes wrapped, io::read_file(fs, path, 4096));
  auto plain = crypto::unwrap(local, keys_ad(identity), wrapped);
  if (!plain && key.member) {
    return make_error(ErrorCode::kWrongKey,
                      path + " belongs to another user of this machine, or is damaged",
                      "give each user a cache folder of his own for each image");
  }
  if (!plain || plain->size() != 64) {
    return make_error(ErrorCode::kCorrupt, path + " is damaged or was copied from another machine",
                      "without it the journal in this folder cannot be read; restore the file");
  }
  Reader r(*plain);
  keys.journal = r.id<Secret32>();
  keys.pages = r.id<Secret32>();
  crypto::wipe(*plain);
  return keys;
}

bool FolderLock::held(const std::string& folder) {
  const int fd = ::open((folder + "/lock").c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool held = ::flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::close(fd);
  return held;
}

Result<std::unique_ptr<FolderLock>> FolderLock::take(const std::string& folder) {
  const std::string path = folder + "/lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return io::errno_error(errno, "cannot open", path);
  // held() has it for a moment.
  int rc = -1;
  for (int tries = 0; tries < 5 && rc != 0; ++tries) {
    if (tries != 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    rc = ::flock(fd, LOCK_EX | LOCK_NB);
  }
  if (rc != 0) {
    ::close(fd);
    return make_error(ErrorCode::kConflict, "cache folder " + folder + " is in use by another LDIM",
                      "stop that nbdkit first, or use another cache folder");
  }
  return std::unique_ptr<FolderLock>(new FolderLock(fd));
}

FolderLock::~FolderLock() { ::close(fd_); }

std::string host_boot_id() {
  auto text =
      io::posix_file_system().open("/proc/sys/kernel/random/boot_id", io::OpenMode::kReadOnly);
  if (!text.ok()) return {};
  Bytes buffer(36);
  const auto n = (*text)->read_some(0, buffer);
  return n.ok() ? std::string(as_text(ByteView(buffer).first(*n))) : std::string();
}

}  // namespace dims::ldim
