// The calls about images and versions.
#include <algorithm>

#include "rdim-server/services/branches.h"
#include "rdim-server/services/dims_service.h"
#include "rdim-server/services/gated_call.h"
#include "rdim-server/services/new_image.h"
#include "rdim-server/services/pull_stream.h"

namespace dims::services {
namespace {

constexpr std::size_t kImagesPerReply = 256;
constexpr std::size_t kImageBytesPerReply = kMiB;  // well below a message's limit

}  // namespace

DimsService::Unary* DimsService::CreateImage(Context* context,
                                             const v1::CreateImageRequest* request,
                                             v1::Image* reply) {
  return run(Rpc::kCreateImage, context, {},
             [this, request, reply](const access::Caller& caller) -> Status {
               DIMS_ASSIGN(const contract::ImageInfo asked, from_proto(*request));
               DIMS_TRY(claim_new_image(context_, caller, asked));
               DIMS_ASSIGN(const contract::ImageInfo image, context_.catalog.create_image(asked));
               context_.gate.control().audit().add(caller, "create", image.id, image.name);
               to_proto(image, reply);
               return ok_status();
             });
}

DimsService::Unary* DimsService::GetImage(Context* context, const v1::GetImageRequest* request,
                                          v1::Image* reply) {
  const auto named = [this, request]() -> Result<ImageId> {
    ImageId id;
    DIMS_TRY(take_id(request->id(), "image id", id));
    if (!id.is_zero()) return id;
    auto image = context_.catalog.find_image(request->name());
    if (image.ok()) return image->id;
    // Where rights are asked for, an image that is not there is one that he may not see.
    return context_.gate.open_to_all() ? image.error() : access::denied();
  };
  return run(Rpc::kGetImage, context, named,
             [this, reply, named](const access::Caller& caller) -> Status {
               DIMS_ASSIGN(const ImageId id, named());
               DIMS_ASSIGN(contract::ImageInfo image, context_.catalog.get_image(id));
               image.branches = branches_for(context_, caller, image.name);
               to_proto(image, reply);
               return ok_status();
             });
}

DimsService::Unary* DimsService::ListImages(Context* context, const v1::ListImagesRequest* request,
                                            v1::ListImagesReply* reply) {
  return run(Rpc::kListImages, context, {},
             [this, request, reply](const access::Caller& caller) -> Status {
               const std::size_t limit =
                   request->limit() == 0 ? kImagesPerReply
                                         : std::min<std::size_t>(request->limit(), kImagesPerReply);
               const access::AccessControl& control = context_.gate.control();
               std::string after = request->after_name();
               std::size_t bytes = 0;
               for (;;) {
                 auto images = context_.catalog.list_images(after, kImagesPerReply);
                 for (contract::ImageInfo& image : images) {
                   after = image.name;
                   if (control.access(caller, image.id) < trust::Access::kRead &&
                       !control.may_administer(caller, image.id)) {
                     continue;
                   }
                   if (static_cast<std::size_t>(reply->images_size()) == limit ||
                       bytes >= kImageBytesPerReply) {
                     reply->set_more(true);
                     return ok_status();
                   }
                   image.branches = branches_for(context_, caller, image.name);
                   v1::Image* const out = reply->add_images();
                   to_proto(image, out);
                   bytes += out->ByteSizeLong();
                 }
                 if (images.size() < kImagesPerReply) return ok_status();
               }
             });
}

DimsService::Unary* DimsService::RemoveImage(Context* context,
                                             const v1::RemoveImageRequest* request,
                                             v1::RemoveImageReply* /*reply*/) {
  return run(Rpc::kRemoveImage, context, image_in(request->id()),
             [this, request](const access::Caller& caller) -> Status {
               ImageId id;
               DIMS_TRY(take_id(request->id(), "image id", id));
               contract::ImageRemoval removal(id);
               DIMS_TRY(take_id(request->head(), "head", removal.head));
               DIMS_TRY(take_id(request->lease(), "lease id", removal.lease));
               removal.token = request->token();
               DIMS_TRY(context_.catalog.remove_image(removal));
               access::AccessControl& control = context_.gate.control();
               control.audit().add(caller, "remove", id);
               return control.people().forget_image(id);
             });
}

DimsService::Unary* DimsService::GetVersion(Context* context, const v1::GetVersionRequest* request,
                                            v1::Version* reply) {
  return run(Rpc::kGetVersion, context, image_in(request->image()),
             [this, request, reply](const access::Caller&) -> Status {
               ImageId image;
               VersionId id;
               DIMS_TRY(take_id(request->image(), "image id", image));
               DIMS_TRY(take_id(request->version(), "version id", id));
               DIMS_ASSIGN(const bool part, may_name_version(context_, image, id));
               if (!part) return unknown_version(ErrorCode::kNotFound, id);
               DIMS_ASSIGN(const contract::VersionInfo version,
                           context_.catalog.get_version(image, id, request->sequence()));
               to_proto(version, reply);
               DIMS_ASSIGN(const bool gone, context_.catalog.is_gone(version.id));
               reply->set_gone(gone);
               return ok_status();
             });
}

grpc::ServerWriteReactor<v1::Version>* DimsService::ListVersions(
    Context* context, const v1::ListVersionsRequest* request) {
  struct State {
    Ticket ticket;
    std::string image_field;
    std::uint64_t left = 0;
    bool started = false;
    ImageId image;
    VersionId next;
  };
  auto state = std::make_shared<State>();
  state->ticket = context_.gate.ticket(*context);
  state->image_field = request->image();
  state->left = request->limit() == 0 ? ~std::uint64_t{0} : request->limit();
  const auto source = [this, state]() -> Result<std::optional<v1::Version>> {
    if (!state->started) DIMS_TRY(take_id(state->image_field, "image id", state->image));
    if (state->started) {
      DIMS_TRY(context_.gate.admit_again(Rpc::kListVersions, state->ticket, state->image));
    } else {
      DIMS_TRY(context_.gate.admit(Rpc::kListVersions, state->ticket, state->image));
      state->started = true;
      DIMS_ASSIGN(const auto image, context_.catalog.get_image(state->image));
      state->next = image.head;
    }
    if (state->next.is_zero() || state->left == 0) return std::optional<v1::Version>{};
    DIMS_ASSIGN(const contract::VersionInfo version,
                context_.catalog.get_version(state->image, state->next, 0));
    state->next = version.record.parent;
    --state->left;
    v1::Version message;
    to_proto(version, &message);
    DIMS_ASSIGN(const bool gone, context_.catalog.is_gone(version.id));
    message.set_gone(gone);
    return std::optional<v1::Version>(std::move(message));
  };
  return PullStream<v1::Version>::begin(
      std::make_shared<PullStream<v1::Version>>(context_, source));
}

}  // namespace dims::services
