// People: who runs this command, as a member of an organisation, and the keys that follow from it.
//
// Threads: the main thread. Ownership: one a Session; the connections of the Session carry its
// token. Errors: kNotFound: nobody is logged in; kPermissionDenied; those of client::login_user().
#pragma once

#include "common/client/member_keys.h"
#include "common/contract/remote.h"
#include "image-tools/rdim/login_file.h"

namespace dims::rdim {

struct PeopleOptions {
  std::string user;        // log in for this command only; empty: who is logged in
  std::string passphrase;  // where it comes from (passphrase.h)
};

class People {
 public:
  // `server`: as given; empty: the one that is remembered.
  static Result<std::unique_ptr<People>> open(const std::string& server,
                                              const PeopleOptions& options);

  client::Member& member() { return member_; }
  const std::string& server() const { return server_; }
  ~People();  // leaves a new token for the next command
  // Leaves the login for the commands that follow.
  Status keep_login(std::uint64_t ends_unix_s);
  // Remembers the log as it is known now.
  Status remember();

  // Keys of an image that is there; `home`: what it is a branch of, else the image. A session for
  // it is certified, and told to the server, if it is to be written.
  Result<format::KeyFile> keys(const contract::ImageInfo& image, const ImageId& home,
                               trust::Access access);
  struct NewImage {
    ImageId id;
    format::KeyFile keys;
  };
  // A new image of this user: announced in the log, its keys granted to himself. The server makes
  // it afterwards, under this id.
  Result<NewImage> new_image(bool private_domain);
  DomainId default_domain(bool private_domain) const;

 private:
  People(std::string server, client::OrgFolder folder, client::Member member)
      : server_(std::move(server)), folder_(std::move(folder)), member_(std::move(member)) {}
  Result<format::KeyFile> keys(const ImageId& image, const DomainId& domain, trust::Access access);

  std::string server_;
  client::OrgFolder folder_;
  client::Member member_;
  std::uint64_t login_ends_unix_s_ = 0;  // of the login file that is kept; 0: none
  trust::SessionToken kept_token_;
};

// Whether keys of all images are granted to that user, whatever their lists say: the policy.
bool is_escrow(const trust::OrgState& org, const trust::User& user);

// Where to log in: what is remembered, and what was given.
struct RememberedPlace {
  client::OrgFolder folder;
  client::LoginPlace place;
};
Result<RememberedPlace> remembered_place(const std::string& server);

}  // namespace dims::rdim
