#include "rdim-server/services/watch_stream.h"

#include "rdim-server/services/branches.h"
#include "rdim-server/services/convert.h"

namespace dims::services {

grpc::ServerWriteReactor<v1::Event>* WatchStream::begin(std::shared_ptr<WatchStream> stream,
                                                        const v1::WatchRequest& request) {
  WatchStream* const raw = stream.get();
  raw->self_ = stream;
  const Status status = raw->subscribe(request);
  if (!status.ok()) raw->stop(to_grpc(status));
  raw->context_.streams.add(stream);
  raw->advance();
  return raw;
}

Status WatchStream::subscribe(const v1::WatchRequest& request) {
  std::vector<ImageId> images;
  if (request.images().empty()) DIMS_TRY(context_.gate.admit(Rpc::kListImages, ticket_));
  for (const std::string& field : request.images()) {
    ImageId& image = images.emplace_back();
    DIMS_TRY(take_id(field, "image id", image));
    DIMS_TRY(context_.gate.admit(Rpc::kWatch, ticket_, image));
    DIMS_TRY(context_.catalog.check_access(image, {}, catalog::Access::kRead));
  }
  SessionId session;
  DIMS_TRY(take_id(request.session(), "session id", session));
  subscription_ = context_.catalog.events().subscribe(
      images, session, [&context = context_, weak = weak_from_this()] {
        context.calls.run(contract::Priority::kDemand, [weak] {
          if (const auto stream = weak.lock()) stream->advance();
        });
      });
  // What was announced before, while nobody here listened: the newest version of each, and its
  // conflict branches, also that there are none any more.
  for (const ImageId& image : images) {
    DIMS_ASSIGN(const contract::ImageInfo info, context_.catalog.get_image(image));
    contract::ServerEvent event;
    event.image = image;
    if (!info.head.is_zero()) {
      event.kind = contract::ServerEvent::Kind::kNewVersion;
      event.version = info.head;
      event.sequence = info.head_sequence;
      first_.push_back(event);
    }
    event = {};
    event.kind = contract::ServerEvent::Kind::kBranches;
    event.image = image;
    first_.push_back(std::move(event));
  }
  return ok_status();
}

bool WatchStream::name_branches(const access::Caller& caller, contract::ServerEvent& event) {
  const auto image = context_.catalog.get_image(event.image);
  if (!image.ok()) return false;
  event.branches = branches_for(context_, caller, image->name);
  return true;
}

std::optional<contract::ServerEvent> WatchStream::next_event() {
  const auto take = [this]() -> std::optional<contract::ServerEvent> {
    if (first_.empty()) return subscription_->take();
    auto event = std::move(first_.front());
    first_.pop_front();
    return event;
  };
  while (auto event = take()) {
    const access::Caller caller = context_.gate.caller(ticket_);
    if (context_.gate.control().access(caller, event->image) < trust::Access::kRead) continue;
    const bool branches = event->kind == contract::ServerEvent::Kind::kBranches;
    if (!branches || name_branches(caller, *event)) return event;
  }
  return std::nullopt;
}

void WatchStream::OnWriteDone(bool ok) {
  {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (!ok) over_ = true;
  }
  advance();
}

void WatchStream::OnCancel() { stop(grpc::Status::CANCELLED); }

void WatchStream::OnDone() {
  if (subscription_) subscription_->stop();
  auto last = std::move(self_);
}

void WatchStream::end() {
  stop(to_grpc(make_error(ErrorCode::kUnavailable, "the server is shutting down",
                          "try again when it is back")));
}

void WatchStream::stop(const grpc::Status& status) {
  {
    std::lock_guard lock(mutex_);
    if (!over_) status_ = status;
    over_ = true;
  }
  advance();
}

void WatchStream::advance() {
  const auto keep = weak_from_this().lock();
  bool finish = false;
  grpc::Status status;
  {
    std::lock_guard lock(mutex_);
    if (writing_ || finished_) return;
    // A stream keeps the token that it began with. Asked before an event is taken: with a new one
    // the client hears of the newest state again.
    if (!over_ && context_.gate.needs_login(ticket_)) {
      over_ = true;
      status_ = to_grpc(access::login_needed());
    }
    if (over_) {
      finish = finished_ = true;
      status = status_;
    } else if (!ready_sent_) {
      ready_sent_ = true;
      event_.Clear();  // READY
      writing_ = true;
    } else if (const auto event = next_event()) {
      event_.Clear();
      to_proto(*event, &event_);
      writing_ = true;
    } else {
      return;
    }
  }
  if (finish) {
    Finish(status);
  } else {
    StartWrite(&event_);
  }
}

}  // namespace dims::services
