// What a clever server would try: lies that fit together. Names: situation_outcome.
#include "common/client/access_client.h"
#include "tests/contract/hostile_world.h"

using namespace dims;
using namespace dims::test;

namespace {

struct Attack {
  HostileWorld w;
  ldim::SessionKeys disk_session = w.login(w.laptop, "disk");
  ldim::SessionKeys scratch_session = w.login(w.laptop, "scratch");
  SimFileSystem fs;

  // Versions as the server has them.
  v1::Version version(const ImageId& image, std::uint64_t sequence) {
    const auto info = w.world->catalog->get_version(image, {}, sequence);
    REQUIRE(info.ok());
    v1::Version out;
    out.set_id(field(info->id.view()));
    out.set_record(field(info->record_bytes));
    return out;
  }
  // An honest start, so that the folder knows the head.
  void know_head() {
    auto worker = w.work(w.laptop, disk_session);
    auto disk = w.open_disk(worker, "disk", fs);
    REQUIRE(disk.ok());
    REQUIRE(difference(DiskFixture::read_all(**disk), w.contents[2]) == "");
    end_session(**disk);
  }
  static void end_session(ldim::Disk& disk) {
    require_ok(disk.client_connected());
    disk.client_left(true);
    (void)disk.close(std::chrono::seconds(1)).ok();
  }
  // Says that `head` is the image's, and whatever fits it.
  void pretend_head(const v1::Version& head, std::uint64_t sequence,
                    const std::vector<v1::Version>& list, bool as_origin = false) {
    w.proxy->set_liar([=](const PassingReply& reply) {
      if (reply.method == "GetImage") {
        auto image = parsed<v1::Image>(reply.message);
        image.set_head(head.id());
        image.set_head_sequence(sequence);
        if (as_origin) image.set_origin(head.id());
        return Told{{image.SerializeAsString()}, {}};
      }
      if (reply.method == "ListVersions") {
        Told told;
        for (const v1::Version& one : list) told.messages.push_back(one.SerializeAsString());
        told.end = grpc::Status::OK;
        return told;
      }
      return Told{{reply.message}, {}};
    });
    // The server itself does not know it as this image's: it is told in its place.
    w.proxy->set_interceptor(
        [=](const std::string& method, const std::string& request) -> std::optional<Told> {
          if (method != "GetVersion") return std::nullopt;
          if (parsed<v1::GetVersionRequest>(request).version() != head.id()) return std::nullopt;
          return Told{{head.SerializeAsString()}, grpc::Status::OK};
        });
  }
  // Opened under the lie it is refused, and afterwards all is as it was.
  void expect_refusal(ErrorCode code) {
    {
      auto worker = w.work(w.laptop, disk_session);
      auto disk = w.open_disk(worker, "disk", fs);
      if (disk.ok()) CHECK(difference(DiskFixture::read_all(**disk), w.contents[2]) == "");
      CHECK(!disk.ok());
      if (!disk.ok()) {
        INFO(disk.error().to_string());
        CHECK(disk.error().code == code);
        CHECK(!disk.error().hint.empty());
      }
    }
    w.proxy->honest();
    w.next_minute();
    for (int start = 1; start <= 2; ++start) {
      auto worker = w.work(w.laptop, disk_session);
      auto disk = w.open_disk(worker, "disk", fs);
      INFO((disk.ok() ? "" : disk.error().to_string()));
      REQUIRE(disk.ok());
      CHECK(difference(DiskFixture::read_all(**disk), w.contents[2]) == "");
      end_session(**disk);
    }
  }

  // A session with a write that the server answers as `lie` says; then it is honest again.
  void write_under(const std::function<Told(const PassingReply&)>& lie) {
    Bytes model = w.scratch_content;
    auto worker = w.work(w.laptop, scratch_session);
    {
      auto disk = w.open_disk(worker, "scratch", fs);
      REQUIRE(disk.ok());
      w.proxy->set_liar(lie);
      write_at(**disk, model, 123'456, 70'000, 0x5c);
      require_ok((*disk)->flush());
      (void)(*disk)->sync(true, std::chrono::milliseconds(1500)).ok();
      CHECK(difference(DiskFixture::read_all(**disk), model) == "");
      (void)(*disk)->close(std::chrono::milliseconds(0)).ok();
    }
    w.proxy->honest();
    w.next_minute();
    auto again = w.work(w.laptop, scratch_session);
    auto disk = w.open_disk(again, "scratch", fs);
    INFO((disk.ok() ? "" : disk.error().to_string()));
    REQUIRE(disk.ok());
    DiskFixture::sync(**disk);
    CHECK(difference(DiskFixture::read_all(**disk), model) == "");
    bool found = false;
    const auto images = again.remote->list_images();
    REQUIRE(images.ok());
    for (const auto& image : *images) {
      if (image.name != "scratch" && image.conflict_of != "scratch") continue;
      found = found || difference(read_version(*again.remote, *again.keys, image.id, image.head),
                                  model) == "";
    }
    CHECK(found);
  }
};

}  // namespace

