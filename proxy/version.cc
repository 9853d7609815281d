// Beside the codecs and the encoders the only file that includes their libraries: for their version
// numbers alone.
#include "proxy/version.h"

#include <brotli/encode.h>
#include <llhttp.h>
#include <nghttp2/nghttp2.h>
#include <openssl/crypto.h>
#include <uv.h>
#include <zlib.h>
#include <zstd.h>

#include <nlohmann/json.hpp>

#include "config/build_info.h"

namespace outrider {

namespace {

std::string dotted(int major, int minor, int patch) {
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
}

}  // namespace

std::string version_text() {
  std::string text = std::string("outrider ") + kVersion + " (commit " + kCommit + ")\n";
  const auto line = [&text](const char* name, const std::string& version) {
    text.append(name).append(" ").append(version).append("\n");
  };
  line("libuv", uv_version_string());
  line("llhttp", dotted(LLHTTP_VERSION_MAJOR, LLHTTP_VERSION_MINOR, LLHTTP_VERSION_PATCH));
  line("nghttp2", nghttp2_version(0)->version_str);
  line("openssl", OpenSSL_version(OPENSSL_VERSION_STRING));
  line("nlohmann-json", dotted(NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR,
                               NLOHMANN_JSON_VERSION_PATCH));
  line("yaml-cpp", kYamlCppVersion);
  line("re2", kRe2Version);
  line("zlib", zlibVersion());
  const auto brotli = static_cast<int>(BrotliEncoderVersion());  // 0xMMmmmppp
  line("brotli", dotted(brotli >> 24, brotli >> 12 & 0xfff, brotli & 0xfff));
  line("zstd", ZSTD_versionString());
  line("compiler", __VERSION__);
  return text;
}

}  // namespace outrider
