#include "tests/support/fake_server.h"

#include <algorithm>

namespace dims::test {

using contract::CommitAnswer;
using contract::ImageInfo;
using contract::LeaseGrant;
using contract::ServerEvent;
using contract::VersionInfo;
using format::ObjectKind;

// Locks the server; when the scope ends, unlocks and wakes the watchers if something was announced.
class FakeServer::Announce {
 public:
  explicit Announce(FakeServer& server)
      : server_(server), lock_(server.mutex_), before_(server.events_.size()) {}
  ~Announce() {
    std::vector<std::function<void()>> listeners;
    if (server_.events_.size() != before_) {
      for (const auto& [number, listener] : server_.listeners_) listeners.push_back(listener);
    }
    lock_.unlock();
    for (const auto& listener : listeners) listener();
  }
  Announce(const Announce&) = delete;
  Announce& operator=(const Announce&) = delete;

 private:
  FakeServer& server_;
  std::unique_lock<std::mutex> lock_;
  std::size_t before_;
};

FakeServer::FakeServer() : generation_(random_.id<GenerationId>()) {}

Result<FakeServer::Image*> FakeServer::image_locked(const ImageId& id) {
  const auto found = images_.find(id);
  if (found == images_.end()) {
    return make_error(ErrorCode::kNotFound, "no image with the id " + id.hex(),
                      "see 'rdim image ls'");
  }
  return &found->second;
}

ImageInfo FakeServer::info_locked(const Image& image) const {
  ImageInfo info = image.info;
  if (image.held) {
    info.holder = image.holder;
    info.holder->expires_in = image.expired ? std::chrono::milliseconds(0) : kLeaseTerm;
  }
  info.branches = branches_locked(info.name);
  return info;
}

std::vector<std::string> FakeServer::branches_locked(const std::string& name) const {
  std::vector<std::string> out;
  for (const auto& [id, image] : images_) {
    if (image.info.conflict_of == name) out.push_back(image.info.name);
  }
  std::sort(out.begin(), out.end());
  return out;
}

void FakeServer::announce_branches_locked(const std::string& conflict_of) {
  for (const auto& [id, image] : images_) {
    if (conflict_of.empty() || image.info.name != conflict_of) continue;
    ServerEvent event;
    event.kind = ServerEvent::Kind::kBranches;
    event.image = id;
    event.branches = branches_locked(conflict_of);
    announce_locked(event);
  }
}

std::vector<ServerEvent> FakeServer::first_events(const std::vector<ImageId>& images) {
  std::lock_guard lock(mutex_);
  std::vector<ServerEvent> out;
  for (const ImageId& id : images) {
    const auto found = images_.find(id);
    if (found == images_.end()) continue;
    ServerEvent& event = out.emplace_back();
    event.kind = ServerEvent::Kind::kBranches;
    event.image = id;
    event.branches = branches_locked(found->second.info.name);
  }
  return out;
}

void FakeServer::announce_locked(ServerEvent event, std::optional<SessionId> only_for) {
  events_.push_back({std::move(event), only_for});
}

contract::ServerInfo FakeServer::hello() {
  std::lock_guard lock(mutex_);
  return {generation_, "fake", 256, 4 << 20};
}

Result<ImageInfo> FakeServer::create_image(const ImageInfo& asked) {
  Announce lock(*this);
  const auto same = images_.find(asked.id);
  if (same != images_.end()) {
    const ImageInfo& there = same->second.info;
    if (there.name == asked.name && there.origin == asked.origin) return info_locked(same->second);
    return make_error(ErrorCode::kAlreadyExists, "image id " + asked.id.hex() + " is taken");
  }
  for (const auto& [id, image] : images_) {
    if (image.info.name == asked.name) {
      return make_error(ErrorCode::kAlreadyExists, "an image named '" + asked.name + "' exists",
                        "choose another name");
    }
  }
  DIMS_TRY(format::check_parameters(asked.tree));
  Image image;
  image.info = asked;
  image.info.head = {};
  image.info.head_sequence = 0;
  image.info.holder.reset();
  if (!asked.origin.is_zero()) {
    const auto origin = versions_.find(asked.origin);
    if (origin == versions_.end()) {
      return make_error(ErrorCode::kNotFound,
                        "origin version " + asked.origin.short_hex() + " is not known");
    }
    image.info.head = asked.origin;
    image.info.head_sequence = origin->second.record.sequence;
  }
  const auto placed = images_.emplace(asked.id, std::move(image)).first;
  announce_branches_locked(asked.conflict_of);
  return info_locked(placed->second);
}

Result<ImageInfo> FakeServer::find_image(const std::string& name) {
  std::lock_guard lock(mutex_);
  for (const auto& [id, image] : images_) {
    if (image.info.name == name) return info_locked(image);
  }
  return make_error(ErrorCode::kNotFound, "no image named '" + name + "'", "see 'rdim image ls'");
}

Result<ImageInfo> FakeServer::get_image(const ImageId& id) {
  std::lock_guard lock(mutex_);
  DIMS_ASSIGN(const Image* image, image_locked(id));
  return info_locked(*image);
}

std::vector<ImageInfo> FakeServer::list_images() {
  std::lock_guard lock(mutex_);
  std::vector<ImageInfo> out;
  for (const auto& [id, image] : images_) out.push_back(info_locked(image));
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return out;
}

Status FakeServer::remove_image(const ImageRemoval& removal) {
  Announce lock(*this);
  const ImageId id = removal.id;
  DIMS_ASSIGN(const Image* image, image_locked(id));
  if (!removal.head.is_zero() && !(image->info.head == removal.head))
    return make_error(ErrorCode::kConflict, "image '" + image->info.name + "' has another version");
  if (image->held && !image->expired && !(image->lease == removal.lease)) {
    Error error = make_error(ErrorCode::kLeaseHeld, "image '" + image->info.name + "' is in use",
                             "end its session first");
    error.holder = image->holder.machine_name;
    return error;
  }
  const std::string conflict_of = image->info.conflict_of;
  images_.erase(id);
  ServerEvent event;
  event.kind = ServerEvent::Kind::kRemoved;
  event.image = id;
  announce_locked(event);
  announce_branches_locked(conflict_of);
  return ok_status();
}

Result<VersionInfo> FakeServer::get_version(const ImageId& id, const VersionId& version,
                                            std::uint64_t sequence) {
  std::lock_guard lock(mutex_);
  DIMS_ASSIGN(const Image* image, image_locked(id));
  VersionId at = version.is_zero() ? image->info.head : version;
  const bool by_sequence = version.is_zero() && sequence != 0;
  for (auto found = versions_.find(at); found != versions_.end(); found = versions_.find(at)) {
    if (!by_sequence || found->second.record.sequence == sequence) {
      return VersionInfo{at, found->second.record_bytes, found->second.record};
    }
    at = found->second.record.parent;
  }
  return make_error(ErrorCode::kNotFound, "image '" + image->info.name + "' has no such version",
                    "see 'rdim version ls'");
}

Result<std::vector<VersionInfo>> FakeServer::list_versions(const ImageId& id, std::uint32_t limit) {
  std::lock_guard lock(mutex_);
  DIMS_ASSIGN(const Image* image, image_locked(id));
  std::vector<VersionInfo> out;
  VersionId at = image->info.head;
  for (auto found = versions_.find(at); found != versions_.end(); found = versions_.find(at)) {
    if (limit != 0 && out.size() == limit) break;
    out.push_back({at, found->second.record_bytes, found->second.record});
    at = found->second.record.parent;
  }
  return out;
}

Result<contract::SessionAnswer> FakeServer::open_session(const contract::SessionRequest& request) {
  std::lock_guard lock(mutex_);
  DIMS_ASSIGN(Image* const image, image_locked(request.image));
  if (!request.base.is_zero() && !versions_.contains(request.base)) {
    return make_error(
        ErrorCode::kOtherHistory, "version " + request.base.short_hex() + " is not known here",
        "the server was restored or is another one: store the unsent writes as a branch");
  }
  image->sessions.insert(request.session);
  contract::SessionAnswer answer;
  answer.image = info_locked(*image);
  const auto journal = image->journals.find(request.journal);
  if (!request.journal.is_zero() && journal != image->journals.end()) {
    answer.newest_of_journal = journal->second.newest;
    answer.newest_version = journal->second.version;
  }
  return answer;
}

Status FakeServer::close_session(const ImageId& id, const SessionId& session) {
  std::lock_guard lock(mutex_);
  DIMS_ASSIGN(Image* const image, image_locked(id));
  image->sessions.erase(session);
  return ok_status();
}

Result<LeaseGrant> FakeServer::acquire_lease(const contract::LeaseRequest& request) {
  Announce lock(*this);
  DIMS_ASSIGN(Image* const image, image_locked(request.image));
  const bool ours = image->held && image->holder.session == request.session;
  if (ours && !image->expired) return LeaseGrant{image->lease, image->token, kLeaseTerm};
  contract::HolderInfo asker{request.machine, request.machine_name, request.session, kLeaseTerm};
  ServerEvent event;
  event.image = request.image;
  event.hand_off = request.hand_off;
  event.who = asker;
  if (image->held && !ours && !image->expired) {
    if (!request.take_over) {
      event.kind = ServerEvent::Kind::kLeaseRequested;
      announce_locked(event, image->holder.session);
      Error error = make_error(ErrorCode::kLeaseHeld, "image '" + image->info.name + "' is in use",
                               "end its session there, or take over");
      error.holder = image->holder.machine_name;
      return error;
    }
    event.kind = ServerEvent::Kind::kLeaseLost;
    announce_locked(event, image->holder.session);
  }
  image->held = true;
  image->expired = false;
  image->lease = random_.id<LeaseId>();
  ++image->token;
  image->holder = asker;
  return LeaseGrant{image->lease, image->token, kLeaseTerm};
}

Status FakeServer::check_lease_locked(const Image& image, const LeaseId& lease,
                                      std::uint64_t token) const {
  if (image.held && !image.expired && image.lease == lease && image.token == token)
    return ok_status();
  Error error = make_error(ErrorCode::kStaleLease,
                           "the lease on image '" + image.info.name + "' is no longer yours",
                           "acquire it again");
  if (image.held && !image.expired) error.holder = image.holder.machine_name;
  return error;
}

Result<LeaseGrant> FakeServer::renew_lease(const ImageId& id, const LeaseGrant& lease) {
  std::lock_guard lock(mutex_);
  DIMS_ASSIGN(Image* const image, image_locked(id));
  DIMS_TRY(check_lease_locked(*image, lease.lease, lease.token));
  image->holder.unsent_bytes = lease.unsent_bytes;
  return LeaseGrant{lease.lease, lease.token, kLeaseTerm};
}

Status FakeServer::release_lease(const ImageId& id, const LeaseGrant& lease) {
  std::lock_guard lock(mutex_);
  DIMS_ASSIGN(Image* const image, image_locked(id));
  if (!image->held) return ok_status();  // the first answer was lost
  DIMS_TRY(check_lease_locked(*image, lease.lease, lease.token));
  image->held = false;
  return ok_status();
}

std::vector<format::ObjectKey> FakeServer::missing_locked(const ObjectKey& root) {
  std::vector<ObjectKey> missing;
  if (root.id.is_zero()) return missing;
  std::vector<ObjectKey> todo{root}, visited;
  std::set<ObjectKey> seen{root};
  while (!todo.empty()) {
    const ObjectKey key = todo.back();
    todo.pop_back();
    if (complete_.contains(key)) continue;
    const auto found = objects_.find(key);
    if (found == objects_.end()) {
      missing.push_back(key);
      continue;
    }
    visited.push_back(key);
    const auto head = format::parse_head(found->second);
    if (!head.ok()) continue;
    for (const ObjectKey& child : head->children) {
      if (seen.insert(child).second) todo.push_back(child);
    }
  }
  if (missing.empty()) complete_.insert(visited.begin(), visited.end());
  return missing;
}

Result<CommitAnswer> FakeServer::commit(const contract::CommitOrder& order) {
  Announce lock(*this);
  DIMS_ASSIGN(Image* const image, image_locked(order.image));
  DIMS_ASSIGN(const format::VersionRecord record, format::decode_version(order.record));
  const VersionId id = format::version_id(order.record);
  if (!(record.image == order.image) || !(record.parent == order.parent)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the record is of another image or parent than the call");
  }
  // The commit id comes first: a lost reply is no conflict.
  const auto journal = image->journals.find(record.commit.journal);
  if (!record.commit.journal.is_zero() && journal != image->journals.end()) {
    const Journal& newest = journal->second;
    if (newest.newest == record.commit)
      return CommitAnswer{newest.version, newest.sequence, true, {}};
    if (record.commit.epoch <= newest.newest.epoch) {
      return make_error(
          ErrorCode::kOtherHistory,
          "this journal has already committed epoch " + std::to_string(newest.newest.epoch),
          "the journal was restored from a copy: store its writes as a branch");
    }
  }
  if (record.commit.journal.is_zero() && !id.is_zero() && image->info.head == id) {
    return CommitAnswer{id, record.sequence, true, {}};
  }
  DIMS_TRY(check_lease_locked(*image, order.lease, order.token));
  if (!(order.parent == image->info.head)) {
    return make_error(ErrorCode::kConflict,
                      "the head of image '" + image->info.name + "' is another version",
                      "store the writes as a branch, or start again from the head");
  }
  if (record.sequence != image->info.head_sequence + 1 ||
      record.image_bytes != image->info.image_bytes) {
    return make_error(ErrorCode::kInvalidArgument,
                      "sequence or size of the record does not fit the image");
  }
  CommitAnswer answer;
  answer.missing = missing_locked(record.root);
  if (!answer.missing.empty()) return answer;
  versions_[id] = {order.record, record};
  image->info.head = id;
  image->info.head_sequence = record.sequence;
  if (!record.commit.journal.is_zero()) {
    image->journals[record.commit.journal] = {record.commit, id, record.sequence};
  }
  answer.version = id;
  answer.sequence = record.sequence;
  ServerEvent event;
  event.kind = ServerEvent::Kind::kNewVersion;
  event.image = order.image;
  event.version = id;
  event.sequence = record.sequence;
  event.who = image->holder;
  announce_locked(event);
  return answer;
}

Result<Bytes> FakeServer::get_object(const ImageId& image, const ObjectKey& key) {
  std::lock_guard lock(mutex_);
  DIMS_TRY(image_locked(image));
  ++totals_.gets;
  const auto found = objects_.find(key);
  if (found == objects_.end()) {
    return make_error(ErrorCode::kNotFound,
                      "object " + key.id.short_hex() + " is not in the store");
  }
  totals_.bytes_sent += found->second.size();
  return found->second;
}

Result<std::vector<bool>> FakeServer::has(const ImageId& image, std::span<const ObjectKey> keys) {
  std::lock_guard lock(mutex_);
  DIMS_TRY(image_locked(image));
  std::vector<bool> out;
  for (const ObjectKey& key : keys) out.push_back(objects_.contains(key));
  return out;
}

Result<std::uint64_t> FakeServer::put(const ImageId& image,
                                      std::span<const contract::Remote::PutItem> items) {
  std::lock_guard lock(mutex_);
  DIMS_TRY(image_locked(image));
  for (const auto& item : items) {
    const auto head = format::parse_head(item.object);
    if (!head.ok()) return head.error();
    if (!(format::object_id(item.object) == item.key.id) || !(head->domain == item.key.domain)) {
      return make_error(ErrorCode::kCorrupt,
                        "object " + item.key.id.short_hex() + " does not have its id");
    }
  }
  std::uint64_t fresh = 0;
  for (const auto& item : items) {
    totals_.bytes_received += item.object.size();
    const bool stored =
        objects_.try_emplace(item.key, Bytes(item.object.begin(), item.object.end())).second;
    ++(stored ? totals_.puts_stored : totals_.puts_present);
    if (stored) ++fresh;
  }
  return fresh;
}

Result<format::ObjectKey> FakeServer::root_locked(const ImageId& image,
                                                  const VersionId& version) const {
  if (version.is_zero()) return ObjectKey{};
  const auto found = versions_.find(version);
  if (found == versions_.end()) {
    return make_error(ErrorCode::kOtherHistory, "version " + version.short_hex() + " of image " +
                                                    image.hex() + " is not known here");
  }
  return found->second.record.root;
}

std::vector<format::ObjectKey> FakeServer::nodes_locked(const ObjectKey& root,
                                                        const std::set<ObjectKey>& stop) const {
  std::vector<ObjectKey> out;
  std::set<ObjectKey> seen = stop;
  if (!root.id.is_zero() && seen.insert(root).second) out.push_back(root);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto found = objects_.find(out[i]);
    if (found == objects_.end()) continue;
    const auto head = format::parse_head(found->second);
    if (!head.ok() || head->level < 2) continue;
    for (const ObjectKey& child : head->children) {
      if (seen.insert(child).second) out.push_back(child);
    }
  }
  return out;
}

