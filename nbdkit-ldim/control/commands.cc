#include "nbdkit-ldim/control/commands.h"

#include <nlohmann/json.hpp>

namespace dims::ldim {

using nlohmann::json;

namespace {

constexpr std::uint64_t kLongestHoldMs = 10 * 60 * 1000;
constexpr std::size_t kMaxRanges = 1 << 16;

json error_json(const Error& error) {
  return {{"done", true},
          {"error",
           {{"code", error_code_name(error.code)},
            {"message", error.message},
            {"hint", error.hint},
            {"holder", error.holder}}}};
}

json done_json(json result) { return {{"done", true}, {"result", std::move(result)}}; }

// A non-negative integer field, or its default; anything else is the caller's error.
Result<std::uint64_t> number(const json& request, const char* name, std::uint64_t fallback) {
  const auto at = request.find(name);
  if (at == request.end()) return fallback;
  if (!at->is_number_unsigned()) {
    return make_error(ErrorCode::kInvalidArgument,
                      std::string("'") + name + "' must be a non-negative integer");
  }
  return at->get<std::uint64_t>();
}

Result<std::vector<ByteRange>> ranges_of(const json& request) {
  std::vector<ByteRange> ranges;
  const auto at = request.find("ranges");
  if (at == request.end()) return ranges;
  const auto bad = [] {
    return make_error(ErrorCode::kInvalidArgument,
                      "'ranges' must be a list of [offset, count] pairs, at most 65536");
  };
  if (!at->is_array() || at->size() > kMaxRanges) return bad();
  for (const json& pair : *at) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number_unsigned() ||
        !pair[1].is_number_unsigned())
      return bad();
    ranges.push_back({pair[0].get<std::uint64_t>(), pair[1].get<std::uint64_t>()});
  }
  return ranges;
}

using Say = std::function<bool(const json&)>;

Result<json> run_sync(Disk& disk, const json& request, const Say& say) {
  const bool wait = request.value("wait", false);
  DIMS_ASSIGN(const std::uint64_t longest_ms,
              number(request, "longest_ms", std::uint64_t{24} * 3600 * 1000));
  DIMS_ASSIGN(const SyncReport asked, disk.sync(false, {}));
  if (!wait) return json{{"epoch", asked.epoch}, {"committed", asked.committed}};
  std::uint64_t waited = 0;
  for (;;) {
    constexpr std::uint64_t kStepMs = 500;
    const Status there = disk.wait_committed(
        asked.epoch, std::chrono::milliseconds(std::min(kStepMs, longest_ms - waited)));
    if (there.ok()) return json{{"epoch", asked.epoch}, {"committed", true}};
    if (there.error().code != ErrorCode::kDeadlineExceeded) return there.error();
    waited += kStepMs;
    if (waited >= longest_ms) return there.error();
    if (!say({{"waiting", there.error().message}}))
      return make_error(ErrorCode::kCancelled, "the client is gone");
  }
}

Result<json> run_prefetch(Disk& disk, const json& request, const Say& say) {
  DIMS_ASSIGN(const auto ranges, ranges_of(request));
  Disk::PrefetchProgress last;
  DIMS_TRY(disk.prefetch(ranges, [&](Disk::PrefetchProgress progress) {
    last = progress;
    return say({{"pages_done", progress.pages_done}, {"pages_total", progress.pages_total}});
  }));
  return json{{"pages_done", last.pages_done}, {"pages_total", last.pages_total}};
}

Result<json> run_renewal(const std::string& command, const json& request, Renewal* renewal) {
  if (renewal == nullptr) {
    return make_error(ErrorCode::kInvalidArgument, "this disk has no login: its keys are in a file",
                      "nothing needs to be renewed");
  }
  if (command == "renew-begin") return renewal->begin();
  DIMS_TRY(renewal->finish(request));
  return json{{"renewed", true}};
}

Result<json> run(Disk& disk, const json& request, const Say& say, Renewal* renewal) {
  const std::string command = request.value("command", "");
  if (command == "status") return disk.status(request.value("verify", false));
  if (command == "sync") return run_sync(disk, request, say);
  if (command == "quiesce") {
    DIMS_ASSIGN(const std::uint64_t hold_ms, number(request, "hold_ms", 60000));
    if (hold_ms > kLongestHoldMs) {
      return make_error(ErrorCode::kInvalidArgument, "requests are held for ten minutes at most",
                        "ask again before they are over to hold on");
    }
    DIMS_TRY(disk.quiesce(std::chrono::milliseconds(hold_ms)));
    return json{{"quiesced", true}, {"hold_ms", hold_ms}};
  }
  if (command == "resume") {
    DIMS_TRY(disk.resume());
    return json{{"quiesced", false}};
  }
  if (command == "session-end") {
    DIMS_TRY(disk.end_session());
    return json{{"ended", true}, {"all_sent", disk.all_sent()}};
  }
  if (command == "prefetch") return run_prefetch(disk, request, say);
  if (command == "check") return disk.check();
  if (command == "renew-begin" || command == "renew") return run_renewal(command, request, renewal);
  return make_error(ErrorCode::kInvalidArgument, "unknown command '" + command + "'",
                    "known: status, sync, quiesce, resume, session-end, prefetch, check, renew");
}

}  // namespace

void run_command(Disk& disk, std::string_view line, const Say& say, Renewal* renewal) {
  const json request = json::parse(line, nullptr, false);
  if (request.is_discarded() || !request.is_object()) {
    say(error_json(make_error(ErrorCode::kInvalidArgument, "the request is not a JSON object")));
    return;
  }
  try {
    auto result = run(disk, request, say, renewal);
    say(result.ok() ? done_json(std::move(result).value()) : error_json(result.error()));
  } catch (const json::exception& e) {  // a field of an unexpected type
    say(error_json(make_error(ErrorCode::kInvalidArgument,
                              std::string("the request cannot be read: ") + e.what())));
  }
}

}  // namespace dims::ldim
