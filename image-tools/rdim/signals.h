// Ctrl-C: the first asks the running transfer to stop and give its lease back, the second ends the
// connection, the third ends the program.
//
// Threads: construct it in main() before any other thread starts: they inherit its signal mask. One
// thread of its own, which ends with it.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <thread>

namespace dims::rdim {

class Signals {
 public:
  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  // What the first and the second signal do; called on the thread of this class. An earlier signal
  // counts.
  void on_interrupt(std::atomic<bool>* cancel, std::function<void()> give_up);
  // Forget them; they do not run after return.
  void clear();

 private:
  void run();

  std::mutex mutex_;
  std::atomic<bool>* cancel_ = nullptr;
  std::function<void()> give_up_;
  int count_ = 0;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace dims::rdim
