// The key file: one person's keys (docs/formats/key-file.md). It holds the organisation id, a
// domain secret, an image-key secret and a signing seed, as text lines "name = hex", with a check
// sum.
//
// Threads: values. Errors: kNotFound, kPermissionDenied if others may read the file, kCorrupt
// naming the line, kAlreadyExists (an existing key file is never overwritten). Durable on return of
// create().
#pragma once

#include <string>

#include "common/base/clock.h"
#include "common/crypto/sign.h"
#include "common/format/object.h"

namespace dims::format {

struct KeyFile {
  OrgId org;
  DomainId domain;
  Secret32 domain_secret;
  Secret32 image_secret;
  crypto::SigningKey signing;

  DomainKey domain_key() const { return DomainKey(domain, 1, domain_secret); }
  // I of one image: opens root keys.
  Secret32 image_key(const ImageId& image) const;
  // U: wraps what a machine keeps locally for this person.
  Secret32 local_key() const;
  // What the image's record on the server holds, so that a wrong key file is found before any
  // write.
  Digest key_check(const ImageId& image) const;
};

KeyFile generate_key_file(Random& random);
std::string encode_key_file(const KeyFile& key);
Result<KeyFile> parse_key_file(std::string_view text);

// Creates PATH (0600) durably; kAlreadyExists if it is there.
Status create_key_file(const std::string& path, const KeyFile& key);
Result<KeyFile> load_key_file(const std::string& path);

}  // namespace dims::format