TEST_CASE("an_older_head_padded_with_newer_versions_is_no_descendant") {
  Attack a;
  a.know_head();
  const auto v2 = a.version(a.w.disk, 2), v3 = a.version(a.w.disk, 3);
  a.pretend_head(v2, 9, {v2, v3, a.version(a.w.disk, 1)});
  a.expect_refusal(ErrorCode::kUntrusted);
}

TEST_CASE("an_older_head_with_its_own_number_is_another_history") {
  Attack a;
  a.know_head();
  const auto v2 = a.version(a.w.disk, 2), v3 = a.version(a.w.disk, 3);
  a.pretend_head(v2, 2, {v2, v3});
  a.expect_refusal(ErrorCode::kOtherHistory);
}

TEST_CASE("a_fork_padded_with_a_child_of_the_known_version_is_another_history") {
  Attack a;
  const auto v2 = a.version(a.w.disk, 2), v3 = a.version(a.w.disk, 3);
  a.pretend_head(v2, 2, {});
  auto worker = a.w.work(a.w.laptop, a.disk_session);
  {
    auto disk = a.w.open_disk(worker, "disk", a.fs);
    REQUIRE(disk.ok());
    Attack::end_session(**disk);
  }
  // A writer who was shown version 1 as the head went on from there: all of it is signed.
  std::vector<v1::Version> fork;
  const auto first = a.w.world->catalog->get_version(a.w.disk, {}, 1);
  REQUIRE(first.ok());
  VersionId parent = first->id;
  format::VersionRecord record = first->record;
  const auto root = format::open_root(record, worker.keys->image_key(record));
  REQUIRE(root.ok());
  for (std::uint64_t sequence = 2; sequence <= 4; ++sequence) {
    record.parent = parent;
    record.sequence = sequence;
    record.machine = a.w.f.laptop.machine;
    record.time_unix_ns = static_cast<std::uint64_t>(system_clock().wall().count());
    format::seal_root_key(record, worker.keys->image_key(record), root->key, a.w.random);
    const Bytes bytes = format::encode_version(record, worker.keys->signing);
    parent = format::version_id(bytes);
    v1::Version version;
    version.set_id(field(parent.view()));
    version.set_record(field(bytes));
    fork.insert(fork.begin(), version);
  }
  // The second is not even a list: newest first is its order.
  const std::pair<std::vector<v1::Version>, ErrorCode> lists[] = {
      {{fork[0], v3}, ErrorCode::kOtherHistory},
      {{v3, fork[0]}, ErrorCode::kCorrupt},
      {{fork[0], fork[1]}, ErrorCode::kOtherHistory}};
  for (const auto& [list, code] : lists) {
    a.pretend_head(fork[0], 4, list);
    auto again = a.w.work(a.w.laptop, a.disk_session);
    const auto copy = a.fs.copy();
    const auto disk = a.w.open_disk(again, "disk", *copy);
    REQUIRE(!disk.ok());
    CHECK(disk.error().code == code);
  }
  a.pretend_head(fork[0], 4, {fork[0], v3});
  a.expect_refusal(ErrorCode::kOtherHistory);
}

