// The key file: one person's keys (docs/formats/key-file.md). It holds the organisation id, a
// domain secret, an image-key secret and a signing seed, as text lines "name = hex", with a check
// sum.
//
// Threads: values. Errors: kNotFound, kPermissionDenied if others may read the file, kCorrupt
// naming the line, kAlreadyExists (an existing key file is never overwritten). Durable on return of
// create().
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "common/base/clock.h"
#include "common/crypto/sign.h"
#include "common/format/object.h"

namespace dims::format {

struct VersionRecord;

// What a member of an organisation has instead of a key file's image-key secret: what his grants
// opened, for one image and its branches.
struct MemberKeys {
  std::map<std::uint32_t, crypto::HeldKey> image;  // I of each epoch; never empty
  crypto::HeldKey local;                           // U: wraps what a machine keeps locally
  std::uint32_t domain_epoch = 0;                  // of KeyFile::domain_secret; 0: none, a reader's
  MachineId machine;                               // that versions name; zero: no enrolled one
  // Whether a writer made that version.
  std::function<Status(const VersionRecord&)> check_signer;
  // And by this very user, in this or an earlier session of his. Empty: not asked.
  std::function<Status(const VersionRecord&)> check_own;
  // The lowest number that this image's newest version can have: what the organisation's log says.
  // Empty: not asked.
  std::function<std::uint64_t(const ImageId&)> head_floor;
};

struct KeyFile {
  OrgId org;
  DomainId domain;
  crypto::HeldKey domain_secret;
  crypto::HeldKey image_secret;
  crypto::SigningKey signing;
  std::shared_ptr<const MemberKeys> member;  // nullptr: one person's key file

  DomainKey domain_key() const {
    return DomainKey(domain, member ? member->domain_epoch : 1, domain_secret);
  }
  // I of one image in its newest epoch: seals root keys.
  crypto::HeldKey image_key(const ImageId& image) const;
  std::uint32_t image_epoch() const { return member ? member->image.rbegin()->first : 1; }
  // I of the version's epoch: opens its root key. What is not there opens nothing.
  crypto::HeldKey image_key(const VersionRecord& version) const;
  // kWrongKey, kUntrusted: nobody who may write this image made that version.
  Status check_signer(const VersionRecord& version) const;
  // The same, and it was this person himself.
  Status check_own(const VersionRecord& version) const;
  // No version with a lower number is the image's newest one. 0: nothing is known of it.
  std::uint64_t head_floor(const ImageId& image) const {
    return member && member->head_floor ? member->head_floor(image) : 0;
  }
  // The machine that a version names.
  MachineId machine_of_record(const MachineId& host) const {
    return member ? member->machine : host;
  }
  // U: wraps what a machine keeps locally for this person.
  crypto::HeldKey local_key() const;
  // What the image's record on the server holds, so that a wrong key file is found before any
  // write.
  Digest key_check(const ImageId& image) const;
};

// The keys of a running disk, which another login may exchange for newer ones of the same image and
// user. Threads: thread-safe; what get() gave stays as it was.
class KeyRing {
 public:
  KeyRing() = default;
  std::shared_ptr<const KeyFile> get() const {
    const std::lock_guard lock(mutex_);
    return keys_;
  }
  // Precondition: set.
  std::shared_ptr<const KeyFile> operator->() const { return get(); }
  void set(std::shared_ptr<const KeyFile> keys) {
    const std::lock_guard lock(mutex_);
    keys_ = std::move(keys);
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const KeyFile> keys_;
};

KeyFile generate_key_file(Random& random);
std::string encode_key_file(const KeyFile& key);
Result<KeyFile> parse_key_file(std::string_view text);

// Creates PATH (0600) durably; kAlreadyExists if it is there.
Status create_key_file(const std::string& path, const KeyFile& key);
Result<KeyFile> load_key_file(const std::string& path);

}  // namespace dims::format
