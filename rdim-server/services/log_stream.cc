#include "rdim-server/services/log_stream.h"

#include "rdim-server/services/access_service.h"

namespace dims::services {
namespace {

constexpr std::size_t kReplyBytes = 1 << 20;

}  // namespace

grpc::ServerWriteReactor<v1::GetLogReply>* LogStream::begin(std::shared_ptr<LogStream> stream) {
  LogStream* const raw = stream.get();
  raw->self_ = stream;
  ServiceContext& context = raw->context_;
  const auto wake = [&context, weak = std::weak_ptr<LogStream>(stream)] {
    context.calls.run(contract::Priority::kDemand, [weak] {
      if (const auto kept = weak.lock()) kept->advance();
    });
  };
  if (raw->follow_) raw->listening_ = context.gate.control().book().on_append(wake);
  context.streams.add(stream);
  wake();
  return raw;
}

void LogStream::OnWriteDone(bool ok) {
  {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (!ok) over_ = true;
  }
  advance();
}

void LogStream::OnDone() {
  listening_.reset();
  auto last = std::move(self_);
}

void LogStream::end() {
  stop(to_grpc(make_error(ErrorCode::kUnavailable, "the server is shutting down",
                          "try again when it is back")));
}

void LogStream::stop(const grpc::Status& status) {
  {
    std::lock_guard lock(mutex_);
    if (!over_) status_ = status;
    over_ = true;
  }
  advance();
}

void LogStream::advance() {
  const auto keep = weak_from_this().lock();
  bool finish = false;
  grpc::Status status;
  {
    std::lock_guard lock(mutex_);
    if (writing_ || finished_) return;
    std::optional<std::uint64_t> last;  // record that this caller may see
    if (!over_) {
      const auto admitted = context_.gate.admit(Rpc::kGetLog, ticket_);
      if (!admitted.ok()) {
        over_ = true;
        status_ = to_grpc(admitted.error());
      } else {
        last = context_.gate.control().log_ends_at(*admitted);
      }
    }
    if (!over_) {
      const access::OrgBook& book = context_.gate.control().book();
      auto records = book.read(next_, kReplyBytes);
      trust::Position end = book.position();
      if (last && *last < end.seq) {
        end = book.with([&](const trust::OrgState& org) {
          return trust::Position{*last, org.hash_at(*last)};
        });
        const std::uint64_t more = next_ > *last ? 0 : *last - next_ + 1;
        if (records.size() > more) records.resize(more);
      }
      if (!records.empty() || !sent_any_) {
        reply_.Clear();
        for (const Bytes& record : records) reply_.add_records(record.data(), record.size());
        to_proto(end, reply_.mutable_end());
        next_ += records.size();
        sent_any_ = true;
        writing_ = true;
      } else if (!follow_) {
        over_ = true;
      } else {
        return;
      }
    }
    if (over_) {
      finish = finished_ = true;
      status = status_;
    }
  }
  if (finish) {
    Finish(status);
  } else {
    StartWrite(&reply_);
  }
}

}  // namespace dims::services