TEST_CASE("a_branchs_version_is_no_head_of_the_image_even_if_it_descends") {
  Attack a;
  // The folder knows version 2 only: the branch's version stands on that.
  const auto v2 = a.version(a.w.disk, 2), branch = a.version(a.w.branch, 3);
  a.pretend_head(v2, 2, {});
  {
    auto worker = a.w.work(a.w.laptop, a.disk_session);
    auto disk = a.w.open_disk(worker, "disk", a.fs);
    REQUIRE(disk.ok());
    Attack::end_session(**disk);
  }
  for (const bool as_origin : {false, true}) {
    a.w.proxy->honest();
    const auto before = a.fs.copy();
    a.pretend_head(branch, 3, {branch, v2}, as_origin);
    auto worker = a.w.work(a.w.laptop, a.disk_session);
    auto disk = a.w.open_disk(worker, "disk", *before);
    REQUIRE(!disk.ok());
    CHECK(disk.error().code == ErrorCode::kUntrusted);
  }
  a.pretend_head(branch, 3, {branch, v2});
  a.expect_refusal(ErrorCode::kUntrusted);
}

TEST_CASE("another_images_version_is_no_head_not_even_as_its_origin") {
  for (const bool as_origin : {false, true}) {
    Attack a;
    const auto others = a.version(a.w.other, 2);
    a.pretend_head(others, 2, {others}, as_origin);
    a.expect_refusal(ErrorCode::kUntrusted);
  }
}

TEST_CASE("a_rollback_after_a_conflict_branch_is_seen") {
  Attack a;
  a.know_head();
  Bytes model = a.w.contents[2];
  {
    // The server provokes a branch; the session ends there.
    auto worker = a.w.work(a.w.laptop, a.disk_session);
    auto disk = a.w.open_disk(worker, "disk", a.fs);
    REQUIRE(disk.ok());
    a.w.proxy->set_liar([&, v2 = a.version(a.w.disk, 2)](const PassingReply& reply) {
      if (reply.method != "GetImage") return Told{{reply.message}, {}};
      auto image = parsed<v1::Image>(reply.message);
      if (image.id() == field(a.w.disk.view())) {
        image.set_head(v2.id());
        image.set_head_sequence(2);
      }
      return Told{{image.SerializeAsString()}, {}};
    });
    a.w.proxy->set_interceptor(
        [&](const std::string& method, const std::string& request) -> std::optional<Told> {
          if (method != "Commit") return std::nullopt;
          if (parsed<v1::CommitRequest>(request).image() != field(a.w.disk.view()))
            return std::nullopt;
          v1::ErrorDetail detail;
          detail.set_code("conflict");
          detail.set_message("somebody was faster");
          return Told{
              {}, grpc::Status(grpc::StatusCode::ABORTED, "conflict", detail.SerializeAsString())};
        });
    write_at(**disk, model, 5000, 9000, 0x77);
    require_ok((*disk)->flush());
    DiskFixture::sync(**disk);
    CHECK((*disk)->status(false)["branch"] != "");
    CHECK(difference(DiskFixture::read_all(**disk), model) == "");
    Attack::end_session(**disk);
  }
  a.w.next_minute();
  const auto v2 = a.version(a.w.disk, 2);
  a.pretend_head(v2, 2, {v2});
  a.expect_refusal(ErrorCode::kOtherHistory);
}

TEST_CASE("a_commit_answered_with_an_older_version_empties_no_journal") {
  Attack a;
  const std::string first = a.version(a.w.scratch, 1).id();
  a.write_under([&](const PassingReply& reply) {
    if (reply.method != "Commit") return Told{{reply.message}, {}};
    auto answer = parsed<v1::CommitReply>(reply.message);
    answer.set_version(first);
    answer.set_repeated(true);
    return Told{{answer.SerializeAsString()}, {}};
  });
}

TEST_CASE("a_version_forged_with_our_commit_point_is_not_taken_for_ours") {
  // All zeros, or the base's own tree: what a server can say without any key.
  for (const bool zeros : {true, false}) {
    Attack a;
    const auto base = a.w.world->catalog->get_version(a.w.scratch, {}, 1);
    REQUIRE(base.ok());
    const auto forger = crypto::signing_key_from_seed(a.w.random.id<Secret32>());
    std::mutex mutex;
    std::optional<v1::Version> forged;
    a.w.proxy->set_interceptor(
        [&](const std::string& method, const std::string& request) -> std::optional<Told> {
          const std::lock_guard lock(mutex);
          if (method == "Commit") {
            const auto commit = parsed<v1::CommitRequest>(request);
            auto record = format::decode_version(as_bytes(commit.record()), false);
            if (!record.ok() || commit.image() != field(a.w.scratch.view())) return std::nullopt;
            if (zeros) {
              record->root = {};
            } else {
              record->root = base->record.root;
              record->sealed_root_key = base->record.sealed_root_key;
              record->sequence = base->record.sequence;
            }
            const Bytes bytes = format::encode_version(*record, forger);
            forged.emplace();
            forged->set_id(field(format::version_id(bytes).view()));
            forged->set_record(field(bytes));
            return Told{{}, grpc::Status(grpc::StatusCode::ABORTED, "conflict")};
          }
          if (method == "GetVersion" && forged)
            return Told{{forged->SerializeAsString()}, grpc::Status::OK};
          return std::nullopt;
        });
    a.write_under([&](const PassingReply& reply) {
      const std::lock_guard lock(mutex);
      if (reply.method != "GetImage" || !forged) return Told{{reply.message}, {}};
      auto image = parsed<v1::Image>(reply.message);
      if (image.id() == field(a.w.scratch.view())) image.set_head(forged->id());
      return Told{{image.SerializeAsString()}, {}};
    });
  }
}

