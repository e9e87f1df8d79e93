// Mutex and MutexLock: std::mutex with clang's thread-safety attributes, so that the preset
// clang-tsa proves at compile time that what a mutex guards is touched under it only.
//
// Use: DIMS_GUARDED_BY(mutex_) behind a member, DIMS_REQUIRES(mutex_) behind a private method that
// is called with it held, and behind the head of a lambda that waits on it. With other compilers
// they are nothing. Threads: that is what they are for. Ownership: a lock must not outlive its
// mutex. Errors: none.
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define DIMS_TSA(x) __attribute__((x))
#else
#define DIMS_TSA(x)
#endif

#define DIMS_GUARDED_BY(x) DIMS_TSA(guarded_by(x))
#define DIMS_REQUIRES(x) DIMS_TSA(requires_capability(x))
#define DIMS_EXCLUDES(x) DIMS_TSA(locks_excluded(x))

namespace dims {

class DIMS_TSA(capability("mutex")) Mutex {
 public:
  void lock() DIMS_TSA(acquire_capability()) { mutex_.lock(); }
  void unlock() DIMS_TSA(release_capability()) { mutex_.unlock(); }

 private:
  friend class MutexLock;
  std::mutex mutex_;
};

// Holds a mutex to the end of its scope; may be given up and taken again in between.
class DIMS_TSA(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) DIMS_TSA(acquire_capability(mutex)) : lock_(mutex.mutex_) {}
  ~MutexLock() DIMS_TSA(release_capability()) {}
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;
  void lock() DIMS_TSA(acquire_capability()) { lock_.lock(); }
  void unlock() DIMS_TSA(release_capability()) { lock_.unlock(); }

 private:
  friend class Condition;
  std::unique_lock<std::mutex> lock_;
};

// std::condition_variable for MutexLock. The lock is held again when a wait returns.
class Condition {
 public:
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }
  void wait(MutexLock& lock) { condition_.wait(lock.lock_); }
  template <typename Predicate>
  void wait(MutexLock& lock, Predicate predicate) {
    condition_.wait(lock.lock_, predicate);
  }
  template <typename Duration>
  std::cv_status wait_for(MutexLock& lock, Duration longest) {
    return condition_.wait_for(lock.lock_, longest);
  }
  template <typename Duration, typename Predicate>
  bool wait_for(MutexLock& lock, Duration longest, Predicate predicate) {
    return condition_.wait_for(lock.lock_, longest, predicate);
  }

 private:
  std::condition_variable condition_;
};

}  // namespace dims
