#include "nbdkit-ldim/login/log_watch.h"

#include <spdlog/spdlog.h>

#include <array>

namespace dims::ldim {
namespace {

constexpr std::chrono::milliseconds kFirstPause{1000};
constexpr std::chrono::milliseconds kEndWait{3000};
constexpr std::chrono::milliseconds kLongestPause{30000};

// Machines of a server that was away must not come back in step.
std::chrono::milliseconds spread(std::chrono::milliseconds pause) {
  std::array<std::uint8_t, 1> one{};
  system_random().fill(one);
  return pause * 3 / 4 + pause * one[0] / 512;
}

}  // namespace

LogWatch::LogWatch(MachineFolder folder, trust::OrgLog log, std::string cache_folder,
                   Callbacks callbacks)
    : folder_(std::move(folder)),
      log_(std::move(log)),
      cache_folder_(std::move(cache_folder)),
      callbacks_(std::move(callbacks)),
      obeyed_at_start_(folder_.machine().obeyed_wipe_seq) {}

Result<std::unique_ptr<LogWatch>> LogWatch::start(const std::string& machine_folder,
                                                  const std::string& cache_folder,
                                                  Callbacks callbacks) {
  DIMS_ASSIGN(MachineFolder folder, MachineFolder::open(machine_folder));
  DIMS_ASSIGN(trust::OrgLog log, folder.log());
  std::unique_ptr<LogWatch> watch(
      new LogWatch(std::move(folder), std::move(log), cache_folder, std::move(callbacks)));
  watch->thread_ = std::thread([raw = watch.get()] { raw->run(); });
  return watch;
}

LogWatch::~LogWatch() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    if (server_) server_->shutdown();
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

bool LogWatch::pause(std::chrono::milliseconds length) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, length, [&] { return stop_; });
}

bool LogWatch::look(client::AccessClient* server) {
  if (callbacks_.on_log) callbacks_.on_log(log_.state());
  const Orders orders = orders_of(log_.state(), folder_.machine().machine, obeyed_at_start_);
  if (!orders.any()) return false;
  const Error why = explain(orders, folder_.machine().name);
  spdlog::warn("{}", why.to_string());
  callbacks_.halt(why);
  const Status done = carry_out(orders, folder_.path(), cache_folder_);
  if (!done.ok()) {
    spdlog::error("the wipe is not complete, the next login goes on with it: {}",
                  done.error().to_string());
  } else if (orders.wipe && server != nullptr) {
    const Status told = server->report_wipe(orders.wipe->seq);
    if (!told.ok()) spdlog::warn("the server was not told: {}", told.error().to_string());
  }
  callbacks_.end();
  if (pause(kEndWait)) callbacks_.leave();
  return true;
}

Result<bool> LogWatch::take(const std::vector<Bytes>& records, client::AccessClient& server) {
  std::vector<Bytes> fresh;
  for (const Bytes& record : records) {
    const std::uint64_t seq = next_seq_++;
    if (seq >= log_.size()) {
      fresh.push_back(record);
    } else if (record != log_.record(seq)) {
      return make_error(ErrorCode::kOtherHistory,
                        "the server's log of the organisation is not the one that is known here",
                        "the server was restored from an old copy, or is not honest; ask your "
                        "administrator");
    }
  }
  if (fresh.empty()) return false;
  DIMS_TRY(log_.extend(fresh));
  // What it says holds, whether it can be kept or not.
  const Status kept = folder_.keep_log(log_);
  if (!kept.ok()) spdlog::warn("the log was not kept: {}", kept.error().to_string());
  return look(&server);
}

// Ends with the stream: an error, or ok when the disk is over.
Status LogWatch::follow() {
  const client::LoginPlace place = folder_.place();
  const auto token = std::make_shared<client::LoginToken>(client::machine_login(place, {}));
  DIMS_ASSIGN(std::shared_ptr<client::AccessClient> server,
              client::AccessClient::connect(place.server, place.known_servers, token));
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return ok_status();
    server_ = server;
  }
  // The last known record is read again, to see that it still is the same.
  next_seq_ = log_.size() - 1;
  bool over = false;
  Status problem;
  const Status ended = server->follow_log(next_seq_, [&](const client::LogPage& page) {
    const auto taken = take(page.records, *server);
    if (!taken.ok()) problem = taken.error();
    over = taken.ok() && *taken;
    return taken.ok() && !over;
  });
  if (over) return ok_status();
  if (!problem.ok()) return problem;
  if (!ended.ok()) return ended;
  return make_error(ErrorCode::kUnavailable, "the server ended the log's stream");
}

void LogWatch::run() {
  if (look(nullptr)) return;
  std::string said;
  std::chrono::milliseconds next = kFirstPause;
  for (;;) {
    const std::uint64_t before = log_.size();
    const auto began = system_clock().boottime();
    const Status ended = follow();
    {
      const std::lock_guard lock(mutex_);
      server_.reset();
      if (stop_) return;
    }
    if (ended.ok()) return;
    // Being away is nothing to say: the disk does.
    const std::string text = ended.error().to_string();
    if (ended.error().code != ErrorCode::kUnavailable && text != said)
      spdlog::warn("the organisation's log cannot be followed: {}", text);
    said = text;
    const bool stood = log_.size() != before || system_clock().boottime() - began > kLongestPause;
    next = stood ? kFirstPause : std::min(next * 2, kLongestPause);
    if (!pause(spread(next))) return;
  }
}

}  // namespace dims::ldim