TEST_CASE("an_image_said_to_be_of_another_domain_gets_no_chunk_sealed_for_it") {
  Attack a;
  const std::string organisation = field(a.w.f.domain.view());
  a.w.proxy->set_liar([&](const PassingReply& reply) {
    if (reply.method != "GetImage") return Told{{reply.message}, {}};
    auto image = parsed<v1::Image>(reply.message);
    image.set_domain(organisation);
    return Told{{image.SerializeAsString()}, {}};
  });
  a.w.next_minute();
  const auto session =
      ldim::log_in(HostileWorld::wish(a.w.laptop, "disk"), as_bytes(HostileWorld::kPassphrase));
  if (session.ok()) {
    auto worker = a.w.work(a.w.laptop, *session);
    const auto disk = a.w.open_disk(worker, "disk", a.fs);
    REQUIRE(!disk.ok());
    CHECK(disk.error().code == ErrorCode::kUntrusted);
  }
  a.w.proxy->honest();
}

TEST_CASE("a_wrong_certificate_or_no_grants_today_take_nothing_from_tomorrow") {
  Attack a;
  // No grants at all, and somebody else's certificate for whoever signed.
  const auto session = field(a.disk_session.certificate);
  a.w.proxy->set_liar([&](const PassingReply& reply) {
    if (reply.method == "GetGrants") return Told{{v1::GetGrantsReply().SerializeAsString()}, {}};
    if (reply.method != "GetSessions") return Told{{reply.message}, {}};
    v1::GetSessionsReply wrong;
    wrong.add_certificates(session);
    return Told{{wrong.SerializeAsString()}, {}};
  });
  {
    auto worker = a.w.work(a.w.laptop, a.disk_session);
    const auto disk = a.w.open_disk(worker, "disk", a.fs);
    REQUIRE(!disk.ok());
    CHECK(disk.error().code == ErrorCode::kUntrusted);
  }
  a.w.next_minute();
  // The grants that were kept before serve.
  CHECK(ldim::log_in(HostileWorld::wish(a.w.laptop, "disk"), as_bytes(HostileWorld::kPassphrase))
            .ok());
  a.w.proxy->set_away(true);
  CHECK(ldim::log_in(HostileWorld::wish(a.w.laptop, "disk"), as_bytes(HostileWorld::kPassphrase))
            .ok());
  a.w.proxy->set_away(false);
  a.w.proxy->honest();
  auto worker = a.w.work(a.w.laptop, a.disk_session);
  const auto disk = a.w.open_disk(worker, "disk", a.fs);
  INFO((disk.ok() ? "" : disk.error().to_string()));
  REQUIRE(disk.ok());
  CHECK(difference(DiskFixture::read_all(**disk), a.w.contents[2]) == "");
}

TEST_CASE("another_image_under_a_known_name_is_noticed") {
  Attack a;
  const auto other = a.w.world->catalog->get_image(a.w.other);
  REQUIRE(other.ok());
  a.w.proxy->set_liar([&](const PassingReply& reply) {
    if (reply.method != "GetImage") return Told{{reply.message}, {}};
    auto image = parsed<v1::Image>(reply.message);
    if (image.name() == "disk") image.set_id(field(a.w.other.view()));
    return Told{{image.SerializeAsString()}, {}};
  });
  a.w.next_minute();
  const auto session =
      ldim::log_in(HostileWorld::wish(a.w.laptop, "disk"), as_bytes(HostileWorld::kPassphrase));
  REQUIRE(!session.ok());
  CHECK(session.error().code == ErrorCode::kConflict);
  a.w.proxy->honest();
}

