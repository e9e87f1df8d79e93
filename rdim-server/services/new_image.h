// Who may make which image. Threads: free functions. Errors: kPermissionDenied,
// kResourceExhausted (quota), kAlreadyExists.
#pragma once

#include "rdim-server/services/context.h"

namespace dims::services {

// An image of his own: the organisation's log names him as its administrator. A branch of one that
// he may write: it has that one's access list, and a machine can make it when its user is away.
// On success the image's row is durable (access/people.h).
Status claim_new_image(ServiceContext& context, const access::Caller& caller,
                       const contract::ImageInfo& asked);

// Of the images that he made and that are there.
struct ImageUse {
  std::uint32_t images = 0;
  std::uint64_t bytes = 0;  // of their disks
};
ImageUse image_use(ServiceContext& context, const trust::UserId& user);
// Whether more may be stored in a domain: its owner's quota (the organisation's has none).
// kResourceExhausted when what is stored has reached it; so it may be exceeded by what is on its
// way.
Status check_room(ServiceContext& context, const DomainId& domain);

// The image, the one whose access list it has, and the one that its origin was committed to.
std::vector<ImageId> line_of(ServiceContext& context, const ImageId& image);

// In the words for a version that nobody knows: one of another image is the same.
Error unknown_version(ErrorCode code, const VersionId& version);
// True where nobody is asked, and for versions that are not known at all.
Result<bool> may_name_version(ServiceContext& context, const ImageId& image,
                              const VersionId& version);
// That the version's signer holds a session of the caller's.
Status check_signer(ServiceContext& context, const access::Caller& caller,
                    const contract::CommitOrder& order);

}  // namespace dims::services
