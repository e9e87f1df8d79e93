// The organisation's log, and users' records, which change with it.
#include <algorithm>

#include "rdim-server/services/access_service.h"
#include "rdim-server/services/log_stream.h"

namespace dims::services {

using access::Caller;
using access::denied;

void to_proto(const trust::Position& position, v1::LogPosition* out) {
  out->set_seq(position.seq);
  out->set_hash(std::string(as_text(position.hash.view())));
}

Result<trust::Position> from_proto(const v1::LogPosition& position) {
  trust::Position out;
  out.seq = position.seq();
  DIMS_TRY(take_id(position.hash(), "hash of a record", out.hash));
  return out;
}

namespace {

// Far above what a rotation of an organisation's images sends at once.
constexpr std::size_t kRecordsPerCallMax = 8192;

Result<std::vector<trust::LogRecord>> decode_records(const std::vector<Bytes>& records) {
  if (records.size() > kRecordsPerCallMax) {
    return make_error(ErrorCode::kInvalidArgument,
                      std::to_string(records.size()) + " log records in one call",
                      "send at most " + std::to_string(kRecordsPerCallMax) + " at once");
  }
  std::vector<trust::LogRecord> out;
  for (const Bytes& bytes : records) {
    DIMS_ASSIGN(auto record, trust::decode_record(bytes));
    out.push_back(std::move(record));
  }
  return out;
}

const trust::KeyEpoch* new_image_keys(const trust::LogRecord& record) {
  const auto* const epoch = std::get_if<trust::KeyEpoch>(&record.body);
  return epoch != nullptr && epoch->scope == trust::KeyScope::kImage ? epoch : nullptr;
}

}  // namespace

void AccessService::audit_records(const Caller& caller,
                                  const std::vector<trust::LogRecord>& records) {
  for (const trust::LogRecord& record : records) {
    ImageId image;
    if (const auto* acl = std::get_if<trust::ImageAcl>(&record.body)) image = acl->image;
    control().audit().add(caller, std::string(trust::record_kind_name(record.kind())), image,
                          "log record " + std::to_string(record.seq));
  }
}

Status AccessService::check_epochs(const std::vector<trust::LogRecord>& records) {
  for (const trust::LogRecord& record : records) {
    const trust::KeyEpoch* const epoch = new_image_keys(record);
    if (epoch == nullptr) continue;
    ImageId id;
    id.bytes = epoch->id.bytes;
    const auto image = context_.catalog.get_image(id);
    if (!image.ok() ||
        (image->head_sequence == epoch->last_sequence && image->head == epoch->last_version))
      continue;
    return make_error(ErrorCode::kConflict,
                      "image " + image->name + " has got a version since: its head is version " +
                          std::to_string(image->head_sequence),
                      "look at it again, and say which version is the last of the old keys");
  }
  return ok_status();
}

Result<trust::Position> AccessService::append_log(const Caller& caller,
                                                  const trust::Position& expected,
                                                  const std::vector<Bytes>& records,
                                                  const access::OrgBook::Also& also) {
  DIMS_ASSIGN(const auto decoded, decode_records(records));
  const auto append = [&]() -> Result<trust::Position> {
    // Commits are held up for new keys of an image alone: who may append nothing, or something
    // else, stops nobody.
    std::unique_lock no_commits(context_.epochs, std::defer_lock);
    if (std::any_of(decoded.begin(), decoded.end(), new_image_keys)) no_commits.lock();
    DIMS_TRY(check_epochs(decoded));
    return control().book().append(expected, records, also);
  };
  DIMS_ASSIGN(const trust::Position position, append());
  audit_records(caller, decoded);
  return position;
}

AccessService::Unary* AccessService::InitOrg(Context* context, const v1::InitOrgRequest* request,
                                             v1::InitOrgReply* reply) {
  return run(Rpc::kInitOrg, context,
             [this, request, reply](const Caller&, const Ticket& ticket) -> Status {
               DIMS_ASSIGN(const trust::Position position,
                           control().init_org(as_bytes(request->bootstrap_secret()),
                                              bytes_of(request->records()),
                                              as_bytes(request->user_record()),
                                              bytes_of(request->grants()), ticket.peer));
               to_proto(position, reply->mutable_position());
               return ok_status();
             });
}

AccessService::Unary* AccessService::Enroll(Context* context, const v1::EnrollRequest* request,
                                            v1::AppendLogReply* reply) {
  return run(
      Rpc::kEnroll, context, [this, request, reply](const Caller& caller, const Ticket&) -> Status {
        DIMS_ASSIGN(const trust::Position expected, from_proto(request->expected()));
        DIMS_ASSIGN(const trust::LogRecord record,
                    trust::decode_record(as_bytes(request->record())));
        if (!(record.signer == caller.join_key)) return denied();
        const auto* const cert = std::get_if<trust::UserCert>(&record.body);
        const auto also = [&](const trust::OrgState& next) -> Result<access::OrgBook::Beside> {
          if (cert == nullptr) return access::OrgBook::Beside{};
          DIMS_ASSIGN(const trust::UserRecord user,
                      trust::decode_user_record(as_bytes(request->user_record())));
          if (!(user.user == cert->user)) return denied();
          return control().user_beside(next, user, {});
        };
        DIMS_ASSIGN(const trust::Position position,
                    control().book().append(expected, {record.bytes}, also));
        control().audit().add(caller, "enroll", {}, "log record " + std::to_string(record.seq));
        to_proto(position, reply->mutable_position());
        return ok_status();
      });
}

grpc::ServerWriteReactor<v1::GetLogReply>* AccessService::GetLog(Context* context,
                                                                 const v1::GetLogRequest* request) {
  return LogStream::begin(
      std::make_shared<LogStream>(context_, context_.gate.ticket(*context), *request));
}

AccessService::Unary* AccessService::AppendLog(Context* context,
                                               const v1::AppendLogRequest* request,
                                               v1::AppendLogReply* reply) {
  return run(Rpc::kAppendLog, context,
             [this, request, reply](const Caller& caller, const Ticket&) -> Status {
               DIMS_ASSIGN(const trust::Position expected, from_proto(request->expected()));
               const std::vector<Bytes> records = bytes_of(request->records());
               DIMS_ASSIGN(const trust::Position position,
                           append_log(caller, expected, records, {}));
               to_proto(position, reply->mutable_position());
               return ok_status();
             });
}

AccessService::Unary* AccessService::GetUserRecord(Context* context,
                                                   const v1::GetUserRecordRequest* request,
                                                   v1::UserRecordReply* reply) {
  return run(Rpc::kGetUserRecord, context,
             [this, request, reply](const Caller& caller, const Ticket&) -> Status {
               trust::UserId user;
               DIMS_TRY(take_id(request->user(), "user id", user));
               if (user.is_zero()) user = caller.user;
               // Somebody else's is of use to nobody, and whoever has it may guess at leisure.
               if (!(user == caller.user)) return denied();
               DIMS_ASSIGN(const Bytes record, control().people().user_record(user));
               reply->set_record(record.data(), record.size());
               return ok_status();
             });
}

AccessService::Unary* AccessService::PutUserRecord(Context* context,
                                                   const v1::PutUserRecordRequest* request,
                                                   v1::PutUserRecordReply* /*reply*/) {
  return run(
      Rpc::kPutUserRecord, context, [this, request](const Caller& caller, const Ticket&) -> Status {
        DIMS_ASSIGN(const trust::UserRecord record,
                    trust::decode_user_record(as_bytes(request->record())));
        if (!(record.user == caller.user)) return denied();
        const std::vector<Bytes> grants = bytes_of(request->grants());
        const auto also = [&](const trust::OrgState& next) {
          return control().user_beside(next, record, grants);
        };
        const std::vector<Bytes> records = bytes_of(request->log_records());
        if (records.empty()) {
          if (!grants.empty()) {
            return make_error(ErrorCode::kInvalidArgument,
                              "grants come with the log record of new keys only",
                              "send them with PutGrants");
          }
          const Status fits = control().book().with(
              [&](const trust::OrgState& org) { return trust::check_user_record(org, record); });
          DIMS_TRY(fits);
          DIMS_TRY(control().people().put_user(record));
        } else {
          DIMS_ASSIGN(const trust::Position expected, from_proto(request->expected()));
          DIMS_TRY(append_log(caller, expected, records, also));
        }
        control().audit().add(caller, "user-record", {},
                              "generation " + std::to_string(record.generation));
        return ok_status();
      });
}

}  // namespace dims::services
