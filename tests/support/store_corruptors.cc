#include "tests/support/store_corruptors.h"

#include <catch2/catch.hpp>

namespace dims::test {
namespace {

constexpr std::size_t kRevisionBytes = 8;

}  // namespace

StoreCorruptor::StoreCorruptor(const std::string& folder) {
  stores::StoreOptions options;
  options.folder = folder;
  auto engine = stores::Engine::open(options, false);
  REQUIRE(engine.ok());
  engine_ = std::move(*engine);
}

StoreCorruptor::~StoreCorruptor() { (void)engine_->flush_all(); }

std::string StoreCorruptor::read(rocksdb::ColumnFamilyHandle* family, const std::string& key) {
  std::string value;
  REQUIRE(engine_->db().Get(rocksdb::ReadOptions(), family, key, &value).ok());
  return value;
}

void StoreCorruptor::write(rocksdb::ColumnFamilyHandle* family, const std::string& key,
                           const std::string& value) {
  REQUIRE(engine_->db().Put(rocksdb::WriteOptions(), family, key, value).ok());
}

void StoreCorruptor::remove(rocksdb::ColumnFamilyHandle* family, const std::string& key) {
  read(family, key);
  REQUIRE(engine_->db().Delete(rocksdb::WriteOptions(), family, key).ok());
}

void StoreCorruptor::lose_bytes(const ObjectKey& key) {
  remove(engine_->objects(), stores::row_key(key));
}

void StoreCorruptor::lose_row(const ObjectKey& key) {
  remove(engine_->meta(), stores::row_key(key));
}

void StoreCorruptor::lose_object(const ObjectKey& key) {
  lose_bytes(key);
  lose_row(key);
}

void StoreCorruptor::flip_bit(const ObjectKey& key) {
  std::string bytes = read(engine_->objects(), stores::row_key(key));
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 0x10);
  write(engine_->objects(), stores::row_key(key), bytes);
}

void StoreCorruptor::cut_short(const ObjectKey& key) {
  const std::string bytes = read(engine_->objects(), stores::row_key(key));
  write(engine_->objects(), stores::row_key(key), bytes.substr(0, bytes.size() / 2));
}

void StoreCorruptor::misdirect(const ObjectKey& from, const ObjectKey& to) {
  write(engine_->objects(), stores::row_key(to), read(engine_->objects(), stores::row_key(from)));
}

void StoreCorruptor::change_row(const ObjectKey& key,
                                const std::function<void(stores::MetaRow&)>& change) {
  auto row = stores::decode_meta(read(engine_->meta(), stores::row_key(key)));
  REQUIRE(row);
  change(*row);
  write(engine_->meta(), stores::row_key(key), stores::encode_meta(*row));
}

void StoreCorruptor::wrong_level(const ObjectKey& key) {
  change_row(key, [](stores::MetaRow& row) { row.level = row.level == 0 ? 3 : 0; });
}

void StoreCorruptor::wrong_length(const ObjectKey& key) {
  change_row(key, [](stores::MetaRow& row) { ++row.object_bytes; });
}

void StoreCorruptor::scribble_row(const ObjectKey& key) {
  write(engine_->meta(), stores::row_key(key), "rubbish");
}

void StoreCorruptor::lose_record(const std::string& name) { remove(engine_->refs(), name); }

void StoreCorruptor::flip_bit(const std::string& name) {
  std::string row = read(engine_->refs(), name);
  const std::size_t at = kRevisionBytes + (row.size() - kRevisionBytes) / 2;
  row[at] = static_cast<char>(row[at] ^ 1);
  write(engine_->refs(), name, row);
}

void StoreCorruptor::put_record(const std::string& name, ByteView record) {
  std::string row(kRevisionBytes, '\1');
  row.append(as_text(record));
  write(engine_->refs(), name, row);
}

}  // namespace dims::test
