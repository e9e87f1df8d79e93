// rdim gc, check, image retention: what keeps the server's store in order.
#include <CLI/CLI.hpp>

#include <chrono>
#include <thread>

#include "common/base/parse.h"
#include "image-tools/rdim/session.h"

namespace dims::rdim {
namespace {

using rdim::json_of;  // beside those below, which would hide it

constexpr std::chrono::milliseconds kPollEvery{200};
constexpr std::uint64_t kNsPerS = 1'000'000'000;

const char* name_of(contract::Severity severity) {
  switch (severity) {
    case contract::Severity::kNote:
      return "note";
    case contract::Severity::kWarning:
      return "warning";
    case contract::Severity::kError:
      return "error";
  }
  return "error";
}

Json json_of(const contract::CollectionStatus& status) {
  Json json;
  json["run"] = status.run;
  json["running"] = status.running;
  json["dry_run"] = status.dry_run;
  json["phase"] = status.phase;
  json["images"] = status.images;
  json["versions_kept"] = status.versions_kept;
  json["versions_let_go"] = status.versions_dropped;
  json["records_removed"] = status.records_removed;
  json["nodes_marked"] = status.nodes_marked;
  json["objects"] = status.objects;
  json["garbage"] = status.garbage;
  json["garbage_bytes"] = status.garbage_bytes;
  json["removed"] = status.removed;
  json["spared"] = status.spared;
  json["disk_bytes_before"] = status.disk_bytes_before;
  json["disk_bytes_after"] = status.disk_bytes_after;
  json["began"] = json_of_time(status.began_unix_s * kNsPerS);
  json["ended"] = json_of_time(status.ended_unix_s * kNsPerS);
  json["next_in_s"] = status.next_in_s == 0 ? Json(nullptr) : Json(status.next_in_s);
  json["resumed"] = status.resumed;
  json["failed"] = status.failed ? json_of(*status.failed)["error"] : Json(nullptr);
  return json;
}

void print(const Session& session, const contract::CollectionStatus& status) {
  session.output.document(json_of(status));
  if (status.run == 0) {
    session.output.text("no collection since the server started");
  } else if (status.running) {
    session.output.text(
        "collection " + std::to_string(status.run) + " is running: " + status.phase +
        (status.resumed == 0 ? ""
                             : "; it began on " + text_of_time(status.began_unix_s * kNsPerS) +
                                   " and goes on after a restart of the server"));
  } else {
    session.output.text(
        std::string(status.dry_run ? "dry run " : "collection ") + std::to_string(status.run) +
        " of " + text_of_time(status.began_unix_s * kNsPerS) + ": " +
        std::to_string(status.garbage) + " of " + std::to_string(status.objects) +
        " objects are garbage (" + format_size(status.garbage_bytes) + "), " +
        std::to_string(status.removed) + " removed, " + std::to_string(status.spared) +
        " in use again; " + std::to_string(status.versions_kept) + " versions kept, " +
        std::to_string(status.versions_dropped) + (status.dry_run ? " would go" : " let go"));
    if (!status.dry_run) {
      session.output.text("disk: " + format_size(status.disk_bytes_before) + " before, " +
                          format_size(status.disk_bytes_after) + " after");
    }
  }
  if (status.next_in_s != 0) {
    session.output.text("the next one begins in " + std::to_string(status.next_in_s / 60) +
                        " minutes");
  }
}

Status run_collection(Session& session, bool dry_run) {
  DIMS_ASSIGN(contract::Admin* const admin, session.admin());
  DIMS_ASSIGN(const std::uint64_t run, admin->start_collection(dry_run));
  for (;;) {
    DIMS_ASSIGN(const contract::CollectionStatus status, admin->collection_status());
    if (!status.running && status.run >= run) {
      if (status.failed) return *status.failed;
      print(session, status);
      return ok_status();
    }
    // A server that was started anew counts from 1 again.
    if (!status.running && status.run < run) {
      return make_error(ErrorCode::kUnavailable, "the server was restarted meanwhile",
                        "it goes on with the collection by itself: see 'rdim gc status'");
    }
    std::this_thread::sleep_for(kPollEvery);
  }
}

Status show_status(Session& session) {
  DIMS_ASSIGN(contract::Admin* const admin, session.admin());
  DIMS_ASSIGN(const contract::CollectionStatus status, admin->collection_status());
  if (status.failed && !session.output.json()) {
    session.output.text("the last one stopped: " + status.failed->to_string());
  }
  print(session, status);
  return ok_status();
}

Json json_of(const contract::CheckFinding& finding) {
  Json json;
  json["code"] = finding.code;
  json["severity"] = name_of(finding.severity);
  json["what"] = finding.what;
  json["where"] = finding.where;
  json["hint"] = finding.hint;
  json["repaired"] = finding.repaired;
  return json;
}

Json json_of(const contract::CheckReport& report) {
  Json json;
  json["began"] = json_of_time(report.began_unix_s * kNsPerS);
  json["ended"] = json_of_time(report.ended_unix_s * kNsPerS);
  json["repair"] = report.repair;
  json["objects"] = report.progress.objects;
  json["bytes"] = report.progress.bytes;
  json["nodes"] = report.progress.nodes;
  json["versions"] = report.progress.versions;
  json["images"] = report.progress.images;
  json["garbage"] = report.progress.garbage;
  json["garbage_bytes"] = report.progress.garbage_bytes;
  json["findings_total"] = report.findings_total;
  json["findings"] = Json::array();
  for (const auto& finding : report.findings) json["findings"].push_back(json_of(finding));
  return json;
}

void print(const Session& session, const contract::CheckFinding& finding) {
  session.output.text(std::string(name_of(finding.severity)) + " " + finding.code + ": " +
                      finding.where + ": " + finding.what +
                      (finding.repaired ? " [repaired]" : " [" + finding.hint + "]"));
}

ExitCode code_of(const contract::CheckReport& report) {
  bool damaged = false, repaired = false;
  for (const auto& finding : report.findings) {
    if (finding.severity == contract::Severity::kNote) continue;
    (finding.repaired ? repaired : damaged) = true;
  }
  return damaged ? kExitDamaged : repaired ? kExitRepaired : kExitOk;
}

// What is left damaged outweighs what was mended, whatever their numbers are.
ExitCode worse(ExitCode a, ExitCode b) {
  if (a == kExitDamaged || b == kExitDamaged) return kExitDamaged;
  return std::max(a, b);
}

std::string summary(const contract::CheckReport& report) {
  return std::to_string(report.progress.objects) + " objects (" +
         format_size(report.progress.bytes) + "), " + std::to_string(report.progress.versions) +
         " versions of " + std::to_string(report.progress.images) + " images, " +
         std::to_string(report.findings_total) + " findings; " +
         std::to_string(report.progress.garbage) + " objects (" +
         format_size(report.progress.garbage_bytes) + ") are not used";
}

ExitCode run_check(Session& session, bool repair) {
  const auto admin = session.admin();
  if (!admin.ok()) return session.output.error(admin.error());
  contract::CheckReport report;
  report.repair = repair;
  const Status status = (*admin)->check(
      repair,
      [&](const contract::CheckFinding& finding) {
        print(session, finding);
        report.findings.push_back(finding);
      },
      [&](const contract::CheckProgress& progress) { report.progress = progress; });
  if (!status.ok()) return session.output.error(status.error());
  report.findings_total = report.findings.size();
  session.output.document(json_of(report));
  session.output.text(summary(report));
  return code_of(report);
}

ExitCode show_last(Session& session) {
  const auto admin = session.admin();
  if (!admin.ok()) return session.output.error(admin.error());
  const auto last = (*admin)->last_checks();
  if (!last.ok()) return session.output.error(last.error());
  Json json;
  json["check"] = last->check.began_unix_s == 0 ? Json(nullptr) : json_of(last->check);
  json["scrub"] = last->scrub.began_unix_s == 0 ? Json(nullptr) : json_of(last->scrub);
  session.output.document(json);
  for (const auto* report : {&last->check, &last->scrub}) {
    const std::string name = report == &last->check ? "check" : "scrub";
    if (report->began_unix_s == 0) {
      session.output.text(name + ": none since the server started");
      continue;
    }
    for (const auto& finding : report->findings) print(session, finding);
    session.output.text(name + " of " + text_of_time(report->began_unix_s * kNsPerS) +
                        (report->ended_unix_s == 0 ? " (not at its end): " : ": ") +
                        (name == "check"
                             ? summary(*report)
                             : format_size(report->progress.bytes) + " read, " +
                                   std::to_string(report->findings_total) + " findings"));
  }
  return worse(code_of(last->check), code_of(last->scrub));
}

struct RetentionOptions {
  std::string name;
  std::string keep;
};

Status retention(Session& session, const RetentionOptions& options) {
  DIMS_ASSIGN(contract::Remote* const remote, session.remote());
  DIMS_ASSIGN(contract::Admin* const admin, session.admin());
  DIMS_ASSIGN(const contract::ImageInfo image, remote->find_image(options.name));
  contract::RetentionInfo info;
  if (options.keep.empty()) {
    DIMS_ASSIGN(info, admin->retention(image.id));
  } else {
    const std::string policy = options.keep == "default" ? std::string() : options.keep;
    DIMS_ASSIGN(info, admin->set_retention(image.id, policy));
  }
  Json json;
  json["name"] = image.name;
  json["retention"] = info.policy;
  json["own"] = info.own;
  session.output.document(json);
  session.output.text("image '" + image.name + "' keeps " + info.policy +
                      (info.own ? "" : " (the server's default)"));
  return ok_status();
}

}  // namespace

void add_retention_command(CLI::App& image, Command& run) {
  CLI::App* const app = image.add_subcommand("retention", "Which of its versions keep their data");
  app->fallthrough();
  const auto options = std::make_shared<RetentionOptions>();
  app->add_option("NAME", options->name, "Of which image")->required();
  app->add_option("--keep", options->keep,
                  "all, default (the server's), or last=N,hourly=N,daily=N,weekly=N");
  app->callback([options, &run] {
    run = [options](Session& session) { return finish(session, retention(session, *options)); };
  });
}

void add_maintenance_commands(CLI::App& app, Command& run) {
  CLI::App* const gc = app.add_subcommand("gc", "Collection of what nobody uses any more");
  gc->require_subcommand(1);
  gc->fallthrough();
  CLI::App* const begin = gc->add_subcommand("run", "Collect now, and wait for the end");
  begin->fallthrough();
  const auto dry_run = std::make_shared<bool>(false);
  begin->add_flag("--dry-run", *dry_run, "Only say what would go");
  begin->callback([dry_run, &run] {
    run = [dry_run](Session& session) {
      return finish(session, run_collection(session, *dry_run));
    };
  });
  CLI::App* const status = gc->add_subcommand("status", "The last collection, or the running one");
  status->fallthrough();
  status->callback(
      [&run] { run = [](Session& session) { return finish(session, show_status(session)); }; });

  CLI::App* const check = app.add_subcommand(
      "check", "Look at the whole store: every object, every record, every tree");
  check->fallthrough();
  struct CheckOptions {
    bool repair = false;
    bool last = false;
  };
  const auto options = std::make_shared<CheckOptions>();
  check->add_flag("--repair", options->repair, "Mend what can be mended without losing anything");
  check->add_flag("--last", options->last, "Only show what the last check and the scrub found");
  check->callback([options, &run] {
    run = [options](Session& session) {
      return options->last ? show_last(session) : run_check(session, options->repair);
    };
  });
}

}  // namespace dims::rdim
