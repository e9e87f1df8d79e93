// A member whose client is not the real one: what the real server refuses him, and what an honest
// client refuses when the server lets him pass. Names: situation_outcome.
#include "common/client/member_keys.h"
#include "tests/contract/hostile_world.h"

using namespace dims;
using namespace dims::test;
using trust::Access;
using trust::KeyScope;

namespace {

// Bob: may read carol's disk, may write the common image.
struct Member {
  HostileWorld w;
  std::string token = w.world->token_of(caller());
  crypto::SecretSigner session =
      crypto::SecretSigner::from_seed(crypto::SecretKey::random(w.random));

  access::Caller caller() {
    access::Caller out;
    out.kind = access::Caller::Kind::kUser;
    out.user = w.f.bob.user;
    return out;
  }
  trust::SessionCertificate certificate(const std::vector<trust::SessionImage>& images) {
    const std::uint64_t now = client::unix_now_s();
    return trust::make_session(w.f.state(), w.f.bob.user, {}, images, now, now + 3600, session,
                               w.f.bob.sign);
  }
  template <typename Stub, typename Request, typename Reply>
  grpc::Status call(Stub& stub,
                    grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
                    const Request& request, Reply* reply) {
    grpc::ClientContext context;
    w.world->say(context, token);
    return (stub.*method)(&context, request, reply);
  }
  grpc::Status put_session(const trust::SessionCertificate& certificate) {
    v1::PutSessionRequest request;
    request.set_certificate(field(trust::encode_session(certificate)));
    v1::PutSessionReply reply;
    return call(*w.world->people, &v1::Access::Stub::PutSession, request, &reply);
  }
  // A version of his making on top of the image's head.
  format::VersionRecord version_of(const ImageId& image, std::uint64_t sequence) {
    const auto head = w.world->catalog->get_version(image, {}, 0);
    REQUIRE(head.ok());
    format::VersionRecord out = head->record;
    out.parent = head->id;
    out.sequence = sequence;
    out.machine = {};
    out.time_unix_ns = static_cast<std::uint64_t>(system_clock().wall().count());
    return out;
  }
  Bytes signed_by_him(const format::VersionRecord& record) {
    return format::encode_version(record, {session.seed.key(), session.public_key});
  }
  grpc::Status commit(const ImageId& image, const Bytes& record, const std::string& parent,
                      v1::CommitReply* reply) {
    v1::AcquireLeaseRequest lease;
    lease.set_image(field(image.view()));
    lease.set_session(std::string(16, 's'));
    lease.set_machine(std::string(16, 'm'));
    lease.set_machine_name("bob's");
    lease.set_idempotency_key(std::string(16, 'k'));
    lease.set_take_over(true);
    v1::Lease granted;
    const auto got = call(*w.world->dims, &v1::Dims::Stub::AcquireLease, lease, &granted);
    v1::CommitRequest request;
    request.set_image(field(image.view()));
    request.set_lease(got.ok() ? granted.lease() : std::string(16, 'l'));
    request.set_token(granted.token());
    request.set_parent(parent);
    request.set_record(field(record));
    return call(*w.world->dims, &v1::Dims::Stub::Commit, request, reply);
  }
  // The server shows his version as the head, with that certificate.
  void show(const ImageId& image, const Bytes& record, const Bytes& certificate) {
    v1::Version version;
    version.set_id(field(format::version_id(record).view()));
    version.set_record(field(record));
    const std::uint64_t sequence = format::decode_version(record, false)->sequence;
    const std::string signer = field(session.public_key.view());
    w.proxy->set_liar([=, id = field(image.view())](const PassingReply& reply) {
      if (reply.method == "GetImage") {
        auto info = parsed<v1::Image>(reply.message);
        if (info.id() != id) return Told{{reply.message}, {}};
        info.set_head(version.id());
        info.set_head_sequence(sequence);
        return Told{{info.SerializeAsString()}, {}};
      }
      if (reply.method == "GetSessions" &&
          parsed<v1::GetSessionsRequest>(reply.request).session_keys(0) == signer) {
        v1::GetSessionsReply out;
        out.add_certificates(field(certificate));
        return Told{{out.SerializeAsString()}, {}};
      }
      return Told{{reply.message}, {}};
    });
    w.proxy->set_interceptor(
        [=](const std::string& method, const std::string& request) -> std::optional<Told> {
          if (method != "GetVersion" ||
              parsed<v1::GetVersionRequest>(request).version() != version.id())
            return std::nullopt;
          return Told{{version.SerializeAsString()}, grpc::Status::OK};
        });
  }
  void honest_client_refuses(const std::string& image) {
    w.next_minute();
    const ldim::SessionKeys keys = [&] {
      auto session_keys =
          ldim::log_in(HostileWorld::wish(w.laptop, image), as_bytes(HostileWorld::kPassphrase));
      INFO((session_keys.ok() ? "" : session_keys.error().to_string()));
      REQUIRE(session_keys.ok());
      return std::move(*session_keys);
    }();
    auto worker = w.work(w.laptop, keys);
    SimFileSystem fs;
    const auto disk = w.open_disk(worker, image, fs);
    REQUIRE(!disk.ok());
    INFO(disk.error().to_string());
    CHECK(disk.error().code == ErrorCode::kUntrusted);
  }
};

}  // namespace