Result<contract::DiffPart> FakeServer::diff(const ImageId& image, const VersionId& old_version,
                                            const VersionId& new_version) {
  std::lock_guard lock(mutex_);
  DIMS_TRY(image_locked(image));
  // An old version that nobody knows counts as an empty tree: the list is then all of the new one.
  const auto known = root_locked(image, old_version);
  const ObjectKey old_root = known.ok() ? *known : ObjectKey{};
  DIMS_ASSIGN(const ObjectKey new_root, root_locked(image, new_version));
  const std::vector<ObjectKey> old_nodes = nodes_locked(old_root, {});
  const std::set<ObjectKey> old_set(old_nodes.begin(), old_nodes.end());
  contract::DiffPart part;
  for (const ObjectKey& key : nodes_locked(new_root, old_set)) {
    const auto found = objects_.find(key);
    if (found == objects_.end()) {
      return make_error(ErrorCode::kNotFound,
                        "node " + key.id.short_hex() + " is not in the store");
    }
    part.keys.push_back(key);
    part.nodes.push_back(found->second);
  }
  const std::vector<ObjectKey> new_nodes = nodes_locked(new_root, {});
  const std::set<ObjectKey> new_set(new_nodes.begin(), new_nodes.end());
  for (const ObjectKey& key : old_nodes) {
    if (!new_set.contains(key)) part.removed.push_back(key);
  }
  return part;
}

