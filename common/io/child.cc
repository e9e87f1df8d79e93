#include "common/io/child.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "common/base/wire.h"
#include "common/io/errno_map.h"

namespace dims::io {
namespace {

Bytes encode(const Result<Bytes>& answer) {
  Bytes out;
  Writer w(out);
  w.u8(answer.ok() ? 1 : 0);
  if (answer.ok()) {
    w.string(*answer);
    return out;
  }
  const Error& error = answer.error();
  w.u32(static_cast<std::uint32_t>(error.code));
  for (const std::string* text : {&error.message, &error.hint, &error.holder})
    w.string(as_bytes(*text));
  return out;
}

Result<Bytes> decode(ByteView bytes) {
  Reader r(bytes);
  if (r.u8() == 1) {
    const ByteView answer = r.string();
    if (r.at_end()) return Bytes(answer.begin(), answer.end());
  } else {
    Error error;
    error.code = static_cast<ErrorCode>(r.u32());
    for (std::string* text : {&error.message, &error.hint, &error.holder})
      *text = std::string(as_text(r.string()));
    if (r.at_end()) return error;
  }
  return make_error(ErrorCode::kInternal, "a child process ended in the middle of its answer");
}

}  // namespace

Result<Bytes> run_in_child(const std::function<Result<Bytes>()>& body) {
  int ends[2];
  if (::pipe(ends) != 0) return errno_error(errno, "cannot make", "pipe");
  const pid_t pid = ::fork();
  if (pid < 0) {
    const int problem = errno;
    ::close(ends[0]);
    ::close(ends[1]);
    return errno_error(problem, "cannot start", "child process");
  }
  if (pid == 0) {
    ::close(ends[0]);
    const Bytes answer = encode(body());
    std::size_t done = 0;
    while (done < answer.size()) {
      const ssize_t n = ::write(ends[1], answer.data() + done, answer.size() - done);
      if (n <= 0) break;
      done += static_cast<std::size_t>(n);
    }
    ::_exit(done == answer.size() ? 0 : 1);  // no destructors of the parent's things
  }
  ::close(ends[1]);
  Bytes answer(kChildAnswerBytesMax);
  std::size_t got = 0;
  while (got < answer.size()) {
    const ssize_t n = ::read(ends[0], answer.data() + got, answer.size() - got);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    got += static_cast<std::size_t>(n);
  }
  ::close(ends[0]);
  int wait_status = 0;
  while (::waitpid(pid, &wait_status, 0) < 0 && errno == EINTR) {
  }
  Result<Bytes> out = make_error(ErrorCode::kInternal, "a child process died");
  if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0)
    out = decode(ByteView(answer).first(got));
  explicit_bzero(answer.data(), answer.size());
  return out;
}

}  // namespace dims::io
