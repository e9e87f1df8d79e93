#include "image-tools/transfer/stretch_reader.h"

#include <thread>

namespace dims::transfer {

StretchReader::StretchReader(media::Source& source, const format::DomainKey& key,
                             const tree::Cutter& cutter, tree::Uploader& uploader,
                             const StretchOptions& options, Progress& progress)
    : source_(source),
      key_(key),
      cutter_(cutter),
      uploader_(uploader),
      options_(options),
      progress_(progress) {}

Status StretchReader::run(const Sink& sink) {
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < std::max(1U, options_.threads); ++i)
    threads.emplace_back([this] { work(); });
  {
    MutexLock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&]() DIMS_REQUIRES(mutex_) {
        return failure_ || done_.contains(consumed_) || (planned_all_ && consumed_ == planned_);
      });
      if (failure_ || !done_.contains(consumed_)) break;
      const Stretch stretch = std::move(done_.extract(consumed_).mapped());
      lock.unlock();
      const Status status = sink(stretch);
      if (!status.ok()) fail(status.error());
      progress_.disk_bytes_done = stretch.pages.end() * kPageBytes;
      lock.lock();
      ++consumed_;
      changed_.notify_all();
    }
  }
  for (std::thread& thread : threads) thread.join();
  const MutexLock lock(mutex_);
  if (failure_) return *failure_;
  return ok_status();
}

void StretchReader::fail(const Error& error) {
  {
    const MutexLock lock(mutex_);
    if (!failure_) failure_ = error;
  }
  changed_.notify_all();
}

void StretchReader::work() {
  PageBuffer memory(kStretchBytes);
  const MutByteView buffer = memory.view();
  // How far the fastest thread may run ahead of the slowest.
  const std::uint64_t window = 4 * std::uint64_t{options_.threads};
  for (;;) {
    Plan plan;
    {
      MutexLock lock(mutex_);
      changed_.wait(lock, [&]() DIMS_REQUIRES(mutex_) {
        return failure_ || planned_all_ || planned_ < consumed_ + window;
      });
      if (failure_ || planned_all_) return;
      auto next = plan_locked();
      if (!next.ok()) {
        failure_ = next.error();
      } else if (!*next) {
        planned_all_ = true;
      }
      if (failure_ || planned_all_) {
        changed_.notify_all();
        return;
      }
      plan = std::move(**next);
    }
    if (progress_.cancel) return fail(cancelled());
    const Status status = read(plan, buffer);
    if (!status.ok()) return fail(status.error());
    auto stretch = seal(plan, buffer);
    if (!stretch.ok()) return fail(stretch.error());
    {
      const MutexLock lock(mutex_);
      done_.emplace(plan.number, std::move(stretch).value());
    }
    changed_.notify_all();
  }
}

Result<std::optional<StretchReader::Plan>> StretchReader::plan_locked() {
  Plan plan;
  std::uint64_t end = 0;
  for (std::uint64_t from = plan_from_;;) {
    DIMS_ASSIGN(const std::optional<ByteRange> data, source_.next_data(from));
    if (!data) break;
    if (plan.data.empty()) {
      plan.number = planned_;
      plan.offset = data->offset / kStretchBytes * kStretchBytes;
      end = std::min(plan.offset + kStretchBytes, source_.bytes());
    }
    if (data->offset >= end) break;
    // Whole pages, so that a source that knows single bytes of data is read as it is cut.
    std::uint64_t first = data->offset / kPageBytes * kPageBytes;
    const std::uint64_t stop = std::min(round_up(std::min(data->end(), end), kPageBytes), end);
    if (!plan.data.empty() && plan.data.back().end() >= first) {
      plan.data.back().count = stop - plan.data.back().offset;
    } else {
      plan.data.push_back({first, stop - first});
    }
    from = std::max(stop, data->offset + 1);
    if (from >= end) break;
  }
  if (plan.data.empty()) return std::optional<Plan>();
  plan_from_ = end;
  ++planned_;
  return std::optional<Plan>(std::move(plan));
}

Status StretchReader::read(const Plan& plan, MutByteView buffer) {
  std::uint64_t at = plan.offset;
  const auto place = [&](std::uint64_t offset) {
    return static_cast<std::size_t>(offset - plan.offset);
  };
  for (const ByteRange& data : plan.data) {
    std::fill(buffer.begin() + static_cast<std::ptrdiff_t>(place(at)),
              buffer.begin() + static_cast<std::ptrdiff_t>(place(data.offset)), std::uint8_t{0});
    DIMS_TRY(source_.read_at(data.offset, buffer.subspan(place(data.offset), data.count)));
    counts_.read_bytes += data.count;
    at = data.end();
  }
  std::fill(buffer.begin() + static_cast<std::ptrdiff_t>(place(at)), buffer.end(), std::uint8_t{0});
  return ok_status();
}

Result<StretchReader::Stretch> StretchReader::seal(const Plan& plan, ByteView buffer) {
  Stretch stretch;
  const std::uint64_t end = std::min(plan.offset + kStretchBytes, source_.bytes());
  stretch.pages = {page_of(plan.offset), pages_for(end - plan.offset)};
  const ByteView pages = buffer.first(static_cast<std::size_t>(stretch.pages.count * kPageBytes));
  for (const PageRange& chunk : cutter_.cut(pages)) {
    if (progress_.cancel) return cancelled();
    format::SealedObject object = format::seal_chunk(
        key_, pages.subspan(chunk.first * kPageBytes, chunk.count * kPageBytes), options_.compress);
    stretch.extents.push_back({stretch.pages.first + chunk.first, chunk.count, 0, object.ref});
    ++counts_.chunks;
    counts_.data_bytes += chunk.count * kPageBytes;
    counts_.sealed_bytes += object.bytes.size();
    progress_.data_bytes += chunk.count * kPageBytes;
    DIMS_TRY(uploader_.add(std::move(object)));
  }
  return stretch;
}

}  // namespace dims::transfer
