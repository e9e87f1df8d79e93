// The server's TLS certificate: self-signed, P-256, known to clients by its fingerprint (SHA-256 of
// its DER bytes) and by nothing else: names and issuers mean nothing here.
//
// Threads: free functions. Errors: kCorrupt for what is no certificate or does not fit its key.
// Units: seconds since 1970. The private key comes from OpenSSL's own generator.
#pragma once

#include <cstdint>
#include <string>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace dims::crypto {

struct Certificate {
  std::string certificate_pem;
  std::string key_pem;  // a secret
};

struct CertificateFacts {
  Digest fingerprint;
  std::int64_t valid_until_unix_s = 0;
};

Certificate make_certificate(const std::string& name, std::int64_t valid_from_unix_s,
                             std::int64_t valid_until_unix_s);
// Of the first certificate in the text.
Result<CertificateFacts> read_certificate(const std::string& certificate_pem);
// That the key is the certificate's.
Status check_certificate(const Certificate& certificate);

// gRPC 1.51 cannot be told to refuse TLS 1.2. It can be given 1.2 cipher suites that nobody can use
// without a pre-shared key, which leaves 1.3. It reads them from the environment, once: call this
// before gRPC makes its first TLS credentials. Repeatable.
void refuse_tls_1_2();

}  // namespace dims::crypto
