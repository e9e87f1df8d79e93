#include "rdim-server/stores/store.h"

#include <spdlog/spdlog.h>

#include "rdim-server/stores/rocks_objects.h"
#include "rdim-server/stores/rocks_refs.h"

namespace dims::stores {
namespace {

// What FORMAT says, or a new one for an empty folder. Writes nothing into a folder that is not
// ours.
Result<StoreFormat> find_format(io::FileSystem& fs, const std::string& folder, Random& random) {
  Result<StoreFormat> format = read_format(fs, folder);
  if (format.ok() || format.error().code != ErrorCode::kNotFound) return format;
  DIMS_ASSIGN(const std::vector<std::string> names, fs.list(folder));
  for (const std::string& name : names) {
    if (name == "lost+found" || name.starts_with("FORMAT.")) continue;  // a first start cut short
    return make_error(ErrorCode::kUnsupported,
                      folder + " is not empty and no DIMS store (it holds '" + name + "')",
                      "give the folder of a store, or an empty one; nothing was changed");
  }
  StoreFormat fresh;
  fresh.generation = random.id<GenerationId>();
  fresh.state = StoreState::kCreating;
  DIMS_TRY(write_format(fs, folder, fresh));
  return fresh;
}

}  // namespace

Store::Store() = default;

Result<std::unique_ptr<Store>> Store::open(const StoreOptions& options, Clock& clock,
                                           Random& random) {
  io::FileSystem& fs = io::posix_file_system();
  DIMS_TRY(fs.make_folder(options.folder));
  DIMS_ASSIGN(StoreFormat format, find_format(fs, options.folder, random));
  // A ready store whose database is gone is damage: it must not come up empty.
  const bool create = format.state == StoreState::kCreating;
  if (!create) {
    DIMS_ASSIGN(const bool there, fs.exists(options.folder + "/db/CURRENT"));
    if (!there) {
      return make_error(ErrorCode::kCorrupt,
                        "the database of the store " + options.folder + " is missing",
                        "restore the store from its backup");
    }
  }
  std::unique_ptr<Store> store(new Store());
  store->generation_ = format.generation;
  DIMS_ASSIGN(store->engine_, Engine::open(options, create));
  store->objects_ = std::make_unique<RocksObjectStore>(*store->engine_, clock, options);
  store->refs_ = std::make_unique<RocksRefStore>(*store->engine_, random);
  DIMS_TRY(store->objects_->load_counters());
  DIMS_TRY(store->objects_->load_touch_floor());
  if (create) {
    format.state = StoreState::kReady;
    DIMS_TRY(write_format(fs, options.folder, format));
  }
  return store;
}

Store::~Store() {
  if (!objects_) return;
  Status saved = objects_->save_counters();
  if (saved.ok()) saved = engine_->flush_all();
  if (!saved.ok()) spdlog::error("closing the store: {}", saved.error().to_string());
}

contract::ObjectStore& Store::objects() { return *objects_; }
contract::RefStore& Store::refs() { return *refs_; }

}  // namespace dims::stores