TEST_CASE("a_reader_signs_a_version_and_nobody_takes_it") {
  Member m;
  const format::VersionRecord record = m.version_of(m.w.disk, 4);
  const Bytes bytes = m.signed_by_him(record);
  const trust::SessionImage reads{m.w.disk, Access::kRead}, writes{m.w.disk, Access::kWrite};
  const trust::SessionImage elsewhere{m.w.common, Access::kWrite};

  // The server.
  CHECK(!m.put_session(m.certificate({writes})).ok());  // claims more than he has
  REQUIRE(m.put_session(m.certificate({reads})).ok());
  v1::CommitReply reply;
  const auto refused = m.commit(m.w.disk, bytes, field(record.parent.view()), &reply);
  CHECK(refused.error_code() == grpc::StatusCode::PERMISSION_DENIED);
  CHECK(m.w.world->catalog->get_image(m.w.disk)->head_sequence == 3);

  // An honest client of a server that took it, with whatever certificate he can make.
  auto alien = m.certificate({reads});
  alien.user = m.w.carol.secrets.user;
  for (const auto& certificate :
       {m.certificate({writes}), m.certificate({reads}), m.certificate({elsewhere}), alien}) {
    m.show(m.w.disk, bytes, trust::encode_session(certificate));
    m.honest_client_refuses("disk");
    m.w.proxy->honest();
  }
}

