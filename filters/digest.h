// SHA-256, for secrets that are compared by their hash. Invariant: nothing is allocated once a
// thread has hashed.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace outrider {

using Digest = std::array<std::uint8_t, 32>;

Digest sha256(std::initializer_list<std::string_view> pieces);
// Of a key that only this process knows, and the pieces, each with its length: what is looked up by
// it tells nothing by the time it takes, and nobody can aim at it.
Digest keyed_hash(std::initializer_list<std::string_view> pieces);
// In a time that does not depend on where they differ.
bool equal_in_constant_time(std::string_view a, std::string_view b);
inline std::string_view bytes_of(const Digest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}
// Overwrites it, whatever the compiler thinks of that.
void wipe(char* text, std::size_t size);

}  // namespace outrider
