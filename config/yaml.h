// A strict, positioned tree of a YAML text, built from yaml-cpp's events: its own node loader
// follows cyclic aliases to a crash, expands alias bombs and keeps duplicate keys in silence.
// Invariant: a tree that parse() returned is acyclic when walked, at most 64 deep and 500 000 nodes
// large with aliases expanded; keys of one map differ. Scalars are text; what they mean is for the
// reader of the key to say.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/diagnostics.h"

namespace outrider::config::yaml {

enum class Kind : std::uint8_t { kNull, kScalar, kSequence, kMap };

// 32 bytes: a large file has hundreds of thousands of these.
struct Node {
  Kind kind = Kind::kNull;
  bool quoted = false;     // a scalar in quotes or a block
  bool flow = false;       // written inside { } or [ ], or being one
  bool reference = false;  // a scalar that holds `${`
  std::uint32_t line = 1;
  std::uint32_t column = 1;
  std::uint32_t first =
      0;  // of a collection: where its children begin; a map's are key, value, key, value …
  std::uint32_t count = 0;  // entries
  std::string_view text;    // of a scalar, as YAML reads it, references unresolved
  Place place() const { return {line, column}; }
};

struct Document {
  std::uint32_t root = 0;
  // Traps that YAML allows but a native document may not hold (nulls, merge keys, tags).
  std::vector<Diagnostics::Item> traps;
};

class Tree {
 public:
  std::span<const Node> items(const Node& sequence) const {
    return {nodes_.data() + sequence.first, sequence.count};
  }
  const Node& key(const Node& map, std::uint32_t entry) const {
    return nodes_[map.first + 2 * entry];
  }
  const Node& value(const Node& map, std::uint32_t entry) const {
    return nodes_[map.first + 2 * entry + 1];
  }
  const Node* find(const Node& map, std::string_view key) const;
  const Node& root(const Document& document) const { return nodes_[document.root]; }
  std::span<const Document> documents() const { return documents_; }

 private:
  friend class Builder;
  std::vector<Node> nodes_;        // children before their parents
  std::deque<std::string> texts_;  // scalars that are not verbatim in the source
  std::vector<Document> documents_;
};

// Errors go to `diagnostics`; false when the text could not be read as a whole. `source.text` loses
// a BOM.
bool parse(Source& source, Diagnostics& diagnostics, Tree& tree);

}  // namespace outrider::config::yaml