TEST_CASE("a_removed_writer_puts_another_version_below_the_last_of_his_keys_and_nobody_takes_it") {
  Member m;
  const auto paper = m.certificate({{m.w.common, Access::kWrite}});
  REQUIRE(m.put_session(paper).ok());
  const auto first = m.w.world->catalog->get_version(m.w.common, {}, 1);
  REQUIRE(first.ok());
  const Secret32 key = m.w.f.key_of_epoch(trust::scope_id(m.w.common), 1);
  const auto version = [&](std::uint64_t sequence) {
    format::VersionRecord record = m.version_of(m.w.common, sequence);
    record.root = {};  // all zeros
    record.parent = sequence == 1 ? VersionId{} : first->id;
    format::seal_root_key(record, key, Secret32{}, m.w.random);
    return m.signed_by_him(record);
  };
  v1::CommitReply reply;
  const Bytes second = version(2);
  REQUIRE(m.commit(m.w.common, second, field(first->id.view()), &reply).ok());
  // He is removed, and new keys begin after version 2.
  const auto say = [&](const trust::Body& body) {
    m.w.f.say(body, m.w.f.admin.sign);
    access::OrgBook& book = m.w.world->control->book();
    REQUIRE(book.append(book.position(), {m.w.f.records.back()}).ok());
  };
  say(trust::UserState{m.w.f.bob.user, trust::UserStatus::kRemoved, trust::Role::kUser});
  auto epoch = m.w.f.epoch(KeyScope::kImage, trust::scope_id(m.w.common), 2);
  epoch.last_sequence = 2;
  epoch.last_version = format::version_id(second);
  say(epoch);
  m.w.grant(KeyScope::kImage, trust::scope_id(m.w.common), 2, m.w.carol.secrets, m.w.f.admin);
  {
    const auto keys = m.w.login(m.w.laptop, "common");
    auto worker = m.w.work(m.w.laptop, keys);
    SimFileSystem fs;
    const auto disk = m.w.open_disk(worker, "common", fs);
    INFO((disk.ok() ? "" : disk.error().to_string()));
    REQUIRE(disk.ok());  // what he made while he might stays
  }
  // Others in the places of 1 and 2, one more, and the one from before.
  for (const Bytes& other : {version(1), version(2), version(3), first->record_bytes}) {
    m.show(m.w.common, other, trust::encode_session(paper));
    m.honest_client_refuses("common");
    m.w.proxy->honest();
  }
}

TEST_CASE("a_writer_replays_anothers_version_and_the_server_refuses_it") {
  Member m;
  REQUIRE(m.put_session(m.certificate({{m.w.common, Access::kWrite}})).ok());
  const auto first = m.w.world->catalog->get_version(m.w.common, {}, 1);
  REQUIRE(first.ok());
  v1::CommitReply reply;
  const auto refused = m.commit(m.w.common, first->record_bytes, field(first->id.view()), &reply);
  CHECK(!refused.ok());
  // Nor his own for another image's place.
  format::VersionRecord record = m.version_of(m.w.common, 2);
  record.image = m.w.disk;
  CHECK(!m.commit(m.w.common, m.signed_by_him(record), field(record.parent.view()), &reply).ok());
  CHECK(m.w.world->catalog->get_image(m.w.common)->head_sequence == 1);
}

TEST_CASE("a_version_sealed_with_another_images_key_opens_for_nobody") {
  Member m;
  REQUIRE(m.put_session(m.certificate({{m.w.common, Access::kWrite}})).ok());
  format::VersionRecord record = m.version_of(m.w.common, 2);
  // He has disk's key as a reader. Its server cannot tell: it has no key.
  format::seal_root_key(record, m.w.f.key_of_epoch(trust::scope_id(m.w.disk), 1),
                        m.w.random.id<Secret32>(), m.w.random);
  v1::CommitReply reply;
  const auto taken =
      m.commit(m.w.common, m.signed_by_him(record), field(record.parent.view()), &reply);
  INFO(taken.error_message());
  REQUIRE(taken.ok());
  const auto keys = m.w.login(m.w.laptop, "common");
  auto worker = m.w.work(m.w.laptop, keys);
  SimFileSystem fs;
  const auto disk = m.w.open_disk(worker, "common", fs);
  REQUIRE(!disk.ok());
  CHECK(disk.error().code == ErrorCode::kWrongKey);
}

TEST_CASE("an_object_under_anothers_id_is_refused_and_harms_nothing") {
  Member m;
  const auto head = m.w.world->catalog->get_version(m.w.common, {}, 1);
  REQUIRE(head.ok());
  grpc::ClientContext context;
  m.w.world->say(context, m.token);
  const auto stream = m.w.world->dims->Put(&context);
  v1::PutRequest request;
  request.set_request(1);
  request.set_image(field(m.w.common.view()));
  auto* const key = request.add_keys();
  key->set_domain(field(head->record.root.domain.view()));
  key->set_id(field(head->record.root.id.view()));
  request.add_objects(std::string(600, 'x'));
  REQUIRE(stream->Write(request));
  v1::PutReply reply;
  if (stream->Read(&reply)) CHECK(reply.has_error());
  stream->WritesDone();
  while (stream->Read(&reply)) {
  }
  (void)stream->Finish().ok();
  const auto keys = m.w.login(m.w.laptop, "common");
  auto worker = m.w.work(m.w.laptop, keys);
  SimFileSystem fs;
  auto disk = m.w.open_disk(worker, "common", fs);
  REQUIRE(disk.ok());
  CHECK(difference(DiskFixture::read_all(**disk), m.w.other_content) == "");
}

