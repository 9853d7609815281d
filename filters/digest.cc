// See digest.h. The only file of this layer that includes OpenSSL.
#include "filters/digest.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <sys/random.h>

#include <memory>

#include "config/error.h"

namespace outrider {
namespace {

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

class Hashing {
 public:
  Hashing() {
    thread_local const std::unique_ptr<EVP_MD_CTX, FreeContext> kept(EVP_MD_CTX_new());
    // Looked up once: asking for the algorithm by name at each hash costs more than the hash.
    static const EVP_MD* const algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
    context_ = kept.get();
    OUTRIDER_ASSERT(context_ != nullptr && algorithm != nullptr);
    OUTRIDER_ASSERT(EVP_DigestInit_ex(context_, algorithm, nullptr) == 1);
  }
  void add(std::string_view bytes) { EVP_DigestUpdate(context_, bytes.data(), bytes.size()); }
  Digest end() {
    Digest digest;
    OUTRIDER_ASSERT(EVP_DigestFinal_ex(context_, digest.data(), nullptr) == 1);
    return digest;
  }

 private:
  EVP_MD_CTX* context_;
};

Digest process_key() {
  Digest key;
  while (::getrandom(key.data(), key.size(), 0) != static_cast<ssize_t>(key.size())) {}
  return key;
}

}  // namespace

Digest sha256(std::initializer_list<std::string_view> pieces) {
  Hashing hashing;
  for (const std::string_view piece : pieces) hashing.add(piece);
  return hashing.end();
}

Digest keyed_hash(std::initializer_list<std::string_view> pieces) {
  static const Digest kKey = process_key();
  Hashing hashing;
  hashing.add(bytes_of(kKey));
  for (const std::string_view piece : pieces) {
    const std::uint64_t size = piece.size();
    hashing.add({reinterpret_cast<const char*>(&size), sizeof size});
    hashing.add(piece);
  }
  return hashing.end();
}

bool equal_in_constant_time(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

void wipe(char* text, std::size_t size) { OPENSSL_cleanse(text, size); }

}  // namespace outrider
