// Which machines may hold writes that the server has not seen: they lost their lease unreleased.
#include <algorithm>

#include "rdim-server/catalog/catalog.h"

namespace dims::catalog {

void note_unsent(ImageRecord& image, UnsentRecord machine) {
  forget_unsent(image, machine.machine);
  image.unsent.push_back(std::move(machine));
  if (image.unsent.size() > kUnsentMax) image.unsent.erase(image.unsent.begin());
}

bool forget_unsent(ImageRecord& image, const MachineId& machine) {
  return std::erase_if(image.unsent, [&](const auto& m) { return m.machine == machine; }) > 0;
}

// What a session tells as it begins is believed: only its machine knows.
Status Catalog::note_report(LiveImage& image, const contract::SessionRequest& report) {
  if (report.mode != "personal") return ok_status();
  const LeaseRecord& lease = image.record.lease;
  const bool holds = lease.held() && lease.machine == report.machine;
  ImageRecord next = image.record;
  if (report.unsent_bytes == 0 || holds) {
    if (!catalog::forget_unsent(next, report.machine)) return ok_status();
  } else {
    note_unsent(next, {report.machine, report.machine_name, report.session, report.unsent_bytes,
                       static_cast<std::uint64_t>(clock_.wall().count())});
  }
  return save(image, std::move(next));
}

// Everything that the machine had flushed is on its branch now.
void Catalog::note_branch_commit(const std::string& conflict_of, const MachineId& machine) {
  ImagePtr home;
  {
    std::shared_lock lock(table_mutex_);
    const auto found = names_.find(conflict_of);
    if (found == names_.end()) return;
    const auto image = images_.find(found->second);
    if (image == images_.end()) return;
    home = image->second;
  }
  std::lock_guard lock(home->mutex);
  ImageRecord next = home->record;
  if (home->removed || !catalog::forget_unsent(next, machine)) return;
  (void)save(*home, std::move(next)).ok();  // or the next commit, or its next session
}

Status Catalog::forget_unsent(const ImageId& id, const MachineId& machine) {
  DIMS_ASSIGN(const ImagePtr image, live(id));
  std::lock_guard lock(image->mutex);
  ImageRecord next = image->record;
  bool known = catalog::forget_unsent(next, machine);
  if (known) DIMS_TRY(save(*image, std::move(next)));
  // The bases of its sessions were kept for what it might still bring. One that only read, or threw
  // away what it wrote, stands in no list and never ends if its machine was switched off.
  DIMS_TRY(close_sessions(id,
                          [&](const SessionRecord& session) {
                            const bool its = session.machine == machine;
                            known = known || its;
                            return its;
                          },
                          {}));
  if (known) return ok_status();
  return make_error(ErrorCode::kNotFound,
                    "image '" + image->record.name + "' knows no session of machine " +
                        machine.short_hex() + " and does not name it as one that may hold " +
                        "unsent writes",
                    "see 'rdim image info'");
}

}  // namespace dims::catalog
