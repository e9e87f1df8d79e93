#include "rdim-server/services/object_streams.h"

#include "rdim-server/services/convert.h"
#include "rdim-server/services/new_image.h"

namespace dims::services {
namespace {

Result<std::vector<bool>> has(ServiceContext& context, const Ticket& ticket,
                              const v1::HasRequest& request) {
  ImageId image;
  DIMS_TRY(take_id(request.image(), "image id", image));
  DIMS_TRY(context.gate.admit(Rpc::kHas, ticket, image));
  DIMS_ASSIGN(const auto keys, keys_of(request.keys(), context.limits.objects_per_request_max));
  DIMS_TRY(context.catalog.check_access(image, keys, catalog::Access::kWrite));
  // Whoever is told "present" does not send it: no sweep may take it before his commit.
  return context.objects.touch_present(keys);
}

// Against the quota counts what the store did not have.
void count_stored(ServiceContext& context, const v1::PutRequest& request,
                  const std::vector<format::ObjectKey>& keys,
                  const std::vector<contract::PutOutcome>& outcomes) {
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    if (outcomes[i] == contract::PutOutcome::kStored)
      context.stored.added(keys[i].domain, request.objects(static_cast<int>(i)).size());
  }
}

Result<std::vector<contract::PutOutcome>> put(ServiceContext& context, const Ticket& ticket,
                                              const v1::PutRequest& request) {
  ImageId image;
  DIMS_TRY(take_id(request.image(), "image id", image));
  DIMS_ASSIGN(const access::Caller caller, context.gate.admit(Rpc::kPut, ticket, image));
  DIMS_ASSIGN(const auto keys, keys_of(request.keys(), context.limits.objects_per_request_max));
  if (request.objects_size() != request.keys_size()) {
    return make_error(ErrorCode::kInvalidArgument, "a put has as many objects as keys");
  }
  DIMS_TRY(context.catalog.check_access(image, keys, catalog::Access::kWrite));
  if (caller.acts_for_user()) {
    DIMS_ASSIGN(const contract::ImageInfo info, context.catalog.get_image(image));
    DIMS_TRY(check_room(context, info.domain));
  }
  std::vector<contract::ObjectStore::PutItem> items;
  items.reserve(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const ByteView object = as_bytes(request.objects(static_cast<int>(i)));
    context.counters.bytes_received += object.size();
    items.push_back({keys[i], object});
  }
  auto outcomes = context.objects.put(items);
  if (outcomes.ok()) count_stored(context, request, keys, *outcomes);
  return outcomes;
}

}  // namespace

contract::Priority priority_of(v1::Priority priority) {
  switch (priority) {
    case v1::PRIORITY_DEMAND:
      return contract::Priority::kDemand;
    case v1::PRIORITY_BOOT:
      return contract::Priority::kBoot;
    case v1::PRIORITY_WRITE_BACK:
      return contract::Priority::kWriteBack;
    default:
      return contract::Priority::kPrefetch;  // what a newer client may know goes last
  }
}

void HasStream::accept(v1::HasRequest request, std::uint64_t bytes) {
  begin_request(bytes);
  run_task(contract::Priority::kWriteBack, [this, bytes, request = std::move(request)] {
    v1::HasReply reply = answer(request);
    {
      std::lock_guard lock(mutex_);
      push_reply(std::move(reply), contract::Priority::kWriteBack);
      end_request(bytes);
      uncharge(bytes);
    }
    context_.budget.give_back(bytes);
  });
}

v1::HasReply HasStream::answer(const v1::HasRequest& request) {
  v1::HasReply reply;
  reply.set_request(request.request());
  const auto present = has(context_, ticket_, request);
  if (!present.ok()) {
    *reply.mutable_error() = to_detail(present.error());
    return reply;
  }
  std::string flags;
  for (const bool there : *present) flags.push_back(there ? '\1' : '\0');
  reply.set_present(std::move(flags));
  return reply;
}

void PutStream::accept(v1::PutRequest request, std::uint64_t bytes) {
  begin_request(bytes);
  const auto priority = priority_of(request.priority());
  // Shared, for a task must be copyable and megabytes are not to be copied.
  auto shared = std::make_shared<v1::PutRequest>(std::move(request));
  run_task(priority, [this, bytes, shared] {
    v1::PutReply reply = answer(*shared);
    shared->Clear();
    {
      std::lock_guard lock(mutex_);
      push_reply(std::move(reply), contract::Priority::kWriteBack);
      end_request(bytes);
      uncharge(bytes);
    }
    context_.budget.give_back(bytes);
  });
}

v1::PutReply PutStream::answer(const v1::PutRequest& request) {
  v1::PutReply reply;
  reply.set_request(request.request());
  const auto outcomes = put(context_, ticket_, request);
  if (!outcomes.ok()) {
    *reply.mutable_error() = to_detail(outcomes.error());
    return reply;
  }
  std::uint32_t stored = 0;
  for (const contract::PutOutcome outcome : *outcomes) {
    if (outcome == contract::PutOutcome::kStored) ++stored;
  }
  const auto present = static_cast<std::uint32_t>(outcomes->size()) - stored;
  reply.set_stored(stored);
  reply.set_present(present);
  context_.counters.puts_stored += stored;
  context_.counters.puts_present += present;
  return reply;
}

}  // namespace dims::services
