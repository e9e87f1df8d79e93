#include "image-tools/rdim/progress_bar.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "common/base/parse.h"

namespace dims::rdim {
namespace {

std::size_t terminal_columns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 20) return 80;
  return size.ws_col;
}

std::string text_of_seconds(double seconds) {
  char text[32];
  const auto whole = static_cast<long>(seconds + 0.5);
  if (whole >= 3600) {
    std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60, whole % 60);
  } else {
    std::snprintf(text, sizeof text, "%ld:%02ld", whole / 60, whole % 60);
  }
  return std::string(text);
}

}  // namespace

ProgressBar::ProgressBar(std::string what, const transfer::Progress& progress, bool quiet)
    : what_(std::move(what)), progress_(progress) {
  if (quiet || ::isatty(STDERR_FILENO) == 0) return;
  thread_ = std::thread([this] { run(); });
}

ProgressBar::~ProgressBar() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
  std::fprintf(stderr, "\r\x1b[K");
}

void ProgressBar::run() {
  const auto started = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, std::chrono::milliseconds(200), [&] { return stop_; })) {
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    std::string text = line(seconds);
    text.resize(std::min(text.size(), terminal_columns() - 1));
    std::fprintf(stderr, "\r%s\x1b[K", text.c_str());
    std::fflush(stderr);
  }
}

std::string ProgressBar::line(double seconds) const {
  const std::uint64_t all = progress_.disk_bytes;
  const std::uint64_t done = std::min<std::uint64_t>(progress_.disk_bytes_done, all);
  const double share = all == 0 ? 0.0 : static_cast<double>(done) / static_cast<double>(all);
  constexpr std::size_t kWidth = 24;
  const auto filled = static_cast<std::size_t>(share * static_cast<double>(kWidth));
  const double rate = seconds > 0 ? static_cast<double>(progress_.data_bytes) / seconds / 1e6 : 0;
  char numbers[96];
  std::snprintf(numbers, sizeof numbers, " %3.0f %%  %.0f MB/s", share * 100, rate);
  std::string text = what_ + " [" + std::string(filled, '#') + std::string(kWidth - filled, '.') +
                     "]" + numbers + "  " + format_size(done) + " of " + format_size(all);
  if (progress_.cancel) {
    text += "  stopping";
  } else if (share > 0.01) {
    text += "  " + text_of_seconds(seconds * (1 - share) / share) + " left";
  }
  return text;
}

}  // namespace dims::rdim