contract::RemoteStoreInfo FakeServer::store_info() {
  std::lock_guard lock(mutex_);
  contract::RemoteStoreInfo info = totals_;
  info.objects = objects_.size();
  for (const auto& [key, bytes] : objects_) info.object_bytes += bytes.size();
  info.disk_bytes = info.object_bytes;
  info.images = images_.size();
  info.generation = generation_;
  return info;
}

std::size_t FakeServer::event_count() {
  std::lock_guard lock(mutex_);
  return events_.size();
}

std::optional<std::pair<ServerEvent, std::size_t>> FakeServer::event_after(
    std::size_t from, const std::vector<ImageId>& images, const SessionId& session) {
  std::lock_guard lock(mutex_);
  for (std::size_t i = from; i < events_.size(); ++i) {
    const Announcement& a = events_[i];
    if (a.only_for && !(*a.only_for == session)) continue;
    if (!images.empty() && std::find(images.begin(), images.end(), a.event.image) == images.end())
      continue;
    return std::pair{a.event, i + 1};
  }
  return std::nullopt;
}

std::uint64_t FakeServer::add_listener(std::function<void()> listener) {
  std::lock_guard lock(mutex_);
  listeners_.emplace(next_listener_, std::move(listener));
  return next_listener_++;
}

void FakeServer::remove_listener(std::uint64_t listener) {
  std::lock_guard lock(mutex_);
  listeners_.erase(listener);
}

