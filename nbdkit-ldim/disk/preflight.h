// Preflight: everything that can be refused is refused before nbdkit goes to the background.
//
// Threads: none are made here. The questions to the server are asked in a child process, because
// gRPC must not exist in a process that forks later. Errors: what Disk::open would answer; an
// unreachable server is no error if the cache folder knows the image. Nothing is written.
#pragma once

#include <functional>
#include <memory>

#include "common/contract/remote.h"
#include "nbdkit-ldim/disk/options.h"

namespace dims::ldim {

using Connect = std::function<Result<std::unique_ptr<contract::Remote>>()>;
Status preflight(const DiskOptions& options, const Connect& connect);

}  // namespace dims::ldim
