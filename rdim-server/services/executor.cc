#include "rdim-server/services/executor.h"

namespace dims::services {

Executor::Executor(std::size_t threads) {
  for (std::size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

Executor::~Executor() { stop(); }

void Executor::run(contract::Priority priority, std::function<void()> task) {
  std::lock_guard lock(mutex_);
  if (stopping_) return;
  queues_.at(static_cast<std::size_t>(priority)).push_back(std::move(task));
  changed_.notify_one();
}

void Executor::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

bool Executor::take(std::unique_lock<std::mutex>& lock, std::function<void()>& task) {
  for (;;) {
    for (auto& queue : queues_) {
      if (queue.empty()) continue;
      task = std::move(queue.front());
      queue.pop_front();
      return true;
    }
    if (stopping_) return false;
    changed_.wait(lock);
  }
}

void Executor::work() {
  std::function<void()> task;
  std::unique_lock lock(mutex_);
  while (take(lock, task)) {
    lock.unlock();
    task();
    task = nullptr;  // what it owns dies outside the lock
    lock.lock();
  }
}

}  // namespace dims::services
