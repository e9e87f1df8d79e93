// A progress bar on stderr, only if that is a terminal: percent, bytes, rate, time left.
// Threads: one of its own, which ends with it. Ownership: the progress outlives it.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "image-tools/transfer/progress.h"

namespace dims::rdim {

class ProgressBar {
 public:
  // quiet: never draw.
  ProgressBar(std::string what, const transfer::Progress& progress, bool quiet);
  ~ProgressBar();  // wipes the line
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

 private:
  void run();
  std::string line(double seconds) const;

  const std::string what_;
  const transfer::Progress& progress_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace dims::rdim
