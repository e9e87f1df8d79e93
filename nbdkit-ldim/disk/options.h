// What the LDIM plugin can be told (nbdkit key=value parameters); one place for names, defaults and
// checks. Threads: values. Errors: kInvalidArgument naming the parameter, what it got and what it
// takes.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/result.h"
#include "common/base/units.h"
#include "common/format/key_file.h"
#include "nbdkit-ldim/writeback/write_back.h"

namespace dims::ldim {

enum class SessionMode { kPersonal, kShared, kReadOnly };
// When a flush is answered: docs/durability.md.
enum class Acknowledge { kJournal, kSent, kReceived, kCommitted };

struct DiskOptions {
  std::string server;  // HOST:PORT or unix:PATH
  std::string image;
  std::string key_path;
  std::string user;                             // logs in instead of key_path
  std::string machine_folder;                   // of the enrolled machine, with user
  std::shared_ptr<const format::KeyFile> keys;  // what that login opened
  std::string cache_folder;                     // empty: diskless (cache=none)
  std::uint64_t cache_bytes = 10 * kGiB;
  std::uint64_t journal_bytes = 4 * kGiB;
  SessionMode mode = SessionMode::kPersonal;
  Acknowledge acknowledge = Acknowledge::kJournal;
  WriteBackPolicy write_back = WriteBackPolicy::kEager;
  std::chrono::milliseconds write_back_delay{0};
  std::chrono::milliseconds seal_after{30000};  // LDIM seals an open epoch of this age by itself
  std::chrono::milliseconds session_grace{std::chrono::minutes(10)};
  std::chrono::milliseconds connect_wait{std::chrono::seconds(5)};
  // A server that has just gone may be back before a guest need hear of a full journal.
  std::chrono::milliseconds away_wait{std::chrono::seconds(10)};
  LeaseKeeper::LeaseAsk lease = LeaseKeeper::LeaseAsk::kPlain;  // of an image that another has
  std::chrono::milliseconds hand_off_wait{std::chrono::minutes(1)};
  std::string machine_name;  // default: the host's name
  bool compress = true;
  bool read_ahead = true;
  bool fill =
      false;  // fetch the rest of the disk while the link is idle; the plugin's default is yes
  bool accept_other_history = false;

  bool diskless() const { return cache_folder.empty(); }
};

std::string_view mode_name(SessionMode mode);

// Takes one parameter; kNotFound if there is none of that name.
Status set_option(DiskOptions& options, std::string_view name, std::string_view value);
// Checks the whole and fills in defaults.
Status complete_options(DiskOptions& options);
// The text for `nbdkit ldim --help`.
extern const char kOptionsHelp[];

}  // namespace dims::ldim
