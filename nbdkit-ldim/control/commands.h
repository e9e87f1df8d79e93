// What the control socket understands (docs/formats/control.md): status, sync, quiesce, resume,
// session-end, prefetch, check, renew-begin, renew.
// Threads: thread-safe. Errors: answered as {"error": {code, message, hint, holder}}.
#pragma once

#include <functional>
#include <string_view>
#include <nlohmann/json_fwd.hpp>

#include "nbdkit-ldim/control/renewal.h"
#include "nbdkit-ldim/disk/disk.h"

namespace dims::ldim {

// Runs one request line; say(answer) sends one line and returns false when the client is gone. The
// last answer has "done": true. `renewal` nullptr: the disk's keys come from a file.
void run_command(Disk& disk, std::string_view line,
                 const std::function<bool(const nlohmann::json&)>& say, Renewal* renewal = nullptr);

}  // namespace dims::ldim
