#include "nbdkit-ldim/login/orders.h"

namespace dims::ldim {

Orders orders_of(const trust::OrgState& org, const MachineId& machine, std::uint64_t obeyed_seq) {
  Orders out;
  const trust::Machine* const known = org.machine(machine);
  if (known == nullptr) return out;
  out.revoked = known->revoked;
  if (known->wipe && known->wipe->seq > obeyed_seq) out.wipe = known->wipe;
  return out;
}

Error explain(const Orders& orders, const std::string& machine_name) {
  if (!orders.wipe) {
    return make_error(ErrorCode::kPermissionDenied,
                      "the server refuses this machine ('" + machine_name + "'): it was revoked",
                      "ask an administrator; unsent writes are still in the cache folder");
  }
  const std::string unsent =
      orders.wipe->spare_unsent ? "; unsent writes are spared" : ", unsent writes too";
  return make_error(
      ErrorCode::kPermissionDenied,
      "an administrator has had this machine erase its keys and caches" + unsent +
          (orders.revoked ? "; the machine ('" + machine_name + "') was revoked as well" : ""),
      orders.revoked ? "ask an administrator" : "log in again to work with it");
}

Status carry_out(const Orders& orders, const std::string& machine_folder,
                 const std::string& cache_folder) {
  if (!orders.wipe) return ok_status();
  DIMS_ASSIGN(MachineFolder folder, MachineFolder::open(machine_folder));
  DIMS_TRY(folder.lock());
  // Opened anew under the lock: another process may have been here.
  DIMS_ASSIGN(MachineFolder now, MachineFolder::open(machine_folder));
  if (now.machine().obeyed_wipe_seq < orders.wipe->seq) DIMS_TRY(now.obey(*orders.wipe));
  if (!cache_folder.empty()) erase_cache(cache_folder, orders.wipe->spare_unsent);
  return ok_status();
}

}  // namespace dims::ldim