TEST_CASE("a_forged_log_record_is_refused_by_server_and_client") {
  Member m;
  const auto session = m.w.login(m.w.laptop, "disk");  // the log is known here
  const std::vector<trust::Body> wishes = {
      trust::ImageAcl{m.w.disk, m.w.f.bob.user, Access::kAdmin},
      trust::UserState{m.w.f.bob.user, trust::UserStatus::kActive, trust::Role::kAdministrator},
      trust::UserState{m.w.carol.secrets.user, trust::UserStatus::kDisabled, trust::Role::kUser},
      trust::MachineRevoke{m.w.f.laptop.machine},
      trust::Body(m.w.f.epoch(KeyScope::kImage, trust::scope_id(m.w.disk), 2))};
  for (const trust::Body& wish : wishes) {
    const auto record = m.w.f.make(wish, m.w.f.bob.sign);
    v1::AppendLogRequest request;
    request.mutable_expected()->set_seq(m.w.f.log->position().seq);
    request.mutable_expected()->set_hash(field(m.w.f.log->position().hash.view()));
    request.add_records(field(record.bytes));
    v1::AppendLogReply reply;
    CHECK(!m.call(*m.w.world->people, &v1::Access::Stub::AppendLog, request, &reply).ok());

    m.w.proxy->set_liar([bytes = field(record.bytes)](const PassingReply& passing) {
      if (passing.method != "GetLog") return Told{{passing.message}, {}};
      auto page = parsed<v1::GetLogReply>(passing.message);
      page.add_records(bytes);
      return Told{{page.SerializeAsString()}, {}};
    });
    m.w.next_minute();
    const auto refused =
        ldim::log_in(HostileWorld::wish(m.w.laptop, "disk"), as_bytes(HostileWorld::kPassphrase));
    REQUIRE(!refused.ok());
    INFO(refused.error().to_string());
    CHECK((refused.error().code == ErrorCode::kUntrusted ||
           refused.error().code == ErrorCode::kPermissionDenied ||
           refused.error().code == ErrorCode::kCorrupt));
    m.w.proxy->honest();
  }
  CHECK(m.w.login(m.w.laptop, "disk").image == m.w.disk);
}

TEST_CASE("a_grant_that_is_not_his_to_make_is_refused_by_server_and_client") {
  Member m;
  // To carol, for her own image: a key that he knows. make_grant() itself would refuse him.
  const trust::ScopeId id = trust::scope_id(m.w.disk);
  const Secret32 known = m.w.random.id<Secret32>();
  const auto honest =
      trust::make_grant(m.w.f.state(), KeyScope::kImage, id, 1, m.w.f.key_of_epoch(id, 1),
                        m.w.carol.secrets.user, m.w.carol.secrets.user, m.w.carol.secrets.sign);
  REQUIRE(honest.ok());
  const auto his = trust::make_grant(m.w.f.state(), KeyScope::kImage, id, 1, known,
                                     m.w.carol.secrets.user, m.w.f.bob.user, m.w.f.bob.sign);
  CHECK(!his.ok());
  // So he takes hers and bends it: granter, box, recipient.
  for (const std::size_t at :
       {std::size_t{60}, honest->size() / 2, honest->size() - 70, honest->size() - 1}) {
    Bytes bent = *honest;
    bent[at] ^= 1;
    v1::PutGrantsRequest request;
    request.add_grants(field(bent));
    v1::PutGrantsReply reply;
    CHECK(!m.call(*m.w.world->people, &v1::Access::Stub::PutGrants, request, &reply).ok());
    m.w.proxy->set_liar([bytes = field(bent)](const PassingReply& passing) {
      if (passing.method != "GetGrants") return Told{{passing.message}, {}};
      v1::GetGrantsReply only;
      only.add_grants(bytes);
      return Told{{only.SerializeAsString()}, {}};
    });
    m.w.next_minute();
    const std::string fresh = m.w.copy_folder(m.w.desk, "fresh");
    std::filesystem::remove_all(fresh + "/grants");
    CHECK(
        !ldim::log_in(HostileWorld::wish(fresh, "disk"), as_bytes(HostileWorld::kPassphrase)).ok());
    m.w.proxy->honest();
  }
}

