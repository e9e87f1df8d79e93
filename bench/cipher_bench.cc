// What sealing 4 KiB and 64 bytes costs (docs/decisions/009-gcm-libgcrypt.md): PageCipher, and the
// same cipher of OpenSSL with a context kept as well as its interface allows. Nanoseconds of
// processor, in turn. cipher_bench [ROUNDS]. Not built by default: ninja cipher_bench.
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <vector>

#include "common/crypto/aead.h"

using namespace dims;

namespace {

double nanoseconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

double time_of(int count, const std::function<void(std::uint64_t)>& act) {
  const double from = nanoseconds();
  for (int i = 0; i < count; ++i) act(static_cast<std::uint64_t>(i));
  return (nanoseconds() - from) / count;
}

double median(std::vector<double> of) {
  std::sort(of.begin(), of.end());
  return of[of.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 9;
  Secret32 key;
  key.bytes.fill(3);
  const crypto::PageCipher cipher(key);
  EVP_CIPHER_CTX* const context = EVP_CIPHER_CTX_new();
  if (EVP_CipherInit_ex(context, EVP_aes_256_gcm(), nullptr, key.bytes.data(), nullptr, 1) != 1)
    return 1;
  Bytes text(4096, 7), out(4096), theirs(4096);
  const Bytes ad(40, 1);
  std::array<std::uint8_t, crypto::kTagBytes> tag{}, their_tag{};
  for (const std::size_t bytes : {text.size(), std::size_t{64}}) {
    const ByteView plain = ByteView(text).first(bytes);
    const auto ours = [&](std::uint64_t i) { cipher.seal(i, ad, plain, out.data(), tag.data()); };
    const auto openssl = [&](std::uint64_t i) {
      std::array<std::uint8_t, 12> iv{};
      for (std::size_t b = 0; b < 8; ++b) iv[b] = static_cast<std::uint8_t>(i >> (8 * b));
      int n = 0;
      EVP_CipherInit_ex(context, nullptr, nullptr, nullptr, iv.data(), 1);
      EVP_EncryptUpdate(context, nullptr, &n, ad.data(), static_cast<int>(ad.size()));
      EVP_EncryptUpdate(context, theirs.data(), &n, plain.data(), static_cast<int>(bytes));
      EVP_EncryptFinal_ex(context, theirs.data() + bytes, &n);
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, crypto::kTagBytes, their_tag.data());
    };
    std::vector<double> of_ours, of_openssl;
    for (int round = 0; round < rounds; ++round) {
      of_ours.push_back(time_of(20000, ours));
      of_openssl.push_back(time_of(20000, openssl));
    }
    if (tag != their_tag || !std::equal(out.begin(), out.end(), theirs.begin())) {
      std::fprintf(stderr, "cipher_bench: the two do not agree\n");
      return 1;
    }
    std::printf("%zu bytes: libgcrypt %.0f ns (worst %.0f), OpenSSL %.0f ns (worst %.0f): %.2f\n",
                bytes, median(of_ours), *std::max_element(of_ours.begin(), of_ours.end()),
                median(of_openssl), *std::max_element(of_openssl.begin(), of_openssl.end()),
                median(of_ours) / median(of_openssl));
  }
  EVP_CIPHER_CTX_free(context);
  return 0;
}