void FakeServer::expire_leases() {
  std::lock_guard lock(mutex_);
  for (auto& [id, image] : images_) image.expired = image.held;
}

void FakeServer::change_generation() {
  std::lock_guard lock(mutex_);
  generation_ = random_.id<GenerationId>();
}

void FakeServer::damage_object(const ObjectKey& key) {
  std::lock_guard lock(mutex_);
  const auto found = objects_.find(key);
  if (found != objects_.end()) found->second[found->second.size() / 2] ^= 1;
}

void FakeServer::let_go(const VersionId& version) {
  std::lock_guard lock(mutex_);
  versions_.erase(version);
  std::set<ObjectKey> needed;
  for (const auto& [id, image] : images_) {
    const auto head = versions_.find(image.info.head);
    if (head == versions_.end()) continue;
    for (const ObjectKey& node : nodes_locked(head->second.record.root, {})) {
      needed.insert(node);
      const auto object = objects_.find(node);
      if (object == objects_.end()) continue;
      const auto parsed = format::parse_head(object->second);
      if (parsed.ok()) needed.insert(parsed->children.begin(), parsed->children.end());
    }
  }
  std::erase_if(objects_, [&](const auto& object) { return !needed.contains(object.first); });
  std::erase_if(complete_, [&](const ObjectKey& key) { return !needed.contains(key); });
}

void FakeServer::drop_object(const ObjectKey& key) {
  std::lock_guard lock(mutex_);
  objects_.erase(key);
  complete_.clear();
}

std::vector<format::ObjectKey> FakeServer::all_objects() {
  std::lock_guard lock(mutex_);
  std::vector<ObjectKey> out;
  for (const auto& [key, bytes] : objects_) out.push_back(key);
  std::sort(out.begin(), out.end());
  return out;
}

std::size_t FakeServer::object_count() {
  std::lock_guard lock(mutex_);
  return objects_.size();
}

std::size_t FakeServer::open_sessions(const ImageId& id) {
  std::lock_guard lock(mutex_);
  const auto found = images_.find(id);
  return found == images_.end() ? 0 : found->second.sessions.size();
}

VersionId FakeServer::head(const ImageId& id) {
  std::lock_guard lock(mutex_);
  const auto found = images_.find(id);
  return found == images_.end() ? VersionId{} : found->second.info.head;
}

}  // namespace dims::test
