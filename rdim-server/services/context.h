// What all calls of the service share. Threads: all parts are thread-safe. Ownership: the server
// owns it and outlives the calls.
#pragma once

#include <shared_mutex>

#include <atomic>
#include <string>

#include "common/base/units.h"
#include "rdim-server/catalog/catalog.h"
#include "rdim-server/catalog/maintenance.h"
#include "rdim-server/services/byte_budget.h"
#include "rdim-server/services/executor.h"
#include "rdim-server/services/gate.h"
#include "rdim-server/services/stored_bytes.h"
#include "rdim-server/services/stream_registry.h"

namespace dims::services {

struct ServiceLimits {
  std::uint32_t message_bytes_max = static_cast<std::uint32_t>(4 * kMiB);
  std::uint32_t objects_per_request_max = 1024;
  // Of one stream. Twice as many are read, so that a cancel still comes through.
  std::uint32_t requests_in_flight_max = 64;
  std::uint64_t stream_request_bytes_max = 8 * kMiB;
  std::uint64_t all_request_bytes_max = 64 * kMiB;
  // Replies of one stream that wait for the network.
  std::uint64_t stream_reply_bytes_max = 2 * kMiB;
  std::uint64_t bulk_reply_bytes = kMiB;
  std::uint64_t demand_reply_bytes = 256 * kKiB;  // a guest waits: small messages arrive sooner
};

struct ServiceCounters {
  std::atomic<std::uint64_t> puts_stored{0}, puts_present{0}, gets{0};
  std::atomic<std::uint64_t> bytes_sent{0}, bytes_received{0};  // of objects
};

struct ServiceContext {
  ServiceContext(catalog::Catalog& the_catalog, contract::ObjectStore& the_objects,
                 catalog::Maintenance& the_maintenance, Gate& the_gate, std::string version,
                 Executor& for_calls, Executor& for_commits, Executor& for_transfers)
      : gate(the_gate),
        catalog(the_catalog),
        objects(the_objects),
        maintenance(the_maintenance),
        server_version(std::move(version)),
        calls(for_calls),
        commits(for_commits),
        transfers(for_transfers) {}

  Gate& gate;
  catalog::Catalog& catalog;
  contract::ObjectStore& objects;
  catalog::Maintenance& maintenance;
  std::string server_version;
  ServiceLimits limits;
  Executor& calls;      // unary calls: short
  Executor& commits;    // walk trees, may take seconds: nobody's lease must run out behind them
  Executor& transfers;  // Get, Has, Put, Diff
  ByteBudget budget{limits.all_request_bytes_max};
  StreamRegistry streams;
  ServiceCounters counters;
  StoredBytes stored{objects, system_clock()};
  // A commit holds it shared from the look at its signer to its end; a record that begins new keys
  // of an image waits for those: no version of the old keys comes after what the record names last.
  std::shared_mutex epochs;
};

}  // namespace dims::services
