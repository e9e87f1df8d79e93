// Damage with names for the store of a server that is down: each function does one kind of harm to
// its rows and objects, below everything that would refuse it. What a store cannot be brought to by
// its own calls; a file that is bent is another thing (tests/system/server_check.py).
//
// Threads: one. Ownership: owns the engine while it lives; nobody else may have the store open.
// Errors: none; a test that cannot do its harm fails. Durable: everything, at the end.
#pragma once

#include <string>

#include "rdim-server/stores/engine.h"
#include "rdim-server/stores/meta_row.h"

namespace dims::test {

class StoreCorruptor {
 public:
  explicit StoreCorruptor(const std::string& folder);
  ~StoreCorruptor();

  using ObjectKey = format::ObjectKey;
  // Objects and their rows.
  void lose_bytes(const ObjectKey& key);
  void lose_row(const ObjectKey& key);
  void lose_object(const ObjectKey& key);  // and its row
  void flip_bit(const ObjectKey& key);     // of its bytes
  void cut_short(const ObjectKey& key);    // its bytes
  // A write that went to the wrong place: under `to` lie the bytes of `from`.
  void misdirect(const ObjectKey& from, const ObjectKey& to);
  void wrong_level(const ObjectKey& key);   // in its row
  void wrong_length(const ObjectKey& key);  // in its row
  void scribble_row(const ObjectKey& key);

  // Records.
  void lose_record(const std::string& name);
  void flip_bit(const std::string& name);
  void put_record(const std::string& name, ByteView record);

 private:
  std::string read(rocksdb::ColumnFamilyHandle* family, const std::string& key);
  void write(rocksdb::ColumnFamilyHandle* family, const std::string& key, const std::string& value);
  void remove(rocksdb::ColumnFamilyHandle* family, const std::string& key);
  void change_row(const ObjectKey& key, const std::function<void(stores::MetaRow&)>& change);

  std::unique_ptr<stores::Engine> engine_;
};

}  // namespace dims::test
