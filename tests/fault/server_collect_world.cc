#include "tests/fault/server_collect_world.h"

#include <algorithm>

namespace dims::test {
namespace {

constexpr std::uint64_t kImageBytes = 64 * kMiB;
constexpr std::size_t kChunks = 24;
constexpr std::size_t kLeaves = 24;
constexpr std::size_t kTrees = 48;

const crypto::SigningKey& signer() {
  static const crypto::SigningKey key = crypto::signing_key_from_seed(Secret32{});
  return key;
}

}  // namespace

TreePool::TreePool(std::uint64_t seed) {
  SeededRandom random(seed);
  domain.bytes[0] = 9;
  const format::DomainKey key(domain, 1, Secret32{});
  std::vector<const SealedObject*> chunks, leaves;
  for (std::size_t i = 0; i < kChunks; ++i) {
    Bytes page(kPageBytes);
    random.fill(MutByteView(page).first(16));
    chunks.push_back(&sealed.emplace_back(format::seal_chunk(key, page)));
  }
  const auto node = [&](std::uint8_t level, const std::vector<const SealedObject*>& children) {
    std::vector<ObjectKey> keys;
    for (const SealedObject* child : children) keys.push_back(child->ref.object_key());
    Bytes data(16);
    random.fill(data);
    const auto kind = level == 1 ? format::ObjectKind::kLeaf : format::ObjectKind::kInner;
    return &sealed.emplace_back(format::seal_node(key, kind, level, keys, data));
  };
  const auto some = [&](const std::vector<const SealedObject*>& of) {
    std::vector<const SealedObject*> out;
    for (std::size_t n = 1 + random.below(3); n > 0; --n)
      out.push_back(of[random.below(of.size())]);
    return out;
  };
  std::map<const SealedObject*, std::vector<const SealedObject*>> below;
  for (std::size_t i = 0; i < kLeaves; ++i) {
    const auto children = some(chunks);
    leaves.push_back(node(1, children));
    below[leaves.back()] = children;
  }
  for (std::size_t i = 0; i < kTrees; ++i) {
    const auto children = some(leaves);
    const SealedObject* const root = node(2, children);
    Tree tree;
    for (const SealedObject* leaf : children) {
      for (const SealedObject* chunk : below[leaf]) tree.objects.push_back(chunk);
      tree.objects.push_back(leaf);
    }
    tree.objects.push_back(root);
    tree.root = root->ref.object_key();
    trees.push_back(std::move(tree));
  }
  for (const SealedObject& object : sealed) by_key[object.ref.object_key()] = &object;
}

CollectWorld::CollectWorld(const TreePool& pool, std::uint64_t seed, Clock& clock,
                           std::function<void(std::chrono::seconds)> advance,
                           contract::ObjectStore& objects, contract::RefStore& refs)
    : pool_(pool),
      random_(seed),
      clock_(clock),
      advance_(std::move(advance)),
      bare_(&objects),
      objects_(objects),
      refs_(&refs) {
  const std::chrono::seconds graces[] = {std::chrono::seconds(0), std::chrono::hours(1),
                                         std::chrono::hours(24 * 7)};
  grace_ = graces[random_.below(3)];
  objects_.yield = [this] {
    if (!in_commit_ || in_collector_ || random_.below(3) != 0) return;
    for (std::uint64_t n = random_.below(random_.below(4) == 0 ? 40 : 4); n > 0; --n) {
      ++counts_.steps_inside_commits;
      if (random_.below(8) == 0) advance_(std::chrono::hours(random_.below(24 * 9)));
      collect_step();
    }
  };
  lasting_ = random_.below(6) != 0;
  (void)files_.make_folder("/runs");
  restart();
}

void CollectWorld::fail(const std::string& what) {
  if (failure_.empty()) failure_ = what;
}

void CollectWorld::restart() {
  // Stopped, or killed.
  if (collector_ && random_.below(3) == 0 && !collector_->save().ok()) fail("save");
  collector_.reset();
  catalog_.reset();
  if (reopen && catalog_opened_) {
    std::tie(bare_, refs_) = reopen();
    objects_.stand_on(*bare_);
  }
  catalog_opened_ = true;
  catalog::CatalogOptions options;
  options.lease_term = std::chrono::hours(24 * 365 * 100);  // a schedule may take years
  options.retention = {false, 1, 0, 0, 0};
  auto opened = catalog::Catalog::open(objects_, *refs_, GenerationId{}, clock_, random_, options);
  if (!opened.ok()) return fail("cannot open: " + opened.error().to_string());
  catalog_ = std::move(*opened);
}

CollectWorld::Client* CollectWorld::some_client() {
  return clients_.empty() ? nullptr : clients_[random_.below(clients_.size())].get();
}

void CollectWorld::make_image() {
  auto client = std::make_unique<Client>();
  contract::ImageInfo image;
  image.id = random_.id<ImageId>();
  image.name = "i" + std::to_string(++names_);
  image.image_bytes = kImageBytes;
  image.domain = pool_.domain;
  if (const Client* const origin = some_client(); origin != nullptr && random_.below(2) == 0) {
    if (!origin->versions.empty()) {
      image.origin = origin->versions[random_.below(origin->versions.size())];
    }
  }
  const auto made = catalog_->create_image(image);
  if (!made.ok()) {
    // The version that it was to begin as may be gone, and then says so.
    if (image.origin.is_zero() || made.error().code != ErrorCode::kNotFound) {
      fail("create: " + made.error().to_string());
    }
    return;
  }
  if (!image.origin.is_zero()) {
    ++counts_.branches;
    if (!complete(image.origin, nullptr)) fail("a branch of a version that is not complete");
  }
  contract::LeaseRequest request;
  request.image = image.id;
  request.session.bytes[0] = 1;
  const auto lease = catalog_->acquire_lease(request);
  if (!lease.ok()) return fail("lease: " + lease.error().to_string());
  client->image = image.id;
  client->name = image.name;
  client->lease = *lease;
  client->journal = random_.id<JournalId>();
  clients_.push_back(std::move(client));
}

void CollectWorld::upload_step(Client& client) {
  if (!client.upload) {
    client.upload = Upload{&pool_.trees[random_.below(pool_.trees.size())], 0};
    if (random_.below(8) == 0) client.upload->next = client.upload->tree->objects.size();
  }
  Upload& upload = *client.upload;
  if (upload.next == upload.tree->objects.size()) return commit(client);
  const SealedObject& object = *upload.tree->objects[upload.next];
  const ObjectKey key = object.ref.object_key();
  if (random_.below(2) == 0) {
    const auto present = objects_.touch_present(std::span(&key, 1));
    if (!present.ok()) return fail("has: " + present.error().to_string());
    if (present->front()) {
      ++upload.next;
      return;
    }
  }
  const contract::ObjectStore::PutItem item{key, object.bytes};
  const auto put = objects_.put(std::span(&item, 1));
  if (!put.ok()) return fail("put: " + put.error().to_string());
  ++upload.next;
}

void CollectWorld::commit(Client& client) {
  const auto now = catalog_->get_image(client.image);
  if (!now.ok()) return fail("get: " + now.error().to_string());
  format::VersionRecord record;
  record.parent = now->head;
  record.image = client.image;
  record.root = client.upload->tree->root;
  record.image_bytes = kImageBytes;
  record.tree = now->tree;
  record.sequence = now->head_sequence + 1;
  record.commit = {client.journal, ++client.epoch, random_.id<Digest>()};
  record.time_unix_ns = static_cast<std::uint64_t>(clock_.wall().count());
  contract::CommitOrder order;
  order.image = client.image;
  order.lease = client.lease.lease;
  order.token = client.lease.token;
  order.parent = record.parent;
  order.record = format::encode_version(record, signer());
  in_commit_ = true;
  const auto answer = catalog_->commit(order);
  in_commit_ = false;
  if (!answer.ok()) return fail("commit: " + answer.error().to_string());
  if (!answer->missing.empty()) {
    ++counts_.missing;
    // As clients do: send again, children before parents, from wherever it may be.
    client.upload->next = 0;
    return;
  }
  ++counts_.commits;
  client.upload.reset();
  client.versions.push_back(answer->version);
  if (!complete(answer->version, nullptr)) fail("a commit that is not complete");
}

void CollectWorld::open_session(Client& client) {
  contract::SessionRequest request;
  request.image = client.image;
  request.session = random_.id<SessionId>();
  request.mode = "shared";
  if (!client.versions.empty() && random_.below(2) == 0) {
    request.base = client.versions[random_.below(client.versions.size())];
  }
  const auto opened = catalog_->open_session(request);
  if (!opened.ok()) {
    if (request.base.is_zero() || opened.error().code != ErrorCode::kNotFound) {
      fail("open: " + opened.error().to_string());
    }
    return;
  }
  client.sessions.insert(request.session);
  const VersionId base = request.base.is_zero() ? opened->image.head : request.base;
  if (!base.is_zero() && !complete(base, nullptr)) fail("a session on what is not complete");
}

void CollectWorld::close_session(Client& client) {
  if (client.sessions.empty()) return;
  const SessionId session = *client.sessions.begin();
  client.sessions.erase(client.sessions.begin());
  if (!catalog_->close_session(client.image, session).ok()) fail("close");
}

void CollectWorld::remove_image() {
  if (clients_.empty()) return;
  const std::size_t at = random_.below(clients_.size());
  Client& client = *clients_[at];
  if (!catalog_->release_lease(client.image, client.lease).ok()) fail("release");
  const Status removed = catalog_->remove_image(client.image);
  if (!removed.ok()) return fail("remove: " + removed.error().to_string());
  ++counts_.removals;
  clients_.erase(clients_.begin() + static_cast<std::ptrdiff_t>(at));
}

void CollectWorld::set_retention(Client& client) {
  catalog::RetentionPolicy policy{random_.below(5) == 0,
                                  static_cast<std::uint32_t>(random_.below(3)),
                                  static_cast<std::uint32_t>(random_.below(2)),
                                  static_cast<std::uint32_t>(random_.below(2)), 0};
  if (!catalog_->set_retention(client.image, policy).ok()) fail("retention");
}

catalog::CollectorOptions CollectWorld::collector_options() {
  catalog::CollectorOptions options;
  options.upload_grace = grace_;
  options.save_every = std::chrono::hours(24 * 365 * 100);  // as the schedule says
  if (lasting_) options.space.fs = &files_;
  options.space.folder = "/runs";
  return options;
}

void CollectWorld::start_collection() {
  if (collector_) return;
  catalog::CollectorOptions options = collector_options();
  options.dry_run = random_.below(10) == 0;
  options.rows_a_step = 1 + random_.below(12);
  options.nodes_a_step = 1 + random_.below(3);
  options.space.keys_in_memory_max = random_.below(2) == 0 ? 3 : 1000;
  options.space.files_max = 3;
  collector_ = std::make_unique<catalog::Collector>(*catalog_, objects_, clock_, options);
  ++counts_.collections;
}

void CollectWorld::collect_step() {
  if (!collector_) return;
  in_collector_ = true;
  const bool first = collector_->phase() == catalog::CollectorPhase::kRoots;
  const auto more = collector_->step();
  if (first && collector_->figures().resumed != 0) {
    ++counts_.resumed;
    if (collector_->phase() == catalog::CollectorPhase::kSweep) ++counts_.resumed_sweeps;
  }
  if (more.ok() && *more && random_.below(5) == 0) {
    ++counts_.saves;
    if (!collector_->save().ok()) fail("save");
  }
  in_collector_ = false;
  if (!more.ok()) fail("collection: " + more.error().to_string());
  if (more.ok() && *more) return;
  counts_.swept += collector_->figures().removed;
  counts_.spared += collector_->figures().spared;
  counts_.dropped += collector_->figures().roots.versions_dropped;
  collector_.reset();
}

bool CollectWorld::complete(const VersionId& version, std::set<ObjectKey>* all) {
  const auto row = refs_->get(catalog::version_key(version));
  if (!row.ok() || !*row) return false;
  const auto record = format::decode_version((*row)->value, false);
  if (!record.ok()) return false;
  std::vector<ObjectKey> todo{record->root};
  while (!todo.empty()) {
    const ObjectKey key = todo.back();
    todo.pop_back();
    if (all != nullptr) all->insert(key);
    const auto there = bare_->has(std::span(&key, 1));
    if (!there.ok() || !there->front()) return false;
    const auto head = format::parse_head(pool_.by_key.at(key)->bytes);
    todo.insert(todo.end(), head->children.begin(), head->children.end());
  }
  return true;
}

// Every version that a living image leads to, or a session or a branch stands on, is complete,
// unless retention let it go; and it lets no head, base or origin go.
void CollectWorld::check_all(std::set<ObjectKey>* all) {
  std::set<VersionId> seen;
  const auto must = [&](const VersionId& version, const char* what) {
    if (version.is_zero()) return;
    const auto gone = catalog_->is_gone(version);
    if (!gone.ok() || *gone) return fail(std::string(what) + " was let go");
    if (!complete(version, all)) fail(std::string(what) + " is not complete");
  };
  for (const contract::ImageInfo& image : catalog_->list_images("", 1000)) {
    must(image.head, "a head");
    must(image.origin, "an origin");
    bool own = true;
    for (VersionId at = image.head; !at.is_zero() && seen.insert(at).second;) {
      const auto row = refs_->get(catalog::version_key(at));
      if (!row.ok() || !*row) {
        if (own) fail("the record of a version is gone");
        break;
      }
      const auto record = format::decode_version((*row)->value, false);
      own = record->image == image.id;
      const auto gone = catalog_->is_gone(at);
      if (gone.ok() && !*gone && (own || catalog_->get_image(record->image).ok())) {
        must(at, "a version that is kept");
      }
      at = record->parent;
    }
  }
  // Also what no image leads to: as long as its record is there, somebody may ask for it.
  const auto versions = refs_->list(catalog::kVersionPrefix, "", 10'000);
  for (const auto& [key, value] : *versions) {
    const auto id = VersionId::from_hex_text(std::string_view(key).substr(8));
    const auto gone = catalog_->is_gone(*id);
    if (gone.ok() && !*gone && !complete(*id, nullptr)) fail("a version with a record lost data");
  }
  const auto sessions = refs_->list("session/", "", 1000);
  for (const auto& [key, value] : *sessions)
    must(catalog::decode_session(value.value)->base, "a base");
}

void CollectWorld::step() {
  Client* const client = some_client();
  switch (random_.below(24)) {
    case 0:
      if (clients_.size() < 4) make_image();
      return;
    case 1:
      if (clients_.size() < 6) make_image();
      return;
    case 2:
      if (random_.below(4) == 0) remove_image();
      return;
    case 3:
      if (client != nullptr) open_session(*client);
      return;
    case 4:
      if (client != nullptr) close_session(*client);
      return;
    case 5:
      if (client != nullptr && random_.below(4) == 0) set_retention(*client);
      return;
    case 6:
      advance_(std::chrono::seconds(random_.below(7200)));
      return;
    case 7:
      if (random_.below(3) == 0) advance_(std::chrono::hours(random_.below(24 * 10)));
      // Nothing may depend on the clock: sometimes it is set back.
      if (random_.below(16) == 0) advance_(-std::chrono::hours(random_.below(24 * 4)));
      return;
    case 8:
      if (random_.below(collector_ ? 2 : 6) == 0) {
        ++counts_.restarts;
        restart();
        if (random_.below(2) == 0) start_collection();
      }
      return;
    case 9:
    case 10:
      return start_collection();
    case 11:
    case 12:
    case 13:
    case 14:
      for (std::uint64_t n = random_.below(random_.below(4) == 0 ? 40 : 4) + 1; n > 0; --n) {
        collect_step();
      }
      return;
    default:
      if (client != nullptr) upload_step(*client);
      return;
  }
}

void CollectWorld::check_end() {
  // What half-sent uploads left is garbage once their grace is over.
  advance_(std::chrono::hours(24 * 30));
  for (int round = 0; round < 3 && failure_.empty(); ++round) {  // one may only end an old one
    while (collector_ && failure_.empty()) collect_step();
    advance_(std::chrono::hours(24 * 30));
    collector_ =
        std::make_unique<catalog::Collector>(*catalog_, objects_, clock_, collector_options());
    while (collector_ && failure_.empty()) collect_step();
  }
  if (!refs_->list(catalog::kCollectStateKey, "", 1)->empty()) fail("a state is left");
  if (!files_.list("/runs")->empty()) fail("run files are left");
  std::set<ObjectKey> live;
  check_all(&live);
  const auto left = bare_->list({}, 100'000);
  if (!left.ok()) return fail("list");
  for (const ObjectKey& key : *left) {
    if (!live.contains(key)) fail("garbage is left");
  }
}

std::string CollectWorld::run(std::size_t steps) {
  make_image();
  for (std::size_t n = 0; n < steps && failure_.empty(); ++n) {
    step();
    if (random_.below(32) == 0) check_all(nullptr);
  }
  if (failure_.empty()) check_all(nullptr);
  if (failure_.empty()) check_end();
  return failure_;
}

}  // namespace dims::test