TEST_CASE("a_list_of_images_without_end_is_refused") {
  Attack a;
  a.w.proxy->set_liar([](const PassingReply& reply) {
    if (reply.method != "ListImages") return Told{{reply.message}, {}};
    auto list = parsed<v1::ListImagesReply>(reply.message);
    list.set_more(true);
    return Told{{list.SerializeAsString()}, {}};
  });
  auto worker = a.w.work(a.w.laptop, a.disk_session);
  // The server begins again after the last name: nothing follows, and the list ends. One that does
  // not is told from it by its order.
  CHECK(worker.remote->list_images().ok());
  a.w.proxy->set_interceptor(
      [first = std::string()](const std::string& method,
                              const std::string&) mutable -> std::optional<Told> {
        if (method != "ListImages") return std::nullopt;
        v1::ListImagesReply list;
        v1::Image* const image = list.add_images();
        image->set_id(std::string(16, 'i'));
        image->set_name("again");
        image->set_image_bytes(4096);
        image->mutable_tree()->set_leaf_pages(256);
        image->mutable_tree()->set_fanout(32);
        image->mutable_tree()->set_chunk_mean_bytes(65536);
        list.set_more(true);
        return Told{{list.SerializeAsString()}, grpc::Status::OK};
      });
  const auto endless = worker.remote->list_images();
  REQUIRE(!endless.ok());
  CHECK(endless.error().code == ErrorCode::kCorrupt);
  a.w.proxy->honest();
}

TEST_CASE("a_list_of_versions_that_begins_again_is_refused") {
  Attack a;
  a.w.proxy->set_liar([](const PassingReply& reply) {
    if (reply.method != "ListVersions") return Told{{reply.message}, {}};
    return Told{{reply.message, reply.message}, {}};
  });
  auto worker = a.w.work(a.w.laptop, a.disk_session);
  const auto again = worker.remote->list_versions(a.w.disk, 0);
  REQUIRE(!again.ok());
  CHECK(again.error().code == ErrorCode::kCorrupt);
  a.w.proxy->honest();
  CHECK(worker.remote->list_versions(a.w.disk, 0).ok());
}

TEST_CASE("a_log_without_end_is_refused_before_it_fills_the_memory") {
  Attack a;
  a.w.proxy->set_interceptor(
      [](const std::string& method, const std::string&) -> std::optional<Told> {
        if (method != "GetLog") return std::nullopt;
        v1::GetLogReply part;
        part.add_records(std::string(16 * kMiB, 'r'));
        part.mutable_end()->set_seq(1'000'000);
        part.mutable_end()->set_hash(std::string(32, 'h'));
        return Told{std::vector<std::string>(40, part.SerializeAsString()), grpc::Status::OK};
      });
  auto access = client::AccessClient::connect(a.w.proxy->address(), {});
  REQUIRE(access.ok());
  const auto endless = (*access)->get_log(1);
  REQUIRE(!endless.ok());
  CHECK(endless.error().code == ErrorCode::kCorrupt);
  CHECK(endless.error().message.find("longer than 256 MiB") != std::string::npos);
  a.w.proxy->honest();
}

TEST_CASE("a_reply_that_cannot_be_read_holds_nobody_up_at_the_end") {
  Attack a;
  auto worker = a.w.work(a.w.laptop, a.disk_session);
  const auto image = worker.remote->get_image(a.w.disk);
  const auto head = worker.remote->get_version(a.w.disk, {}, 0);
  REQUIRE(image.ok());
  REQUIRE(head.ok());
  a.w.proxy->set_liar([](const PassingReply& reply) {
    const bool stream = reply.method == "Get" || reply.method == "Has";
    return Told{{stream ? std::string(40, '\xff') : reply.message}, {}};
  });
  const format::ObjectKey root = head->record.root;
  const Patience patience(std::chrono::milliseconds(1000), [&] { worker.remote->shutdown(); });
  CHECK(!worker.remote
             ->get(a.w.disk, {&root, 1}, contract::Priority::kDemand,
                   [](std::size_t, Result<Bytes>) {})
             .ok());
  CHECK(!worker.remote->has(a.w.disk, {&root, 1}).ok());
}
