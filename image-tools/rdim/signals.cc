#include "image-tools/rdim/signals.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "image-tools/rdim/output.h"

namespace dims::rdim {
namespace {

// What is ignored (nohup, a shell's background jobs) stays so: a signal that is blocked is
// delivered to sigwait() all the same. SIGTERM is always there, to end the thread.
sigset_t watched() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  for (const int number : {SIGINT, SIGHUP}) {
    struct sigaction action {};
    const bool ignored = ::sigaction(number, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
    if (!ignored) ::sigaddset(&set, number);
  }
  return set;
}

}  // namespace

Signals::Signals() {
  const sigset_t set = watched();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);  // a reader that goes away is an error of write()
  thread_ = std::thread([this] { run(); });
}

Signals::~Signals() {
  stop_ = true;
  ::pthread_kill(thread_.native_handle(), SIGTERM);  // wakes it; nobody else sees it
  thread_.join();
}

void Signals::on_interrupt(std::atomic<bool>* cancel, std::function<void()> give_up) {
  const std::lock_guard lock(mutex_);
  cancel_ = cancel;
  give_up_ = std::move(give_up);
  if (count_ > 0 && cancel_ != nullptr) *cancel_ = true;
}

void Signals::clear() { on_interrupt(nullptr, nullptr); }

void Signals::run() {
  const sigset_t set = watched();
  for (;;) {
    int number = 0;
    ::sigwait(&set, &number);
    if (stop_) return;
    const std::lock_guard lock(mutex_);
    ++count_;
    // Nothing to stop, or asked three times.
    if (cancel_ == nullptr || count_ > 2) ::_exit(kExitInterrupted);
    *cancel_ = true;
    if (count_ == 2 && give_up_) give_up_();
  }
}

}  // namespace dims::rdim
