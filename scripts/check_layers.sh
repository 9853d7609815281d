#!/usr/bin/env bash
# Proves the architecture from the includes alone: layers include downwards only (proxy -> filters -> discovery ->
# config), every include of ours is rooted at the repository, and each C library is seen in few files ("one door").
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0

# refuse WHAT PATTERN PATH... : no line of these files may match.
refuse() {
  local what=$1 pattern=$2 hits
  shift 2
  hits=$(grep -rnE --include='*.h' --include='*.cc' --include='*.inc' "$pattern" "$@" 2>/dev/null) || return 0
  printf '%s:\n%s\n' "$what" "$hits" >&2
  failed=1
}

# door LIBRARY PATTERN ALLOWED : only files whose path matches ALLOWED may include it.
door() {
  local hits
  hits=$(grep -rnE --include='*.h' --include='*.cc' "#include [<\"]$2" config discovery filters proxy | grep -vE "^($3):") || return 0
  printf '%s is included outside its door (%s):\n%s\n' "$1" "$3" "$hits" >&2
  failed=1
}

refuse 'config includes a layer above it' '#include "(discovery|filters|proxy)/' config
refuse 'discovery includes a layer above it' '#include "(filters|proxy)/' discovery
refuse 'filters include a layer above them' '#include "proxy/' filters
refuse 'the product includes its tests' '#include "tests/' config discovery filters proxy
refuse 'an include that is not rooted at the repository' '#include "(\.|[^/"]*")' config discovery filters proxy tests

door llhttp 'llhttp' 'proxy/(h1_[a-z_]+|version)\.(h|cc)'
door nghttp2 'nghttp2/' 'proxy/(h2_[a-z_]+|version)\.(h|cc)'
door yaml-cpp 'yaml-cpp/' 'config/yaml[a-z_]*\.(h|cc)'
door spdlog 'spdlog/' 'config/log[a-z_]*\.(h|cc)'
door libuv 'uv\.h' 'discovery/[a-z_]+\.(h|cc)|proxy/(acceptor|connection|server|worker|upstream_pool|admin|version|redis_limits|prober)\.(h|cc)'
door OpenSSL 'openssl/' 'proxy/(tls|transport|version)[a-z_]*\.(h|cc)|filters/digest\.cc'
door libcrypt 'crypt\.h' 'filters/basic\.cc'
door zlib 'zlib\.h' 'filters/encoder\.cc|proxy/version\.cc'
door brotli 'brotli/' 'filters/encoder\.cc|proxy/version\.cc'
door zstd 'zstd\.h' 'filters/encoder\.cc|proxy/version\.cc'

[ $failed = 0 ] && echo 'layers: every include points downwards'
exit $failed
