// Who acts: a machine and one run of a program on it.
#pragma once

#include <string>

#include "common/base/bytes.h"

namespace dims::transfer {

struct Who {
  MachineId machine;
  std::string machine_name;
  SessionId session;
};

}  // namespace dims::transfer
