#include "common/crypto/certificate.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstdlib>
#include <ctime>
#include <memory>
#include <mutex>

#include "common/crypto/hash.h"

namespace dims::crypto {
namespace {

template <auto free_it>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    free_it(object);
  }
};
using X509Ptr = std::unique_ptr<X509, Free<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using BioPtr = std::unique_ptr<BIO, Free<BIO_free_all>>;

void require(bool ok) {
  if (!ok) std::abort();  // out of memory, or a library that lacks P-256
}

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long length = BIO_get_mem_data(bio, &data);
  return {data, static_cast<std::size_t>(length)};
}

BioPtr reader_of(const std::string& text) {
  BioPtr bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  require(bio != nullptr);
  return bio;
}

X509Ptr parse(const std::string& pem) {
  return X509Ptr(PEM_read_bio_X509(reader_of(pem).get(), nullptr, nullptr, nullptr));
}

Error no_certificate() {
  return make_error(ErrorCode::kCorrupt, "this is no certificate in PEM form");
}

void set_names(X509* certificate, const std::string& name) {
  X509_NAME* const subject = X509_get_subject_name(certificate);
  require(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                     reinterpret_cast<const unsigned char*>(name.data()),
                                     static_cast<int>(name.size()), -1, 0) == 1);
  require(X509_set_issuer_name(certificate, subject) == 1);
}

}  // namespace

Certificate make_certificate(const std::string& name, std::int64_t valid_from_unix_s,
                             std::int64_t valid_until_unix_s) {
  const KeyPtr key(EVP_EC_gen("P-256"));
  const X509Ptr certificate(X509_new());
  require(key != nullptr && certificate != nullptr);
  require(X509_set_version(certificate.get(), X509_VERSION_3) == 1);
  require(ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate.get()), 1) == 1);
  require(ASN1_TIME_set(X509_getm_notBefore(certificate.get()), valid_from_unix_s) != nullptr);
  require(ASN1_TIME_set(X509_getm_notAfter(certificate.get()), valid_until_unix_s) != nullptr);
  set_names(certificate.get(), name);
  require(X509_set_pubkey(certificate.get(), key.get()) == 1);
  require(X509_sign(certificate.get(), key.get(), EVP_sha256()) != 0);
  const BioPtr certificate_out(BIO_new(BIO_s_mem())), key_out(BIO_new(BIO_s_secmem()));
  require(certificate_out != nullptr && key_out != nullptr);
  require(PEM_write_bio_X509(certificate_out.get(), certificate.get()) == 1);
  require(PEM_write_bio_PrivateKey(key_out.get(), key.get(), nullptr, nullptr, 0, nullptr,
                                   nullptr) == 1);
  return {text_of(certificate_out.get()), text_of(key_out.get())};
}

Result<CertificateFacts> read_certificate(const std::string& certificate_pem) {
  const X509Ptr certificate = parse(certificate_pem);
  if (!certificate) return no_certificate();
  CertificateFacts facts;
  unsigned length = 0;
  require(X509_digest(certificate.get(), EVP_sha256(), facts.fingerprint.bytes.data(), &length) ==
              1 &&
          length == Digest::kBytes);
  std::tm until{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate.get()), &until) != 1) return no_certificate();
  facts.valid_until_unix_s = timegm(&until);
  return facts;
}

Status check_certificate(const Certificate& certificate) {
  const X509Ptr parsed = parse(certificate.certificate_pem);
  if (!parsed) return no_certificate();
  const KeyPtr key(
      PEM_read_bio_PrivateKey(reader_of(certificate.key_pem).get(), nullptr, nullptr, nullptr));
  if (!key) return make_error(ErrorCode::kCorrupt, "this is no private key in PEM form");
  if (X509_check_private_key(parsed.get(), key.get()) != 1) {
    return make_error(ErrorCode::kCorrupt, "the private key is not that of the certificate");
  }
  return ok_status();
}

void refuse_tls_1_2() {
  static std::once_flag once;
  std::call_once(once, [] { ::setenv("GRPC_SSL_CIPHER_SUITES", "PSK-AES256-GCM-SHA384", 1); });
}

}  // namespace dims::crypto
