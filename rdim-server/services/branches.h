// The conflict branches of an image, as a caller may know them. Threads: free functions. Errors:
// none.
#pragma once

#include "rdim-server/services/context.h"

namespace dims::services {

// As many names as one answer has room for.
constexpr std::size_t kBranchesMax = 256;

// Those that he may read or administer.
std::vector<std::string> branches_for(ServiceContext& context, const access::Caller& caller,
                                      const std::string& image);

}  // namespace dims::services
