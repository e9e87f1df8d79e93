// Brings a whole tree to a server that lacks some of it, from what this machine holds.
//
// For a server that was restored from an older copy: it knows neither the version nor all of its
// objects, but the cache does. A node that the server has is complete there (children are stored
// before their parents), so only what differs is walked. Threads: the caller's. Ownership: all
// parts outlive the call. Errors: kNotFound when an object is neither here nor there (says how many
// pages); else as the remote. Durable on return: nothing; the commit that names the root is.
#pragma once

#include "common/tree/uploader.h"
#include "nbdkit-ldim/fetch/fetcher.h"

namespace dims::ldim {

struct RescueParts {
  contract::Remote& remote;
  Fetcher& fetcher;
  tree::Uploader& uploader;
  const format::DomainKey& domain_key;
  ImageId image;  // for which the objects are put
};

Status upload_tree(const RescueParts& parts, const tree::TreeShape& shape);

}  // namespace dims::ldim