TEST_CASE("another_writers_version_with_our_commit_point_is_not_taken_for_ours") {
  Member m;
  const auto his = trust::encode_session(m.certificate({{m.w.common, Access::kWrite}}));
  const auto keys = m.w.login(m.w.laptop, "common");
  auto worker = m.w.work(m.w.laptop, keys);
  SimFileSystem fs;
  Bytes model = m.w.other_content;
  const format::VersionRecord base = m.version_of(m.w.common, 2);
  const Secret32 image_key = m.w.f.key_of_epoch(trust::scope_id(m.w.common), 1);
  {
    auto disk = m.w.open_disk(worker, "common", fs);
    REQUIRE(disk.ok());
    std::mutex mutex;
    std::optional<v1::Version> forged;
    m.w.proxy->set_interceptor([&](const std::string& method,
                                   const std::string& request) -> std::optional<Told> {
      const std::lock_guard lock(mutex);
      if (method == "Commit" &&
          parsed<v1::CommitRequest>(request).image() == field(m.w.common.view())) {
        const auto ours =
            format::decode_version(as_bytes(parsed<v1::CommitRequest>(request).record()), false);
        format::VersionRecord record = base;
        record.commit = ours->commit;
        record.machine = ours->machine;
        record.root = {};  // all zeros
        format::seal_root_key(record, image_key, Secret32{}, m.w.random);
        const Bytes bytes = m.signed_by_him(record);
        forged.emplace();
        forged->set_id(field(format::version_id(bytes).view()));
        forged->set_record(field(bytes));
        return Told{{}, grpc::Status(grpc::StatusCode::ABORTED, "conflict")};
      }
      if (method == "GetVersion" && forged)
        return Told{{forged->SerializeAsString()}, grpc::Status::OK};
      return std::nullopt;
    });
    m.w.proxy->set_liar([&](const PassingReply& reply) {
      const std::lock_guard lock(mutex);
      if (reply.method == "GetSessions") {
        v1::GetSessionsReply out;
        out.add_certificates(field(his));
        return Told{{out.SerializeAsString()}, {}};
      }
      if (reply.method != "GetImage" || !forged) return Told{{reply.message}, {}};
      auto image = parsed<v1::Image>(reply.message);
      if (image.id() == field(m.w.common.view())) image.set_head(forged->id());
      return Told{{image.SerializeAsString()}, {}};
    });
    write_at(**disk, model, 4000, 9000, 0x21);
    require_ok((*disk)->flush());
    (void)(*disk)->sync(true, std::chrono::milliseconds(1500)).ok();
    CHECK(difference(DiskFixture::read_all(**disk), model) == "");
    (void)(*disk)->close(std::chrono::milliseconds(0)).ok();
  }
  m.w.proxy->honest();
  m.w.next_minute();
  auto again = m.w.work(m.w.laptop, keys);
  auto disk = m.w.open_disk(again, "common", fs);
  INFO((disk.ok() ? "" : disk.error().to_string()));
  REQUIRE(disk.ok());
  DiskFixture::sync(**disk);
  CHECK(difference(DiskFixture::read_all(**disk), model) == "");
}
