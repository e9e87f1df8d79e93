// Every message of the wire, from a hostile client or server: parsed and turned into our own types.
// The first byte says which message.
#include <cstdlib>

#include "common/client/convert.h"
#include "rdim-server/services/convert.h"
#include "tests/fuzz/fuzz_input.h"

using namespace dims;

namespace {

constexpr std::size_t kKeysMax = 1024;

template <typename Message>
bool parse(ByteView bytes, Message& message) {
  return message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

template <typename Message, typename Convert>
void take(ByteView bytes, const Convert& convert) {
  Message message;
  if (parse(bytes, message)) convert(message);
}

void at_server(std::uint8_t which, ByteView bytes) {
  const auto convert = [](const auto& message) { (void)services::from_proto(message).ok(); };
  const auto keys = [](const auto& message) {
    const auto got = services::keys_of(message.keys(), kKeysMax);
    if (got.ok() && got->size() > kKeysMax) std::abort();
  };
  const auto lease = [](const auto& message) {
    (void)services::lease_of(message.lease(), message.token()).ok();
  };
  const auto parsed = [](const auto&) {};
  switch (which % 12) {
    case 0:
      return take<v1::CreateImageRequest>(bytes, convert);
    case 1:
      return take<v1::OpenSessionRequest>(bytes, convert);
    case 2:
      return take<v1::AcquireLeaseRequest>(bytes, convert);
    case 3:
      return take<v1::CommitRequest>(bytes, convert);
    case 4:
      return take<v1::HasRequest>(bytes, keys);
    case 5:
      return take<v1::GetRequest>(bytes, keys);
    case 6:
      return take<v1::PutRequest>(bytes, keys);
    case 7:
      return take<v1::RenewLeaseRequest>(bytes, lease);
    case 8:
      return take<v1::ReleaseLeaseRequest>(bytes, lease);
    case 9:
      return take<v1::HelloRequest>(bytes, parsed);
    case 10:
      return take<v1::DiffRequest>(bytes, parsed);
    default:
      return take<v1::WatchRequest>(bytes, parsed);
  }
}

void at_client(std::uint8_t which, ByteView bytes) {
  const auto convert = [](const auto& message) { (void)client::from_proto(message).ok(); };
  const auto list = [](const v1::ListImagesReply& message) {
    for (const v1::Image& image : message.images()) (void)client::from_proto(image).ok();
  };
  const auto diff = [](const v1::DiffReply& message) {
    const auto part = client::from_proto(message);
    if (part.ok() && part->keys.size() != part->nodes.size()) std::abort();
  };
  switch (which % 11) {
    case 0:
      return take<v1::ObjectKey>(bytes, convert);
    case 1:
      return take<v1::LeaseHolder>(bytes, convert);
    case 2:
      return take<v1::Image>(bytes, convert);
    case 3:
      return take<v1::Version>(bytes, convert);
    case 4:
      return take<v1::Lease>(bytes, convert);
    case 5:
      return take<v1::OpenSessionReply>(bytes, convert);
    case 6:
      return take<v1::CommitReply>(bytes, convert);
    case 7:
      return take<v1::DiffReply>(bytes, diff);
    case 8:
      return take<v1::Event>(bytes, convert);
    case 9:
      return take<v1::StoreInfoReply>(bytes, convert);
    default:
      return take<v1::ListImagesReply>(bytes, list);
  }
}

Bytes seed_of(std::uint8_t which, const google::protobuf::Message& message) {
  const std::string text = message.SerializeAsString();
  Bytes out(text.size() + 1, which);
  std::copy(text.begin(), text.end(), out.begin() + 1);
  return out;
}

}  // namespace

std::vector<Bytes> fuzz_seeds() {
  contract::ImageInfo image;
  image.id.bytes.fill(1);
  image.name = "disk";
  image.image_bytes = kGiB;
  image.domain.bytes.fill(2);
  image.holder = contract::HolderInfo{};
  v1::Image image_message;
  services::to_proto(image, &image_message);
  contract::SessionAnswer session;
  session.image = image;
  session.newest_of_journal = format::CommitPoint{};
  v1::OpenSessionReply session_message;
  services::to_proto(session, &session_message);
  contract::CommitAnswer commit;
  commit.missing.resize(2);
  v1::CommitReply commit_message;
  services::to_proto(commit, &commit_message);
  contract::ServerEvent event;
  event.kind = contract::ServerEvent::Kind::kLeaseRequested;
  event.who = contract::HolderInfo{};
  v1::Event event_message;
  services::to_proto(event, &event_message);
  v1::HasRequest keys;
  *keys.add_keys() = client::to_proto(format::ObjectKey{});
  v1::DiffReply diff;
  *diff.add_keys() = client::to_proto(format::ObjectKey{});
  diff.add_nodes("node");
  v1::CommitRequest order;
  order.set_image(std::string(16, 'i'));
  order.set_record(std::string(300, 'r'));
  return {seed_of(0, client::to_proto(image)),
          seed_of(3, order),
          seed_of(4, keys),
          seed_of(128 + 2, image_message),
          seed_of(128 + 5, session_message),
          seed_of(128 + 6, commit_message),
          seed_of(128 + 7, diff),
          seed_of(128 + 8, event_message)};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0 || size > 1024 * 1024) return 0;
  const ByteView bytes(data + 1, size - 1);
  const auto which = static_cast<std::uint8_t>(data[0] % 128);
  if (data[0] < 128)
    at_server(which, bytes);
  else
    at_client(which, bytes);
  return 0;
}
