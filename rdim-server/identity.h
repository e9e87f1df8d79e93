// What makes a server this server: its TLS certificate, and the secret that makes the first
// administrator.
//
//   DIR/tls/server.crt, server.key   self-signed, made when missing, 0600
//   DIR/bootstrap-secret             64 hex digits, 0600; used up by the first administrator
//
// Threads: one. Ownership: values. Errors: kCorrupt naming the file; errors of the files. Durable
// on return: what was made.
#pragma once

#include <string>

#include "common/base/clock.h"
#include "common/crypto/certificate.h"
#include "common/io/file.h"

namespace dims::server {

struct ServerIdentity {
  crypto::Certificate certificate;
  crypto::CertificateFacts facts;
};

// kNotFound when there is none.
Result<ServerIdentity> load_identity(io::FileSystem& fs, const std::string& data);
Result<ServerIdentity> load_or_make_identity(io::FileSystem& fs, const std::string& data,
                                             Clock& clock);
// A new certificate in the place of the old one: every client will ask who this is.
Result<ServerIdentity> make_identity(io::FileSystem& fs, const std::string& data, Clock& clock);

std::string bootstrap_path(const std::string& data);
// Makes it; one that is there stays.
Status make_bootstrap_secret(io::FileSystem& fs, const std::string& data, Random& random);

}  // namespace dims::server
