#include "rdim-server/services/branches.h"

namespace dims::services {

std::vector<std::string> branches_for(ServiceContext& context, const access::Caller& caller,
                                      const std::string& image) {
  const access::AccessControl& control = context.gate.control();
  std::vector<std::string> names;
  for (const catalog::Catalog::Branch& branch : context.catalog.branches_of(image)) {
    if (names.size() == kBranchesMax) break;
    if (control.access(caller, branch.id) >= trust::Access::kRead ||
        control.may_administer(caller, branch.id)) {
      names.push_back(branch.name);
    }
  }
  return names;
}

}  // namespace dims::services
