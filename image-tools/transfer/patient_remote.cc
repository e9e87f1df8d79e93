#include "image-tools/transfer/patient_remote.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <numeric>
#include <thread>

namespace dims::transfer {

using contract::CommitAnswer;
using contract::ImageInfo;
using contract::LeaseGrant;
using contract::VersionInfo;

bool PatientRemote::again(const Error& error, int attempt, std::chrono::nanoseconds began) {
  if (error.code != ErrorCode::kUnavailable || patience_.count() == 0) return false;
  // A call after a long time without any (a stretch of zeros) has its own patience.
  const auto give_up = std::max(answered_.load(), began) + patience_;
  if (clock_.boottime() >= give_up || progress_.cancel) return false;
  if (!told_.exchange(true)) {
    spdlog::warn("waiting up to {} s for the server: {}", patience_.count() / 1000,
                 error.to_string());
  }
  constexpr std::chrono::milliseconds kStep{50};
  const auto pause = std::min<std::chrono::milliseconds>(kStep * (2 << std::min(attempt, 6)),
                                                         std::chrono::seconds(5));
  for (auto waited = kStep * 0; waited < pause && !progress_.cancel; waited += kStep)
    std::this_thread::sleep_for(kStep);
  return !progress_.cancel;
}

template <typename Call>
auto PatientRemote::patiently(const Call& call) -> decltype(call()) {
  const auto began = clock_.boottime();
  for (int attempt = 0;; ++attempt) {
    auto answer = call();
    if (answer.ok() || !again(answer.error(), attempt, began)) {
      if (answer.ok()) answered_ = clock_.boottime();
      if (answer.ok() && told_.exchange(false)) spdlog::warn("the server answers again");
      return answer;
    }
  }
}

Result<contract::ServerInfo> PatientRemote::hello() {
  return patiently([&] { return remote_.hello(); });
}

Result<ImageInfo> PatientRemote::create_image(const ImageInfo& image) {
  return patiently([&] { return remote_.create_image(image); });
}

Result<ImageInfo> PatientRemote::find_image(const std::string& name) {
  return patiently([&] { return remote_.find_image(name); });
}

Result<ImageInfo> PatientRemote::get_image(const ImageId& id) {
  return patiently([&] { return remote_.get_image(id); });
}

Result<std::vector<ImageInfo>> PatientRemote::list_images() {
  return patiently([&] { return remote_.list_images(); });
}

Result<VersionInfo> PatientRemote::get_version(const ImageId& image, const VersionId& version,
                                               std::uint64_t sequence) {
  return patiently([&] { return remote_.get_version(image, version, sequence); });
}

Result<std::vector<VersionInfo>> PatientRemote::list_versions(const ImageId& image,
                                                              std::uint32_t limit) {
  return patiently([&] { return remote_.list_versions(image, limit); });
}

Result<LeaseGrant> PatientRemote::acquire_lease(const contract::LeaseRequest& request) {
  return patiently([&] { return remote_.acquire_lease(request); });
}

Result<CommitAnswer> PatientRemote::commit(const contract::CommitOrder& order) {
  return patiently([&] { return remote_.commit(order); });
}

Status PatientRemote::get(const ImageId& image, std::span<const format::ObjectKey> keys,
                          contract::Priority priority, const GetSink& sink) {
  std::vector<std::size_t> left(keys.size());  // not delivered yet
  std::iota(left.begin(), left.end(), std::size_t{0});
  return patiently([&]() -> Status {
    std::vector<format::ObjectKey> wanted;
    wanted.reserve(left.size());
    for (const std::size_t at : left) wanted.push_back(keys[at]);
    std::vector<bool> delivered(left.size());
    const Status status =
        remote_.get(image, wanted, priority, [&](std::size_t index, Result<Bytes> object) {
          // What the connection did not bring is no answer for this object.
          if (!object.ok() && object.error().code == ErrorCode::kUnavailable) return;
          delivered[index] = true;
          sink(left[index], std::move(object));
        });
    std::vector<std::size_t> rest;
    for (std::size_t i = 0; i < left.size(); ++i)
      if (!delivered[i]) rest.push_back(left[i]);
    // A part of the answer is a sign of life.
    if (rest.size() < left.size()) answered_ = clock_.boottime();
    left = std::move(rest);
    if (!status.ok() || left.empty()) return status;
    return make_error(ErrorCode::kUnavailable, "the server did not answer for every object");
  });
}

Result<std::vector<bool>> PatientRemote::has(const ImageId& image,
                                             std::span<const format::ObjectKey> keys) {
  return patiently([&] { return remote_.has(image, keys); });
}

Result<std::uint64_t> PatientRemote::put(const ImageId& image, std::span<const PutItem> items,
                                         contract::Priority priority) {
  return patiently([&] { return remote_.put(image, items, priority); });
}

}  // namespace dims::transfer
