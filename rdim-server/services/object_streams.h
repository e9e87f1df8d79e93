// The streams Has and Put: every request is one task, answered by one reply, in any order.
//
// Threads, ownership, memory: as BidiStream. Errors: in the reply of the request that failed; the
// stream lives on.
#pragma once

#include "rdim-server/services/bidi_stream.h"

#include "dims/v1/dims.pb.h"

namespace dims::services {

class HasStream : public BidiStream<v1::HasRequest, v1::HasReply> {
 public:
  using BidiStream::BidiStream;

 private:
  void accept(v1::HasRequest request, std::uint64_t bytes) override;
  v1::HasReply answer(const v1::HasRequest& request);
};

class PutStream : public BidiStream<v1::PutRequest, v1::PutReply> {
 public:
  using BidiStream::BidiStream;

 private:
  void accept(v1::PutRequest request, std::uint64_t bytes) override;
  v1::PutReply answer(const v1::PutRequest& request);
};

contract::Priority priority_of(v1::Priority priority);

}  // namespace dims::services
