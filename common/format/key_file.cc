#include "common/format/key_file.h"

#include <sys/stat.h>

#include <map>

#include "common/crypto/secret.h"
#include "common/format/version.h"
#include "common/io/errno_map.h"
#include "common/io/file.h"
#include "common/io/private_file.h"

namespace dims::format {
namespace {

constexpr std::string_view kFirstLine = "dims-key 1";
constexpr std::size_t kMaxBytes = 4096;

std::string check_of(std::string_view body) {
  return to_hex(crypto::sha256(as_bytes(body)).view().first(8));
}

// In place: no copy of a secret is left behind.
bool read_hex(std::string_view text, MutByteView out) {
  if (text.size() != out.size() * 2) return false;
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  for (std::size_t i = 0; i < out.size(); ++i) {
    const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    out[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return true;
}

Error bad_key_file(const std::string& what) {
  return make_error(ErrorCode::kCorrupt, "key file: " + what,
                    "restore it from your copy; it cannot be made anew");
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r'))
    text.remove_suffix(1);
  return text;
}

}  // namespace

crypto::HeldKey KeyFile::image_key(const ImageId& image) const {
  if (!member) return crypto::prf(image_secret, "image", {image.view()});
  return member->image.rbegin()->second;
}
crypto::HeldKey KeyFile::image_key(const VersionRecord& version) const {
  if (!member) return image_key(version.image);
  const auto found = member->image.find(version.image_epoch);
  return found == member->image.end() ? crypto::HeldKey() : found->second;
}
Status KeyFile::check_signer(const VersionRecord& version) const {
  if (member) return member->check_signer(version);
  if (version.org == org && version.signer == signing.public_key) return ok_status();
  return make_error(ErrorCode::kWrongKey,
                    "version " + std::to_string(version.sequence) + " is signed by " +
                        version.signer.short_hex() + ", not by the owner of the key file",
                    "use the key file that the image was imported with");
}
Status KeyFile::check_own(const VersionRecord& version) const {
  return member && member->check_own ? member->check_own(version) : check_signer(version);
}
crypto::HeldKey KeyFile::local_key() const {
  if (member) return member->local;
  return crypto::prf(image_secret, "local-user", {org.view()});
}
Digest KeyFile::key_check(const ImageId& image) const {
  // The organisation's log says which secrets are right; this only says which organisation.
  if (member) return crypto::sha256({as_bytes("dims/member-image/1"), org.view(), image.view()});
  const Secret32 check = crypto::prf(image_key(image), "key-check",
                                     {domain.view(), crypto::kdf(domain_secret, 3).view()});
  Digest out;
  out.bytes = check.bytes;
  return out;
}

KeyFile generate_key_file(Random& random) {
  KeyFile key;
  key.domain = random.id<DomainId>();
  key.domain_secret = random.id<Secret32>();
  key.image_secret = random.id<Secret32>();
  key.signing = crypto::signing_key_from_seed(random.id<Secret32>());
  key.org.bytes = crypto::sha256(key.signing.public_key.view()).bytes;
  return key;
}

std::string encode_key_file(const KeyFile& key) {
  std::string text(kFirstLine);
  text +=
      "\n# Whoever has this file can read and write your images; without it they are lost. Keep a "
      "copy.\n";
  text += "org = " + key.org.hex() + "\n";
  text += "domain = " + key.domain.hex() + "\n";
  text += "domain-secret = " + key.domain_secret.hex() + "\n";
  text += "image-secret = " + key.image_secret.hex() + "\n";
  text += "signing-seed = " + key.signing.seed.hex() + "\n";
  text += "check = " + check_of(text) + "\n";
  return text;
}

Result<KeyFile> parse_key_file(std::string_view text) {
  if (text.size() > kMaxBytes) return bad_key_file("too long");
  if (text.substr(0, text.find('\n')) != kFirstLine) {
    if (text.substr(0, 9) == "dims-key ") {
      return make_error(ErrorCode::kUnsupported, "key file of an unknown format",
                        "update this program");
    }
    return bad_key_file("this is not a key file (its first line is not '" +
                        std::string(kFirstLine) + "')");
  }
  std::map<std::string_view, std::string_view> fields;
  std::size_t at = 0;
  std::size_t check_at = std::string_view::npos;
  for (int line_number = 1; at < text.size(); ++line_number) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = trim(text.substr(at, end - at));
    if (check_at != std::string_view::npos && !line.empty()) {
      return bad_key_file("line " + std::to_string(line_number) +
                          " follows the check sum, which does not cover it");
    }
    if (line_number > 1 && !line.empty() && line[0] != '#') {
      const auto equals = line.find('=');
      if (equals == std::string_view::npos)
        return bad_key_file("line " + std::to_string(line_number) + " has no '='");
      const std::string_view name = trim(line.substr(0, equals));
      if (!fields.emplace(name, trim(line.substr(equals + 1))).second) {
        return bad_key_file("line " + std::to_string(line_number) + " repeats '" +
                            std::string(name) + "'");
      }
      if (name == "check") check_at = at;
    }
    at = end + 1;
  }
  Error problem;
  bool bad = false;
  const auto field = [&]<typename IdType>(std::string_view name, IdType& out) {
    const auto found = fields.find(name);
    if (found == fields.end() || !read_hex(found->second, out.mut())) {
      problem = bad_key_file("'" + std::string(name) + "' is missing or not " +
                             std::to_string(IdType::kBytes) + " bytes of hex");
      bad = true;
    }
  };
  KeyFile key;
  Secret32 domain_secret, image_secret, seed;
  field("org", key.org);
  field("domain", key.domain);
  field("domain-secret", domain_secret);
  field("image-secret", image_secret);
  field("signing-seed", seed);
  key.domain_secret = std::move(domain_secret);
  key.image_secret = std::move(image_secret);
  key.signing = crypto::signing_key_from_seed(seed);
  crypto::wipe(seed.mut());
  if (bad) return problem;
  if (check_at == std::string_view::npos || fields["check"] != check_of(text.substr(0, check_at))) {
    return bad_key_file("its check sum is wrong");
  }
  return key;
}

Status create_key_file(const std::string& path, const KeyFile& key) {
  auto& fs = io::posix_file_system();
  auto file = fs.open(path, io::OpenMode::kCreateExclusive);
  if (!file.ok()) {
    if (file.error().code == ErrorCode::kAlreadyExists) {
      return make_error(ErrorCode::kAlreadyExists, "key file " + path + " exists already",
                        "a key file is never overwritten: choose another path");
    }
    return file.error();
  }
  DIMS_TRY((*file)->write_at(0, as_bytes(encode_key_file(key))));
  DIMS_TRY((*file)->sync_data());
  return fs.sync_folder(io::parent_folder(path));
}

Result<KeyFile> load_key_file(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) {
    Error error = io::errno_error(errno, "cannot read key file", path);
    if (error.code == ErrorCode::kNotFound)
      error.hint = "make one with 'rdim key new " + path + "'";
    return error;
  }
  DIMS_TRY(io::check_private(path, "key file"));
  auto bytes = io::read_file(io::posix_file_system(), path, kMaxBytes);
  if (!bytes.ok()) return bytes.error().with_context("key file");
  const auto text = crypto::SecretBytes::take(*bytes);
  auto key = parse_key_file(text.text());
  if (!key.ok()) return key.error().with_context(path);
  return key;
}

}  // namespace dims::format
