// Tells ThreadSanitizer what it cannot see: the order that gRPC and Abseil make.
//
// They come from the distribution and are not instrumented, so their own atomics and futexes are
// invisible, and everything that passes through gRPC from one of our threads to another would be
// reported as a race. This library stands in front of theirs (builds with DIMS_SANITIZE=thread
// only) and says three things: what was done before an operation was started is known where it
// completes (the tag); what was done under an absl::Mutex is known to its next owner; and what a
// server's call did before it let go of one of its references is known to OnDone and OnCancel. It
// orders nothing else, so that our own mistakes are still found.
//
// Threads: any. Errors: ends the process when a symbol is not there.
#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include <absl/synchronization/mutex.h>
#include <grpc/grpc.h>
#include <grpcpp/support/server_callback.h>

extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}

namespace {

template <typename Function>
Function* next(const char* name) {
  void* const found = dlsym(RTLD_NEXT, name);
  if (found == nullptr) {
    std::fprintf(stderr, "tsan_grpc: no %s behind this library\n", name);
    std::abort();
  }
  return reinterpret_cast<Function*>(found);
}

// Whether this word is the address of code: a callback's tag begins with its function, another's
// with a table of functions.
bool is_code(const void* word) {
  struct Question {
    std::uintptr_t address;
    bool code;
  } question{reinterpret_cast<std::uintptr_t>(word), false};
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        auto& asked = *static_cast<Question*>(data);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& header = info->dlpi_phdr[i];
          if (header.p_type != PT_LOAD || (header.p_flags & PF_X) == 0) continue;
          const std::uintptr_t from = info->dlpi_addr + header.p_vaddr;
          if (asked.address >= from && asked.address < from + header.p_memsz) asked.code = true;
        }
        return asked.code ? 1 : 0;
      },
      &question);
  return question.code;
}

// The few functions that callbacks' tags begin with, each with one of ours that goes first.
using Run = void(grpc_completion_queue_functor*, int);
constexpr std::size_t kRuns = 32;
std::atomic<Run*> known_runs[kRuns];

template <std::size_t I>
void run_in_order(grpc_completion_queue_functor* tag, int ok) {
  Run* const run = known_runs[I].load();
  __tsan_acquire(tag);
  run(tag, ok);
}
template <std::size_t... I>
Run* const* ours(std::index_sequence<I...>) {
  static Run* const all[] = {run_in_order<I>...};
  return all;
}

Run* in_order(Run* run) {
  Run* const* const mine = ours(std::make_index_sequence<kRuns>());
  for (std::size_t i = 0; i < kRuns; ++i) {
    if (run == mine[i]) return run;
  }
  for (std::size_t i = 0; i < kRuns; ++i) {
    Run* found = known_runs[i].load();
    if (found == nullptr) {
      if (!is_code(reinterpret_cast<const void*>(run))) return nullptr;
      if (known_runs[i].compare_exchange_strong(found, run)) found = run;
    }
    if (found == run) return mine[i];
  }
  return nullptr;
}

}  // namespace

extern "C" {

grpc_call_error grpc_call_start_batch(grpc_call* call, const grpc_op* ops, size_t count, void* tag,
                                      void* reserved) {
  static auto* const real = next<decltype(grpc_call_start_batch)>("grpc_call_start_batch");
  if (tag != nullptr) {
    auto* const callback = static_cast<grpc_completion_queue_functor*>(tag);
    Run* const run = in_order(callback->functor_run);
    if (run != nullptr) callback->functor_run = run;
    __tsan_release(tag);
  }
  return real(call, ops, count, tag, reserved);
}

grpc_event grpc_completion_queue_next(grpc_completion_queue* queue, gpr_timespec deadline,
                                      void* reserved) {
  static auto* const real =
      next<decltype(grpc_completion_queue_next)>("grpc_completion_queue_next");
  const grpc_event event = real(queue, deadline, reserved);
  if (event.type == GRPC_OP_COMPLETE) __tsan_acquire(event.tag);
  return event;
}

grpc_event grpc_completion_queue_pluck(grpc_completion_queue* queue, void* tag,
                                       gpr_timespec deadline, void* reserved) {
  static auto* const real =
      next<decltype(grpc_completion_queue_pluck)>("grpc_completion_queue_pluck");
  const grpc_event event = real(queue, tag, deadline, reserved);
  if (event.type == GRPC_OP_COMPLETE) __tsan_acquire(tag);
  return event;
}

}  // extern "C"

namespace grpc::internal {
namespace {

// The last reference is let go in gRPC's own code, so nobody was seen to take over what the others
// released with their count. Its counts are the words behind its table of functions.
void take_over(ServerCallbackCall* call) {
  for (std::size_t at = sizeof(void*); at < sizeof *call; at += sizeof(std::atomic_int))
    __tsan_acquire(reinterpret_cast<char*>(call) + at);
}

}  // namespace

void ServerCallbackCall::ScheduleOnDone(bool inline_ondone) {
  static auto* const real = next<void(ServerCallbackCall*, bool)>(
      "_ZN4grpc8internal18ServerCallbackCall14ScheduleOnDoneEb");
  take_over(this);
  real(this, inline_ondone);
}
void ServerCallbackCall::CallOnCancel(ServerReactor* reactor) {
  static auto* const real = next<void(ServerCallbackCall*, ServerReactor*)>(
      "_ZN4grpc8internal18ServerCallbackCall12CallOnCancelEPNS0_13ServerReactorE");
  take_over(this);
  real(this, reactor);
}

}  // namespace grpc::internal

namespace absl {
ABSL_NAMESPACE_BEGIN

#define DIMS_NEXT(name) "_ZN4absl7debian3" name

void Mutex::Lock() {
  static auto* const real = next<void(Mutex*)>(DIMS_NEXT("5Mutex4LockEv"));
  real(this);
  __tsan_acquire(this);
}
void Mutex::Unlock() {
  static auto* const real = next<void(Mutex*)>(DIMS_NEXT("5Mutex6UnlockEv"));
  __tsan_release(this);
  real(this);
}
bool Mutex::TryLock() {
  static auto* const real = next<bool(Mutex*)>(DIMS_NEXT("5Mutex7TryLockEv"));
  const bool locked = real(this);
  if (locked) __tsan_acquire(this);
  return locked;
}
void CondVar::Wait(Mutex* mutex) {
  static auto* const real = next<void(CondVar*, Mutex*)>(DIMS_NEXT("7CondVar4WaitEPNS0_5MutexE"));
  __tsan_release(mutex);
  real(this, mutex);
  __tsan_acquire(mutex);
}
bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static auto* const real = next<bool(CondVar*, Mutex*, Time)>(
      DIMS_NEXT("7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE"));
  __tsan_release(mutex);
  const bool expired = real(this, mutex, deadline);
  __tsan_acquire(mutex);
  return expired;
}

#undef DIMS_NEXT

ABSL_NAMESPACE_END
}  // namespace absl
