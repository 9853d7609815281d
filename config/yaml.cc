// The one door to yaml-cpp: its events become our tree, its exceptions our diagnostics.
// Order of defence: size and bytes (yaml_text.cc) before the parser sees them; depth, nodes and
// aliases while it runs.
#include "config/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <istream>
#include <numeric>
#include <optional>
#include <streambuf>

#include "config/limits.h"
#include "config/yaml_text.h"

namespace outrider::config::yaml {
namespace {

struct Stop {};  // thrown through yaml-cpp once nothing sensible can follow

// Hands the text over piece by piece, and ends it early when the scanner hoards tokens: a text that
// opens with `[` is scanned to its end before the first event, which would cost a hundred bytes of
// memory for each byte of a bomb.
class Feed final : public std::streambuf {
 public:
  explicit Feed(std::string_view text) : text_(text) {}
  bool tripped() const { return tripped_; }
  void progress() { opened_ = entries_ = 0; }

 private:
  static constexpr std::size_t kPiece = 2048;
  int_type underflow() override {
    if (tripped_ || text_.empty()) return traits_type::eof();
    const std::string_view piece = text_.substr(0, kPiece);
    for (const char c : piece) {
      opened_ += c == '[' || c == '{' ? 1 : 0;
      opened_ -= (c == ']' || c == '}') && opened_ > 0 ? 1 : 0;
      entries_ += std::string_view(",[{!&").find(c) != std::string_view::npos ? 1 : 0;
    }
    tripped_ = opened_ > 64 * limits::kConfigDepth || entries_ > limits::kConfigNodes;
    if (tripped_) return traits_type::eof();
    char* start =
        const_cast<char*>(piece.data());  // std::streambuf's interface; nothing writes through it
    setg(start, start, start + piece.size());
    text_.remove_prefix(piece.size());
    return traits_type::to_int_type(piece.front());
  }

  std::string_view text_;
  std::size_t opened_ = 0;   // brackets open since the last event
  std::size_t entries_ = 0;  // things in brackets since the last event
  bool tripped_ = false;
};

}  // namespace

class Builder final : public YAML::EventHandler {
 public:
  Builder(Source& source, Diagnostics& diagnostics, Tree& tree)
      : source_(source), diagnostics_(diagnostics), tree_(tree), feed_(source.text) {}

  bool run();

  void OnDocumentStart(const YAML::Mark& mark) override;
  void OnDocumentEnd() override;
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override;
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override;
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override;
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value style) override {
    open(mark, tag, anchor, style, Kind::kSequence);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value style) override {
    open(mark, tag, anchor, style, Kind::kMap);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Frame {
    Node node;
    std::size_t start;   // of its children in pending_
    std::size_t offset;  // in the text
    std::size_t anchor;
    std::size_t weight;  // nodes below, aliases expanded
    std::size_t height;  // levels below
  };
  struct Anchored {
    Node node;
    std::size_t weight = 0;
    std::size_t height = 0;
    bool open = true;
  };

  bool at_key() const {
    return !frames_.empty() && frames_.back().node.kind == Kind::kMap &&
           (pending_.size() - frames_.back().start) % 2 == 0;
  }
  bool in_flow() const { return !frames_.empty() && frames_.back().node.flow; }
  std::string path() const;
  Diagnostics::Item item(Place place, std::string_view code, std::string text) const;
  [[noreturn]] void stop(std::size_t offset, std::string_view code, std::string text);
  void count(std::size_t nodes, std::size_t offset);
  void check_indent(std::size_t offset);
  void check_tag(const std::string& tag, Kind kind, std::size_t offset);
  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
            YAML::EmitterStyle::value style, Kind kind);
  void close();
  void add(const Node& node, std::size_t anchor, std::size_t weight, std::size_t height);
  std::string_view keep(std::size_t offset, bool quoted, const std::string& value);
  void drop_duplicates(const Frame& frame);
  void syntax(const YAML::Exception& error);

  Source& source_;
  Diagnostics& diagnostics_;
  Tree& tree_;
  Feed feed_;
  std::vector<Frame> frames_;
  std::vector<Node> pending_;  // children of open collections
  std::vector<Anchored> anchors_;
  std::size_t nodes_ = 0;
  Scalar last_;
  std::size_t start_ = std::string_view::npos;  // of the document
  Document document_;
  bool complete_ = true;
};

bool Builder::run() {
  std::istream in(&feed_);
  try {
    YAML::Parser parser(in);
    while (parser.HandleNextDocument(*this)) {}
  } catch (const Stop&) {
    complete_ = false;
  } catch (const YAML::Exception& error) {
    if (!feed_.tripped()) syntax(error);
    complete_ = false;
  }
  if (feed_.tripped()) {
    diagnostics_.add(
        {&source_,
         {},
         Severity::kError,
         {},
         "nesting over 64 levels or over 500000 values, before the first of them could be read",
         "yaml-too-many-nodes",
         {}});
    return false;
  }
  return complete_;
}

std::string Builder::path() const {
  std::string out;
  for (std::size_t i = 0; i < frames_.size(); ++i) {
    const std::size_t end = i + 1 < frames_.size() ? frames_[i + 1].start : pending_.size();
    const std::size_t children = end - frames_[i].start;
    if (frames_[i].node.kind == Kind::kSequence) {
      out += '[' + std::to_string(children) + ']';
    } else if (children % 2 == 1) {
      if (!out.empty()) out += '.';
      out += pending_[end - 1].text;
    }
  }
  return out;
}

Diagnostics::Item Builder::item(Place place, std::string_view code, std::string text) const {
  return {&source_, place, Severity::kError, path(), std::move(text), std::string(code), {}};
}

void Builder::stop(std::size_t offset, std::string_view code, std::string text) {
  // What follows a text that was cut is not its author's fault.
  if (!feed_.tripped()) diagnostics_.add(item(source_.place(offset), code, std::move(text)));
  throw Stop{};
}

void Builder::count(std::size_t nodes, std::size_t offset) {
  nodes_ += nodes;
  if (nodes_ > limits::kConfigNodes)
    stop(offset, "yaml-too-many-nodes",
         "over " + std::to_string(limits::kConfigNodes) +
             " values, aliases expanded: split the file, use fewer aliases");
}

// A tab looks like any indentation in an editor and is none in YAML.
void Builder::check_indent(std::size_t offset) {
  if (in_flow()) return;
  if (const auto tab = tab_in_indent(source_.text, offset))
    stop(*tab, "yaml-tab", "a tab cannot indent in YAML: use spaces");
}

void Builder::check_tag(const std::string& tag, Kind kind, std::size_t offset) {
  if (tag.empty() || tag == "?" || tag == "!") return;
  constexpr std::string_view kCore = "tag:yaml.org,2002:";
  const std::string_view name = kind == Kind::kMap        ? "map"
                                : kind == Kind::kSequence ? "seq"
                                                          : "str";
  if (tag.starts_with(kCore) && std::string_view(tag).substr(kCore.size()) == name) return;
  const std::string_view word = word_at(source_.text, offset);
  std::string text = "'";
  text += word;
  text += "' is a YAML tag, and tags mean nothing here: quote text that begins with '!'";
  document_.traps.push_back(item(source_.place(offset), "yaml-tag", std::move(text)));
}

void Builder::OnDocumentStart(const YAML::Mark& mark) {
  const auto offset = static_cast<std::size_t>(mark.pos);
  document_ = {};
  frames_.clear();
  pending_.clear();
  anchors_.clear();
  // At a stray `,` or `]` yaml-cpp yields empty documents for ever.
  if (offset == start_)
    stop(offset, kSyntaxCode,
         "unexpected '" + source_.text.substr(offset, 1) + "': quote text that holds it");
  start_ = offset;
  feed_.progress();
}

void Builder::OnDocumentEnd() {
  if (pending_.empty()) return;
  document_.root = static_cast<std::uint32_t>(tree_.nodes_.size());
  tree_.nodes_.push_back(pending_.back());
  tree_.documents_.push_back(std::move(document_));
}

void Builder::OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) {
  const auto offset = static_cast<std::size_t>(mark.pos);
  Node node;
  node.flow = in_flow();
  const bool written = is_null_word(word_at(source_.text, offset));
  const Place place = source_.place(frames_.empty() ? start_
                                    : written       ? offset
                                                    : empty_value(source_.text, offset));
  node.line = place.line;
  node.column = place.column;
  if (at_key()) {
    document_.traps.push_back(
        item(place, "yaml-null", "a key may not be null: quote it if it is text"));
    node.kind = Kind::kScalar;
  } else if (!frames_.empty()) {
    const bool keyed = frames_.back().node.kind == Kind::kMap;
    const bool colon = !keyed || colon_follows(source_.text, last_.end);
    if (written) {
      document_.traps.push_back(
          item(place, "yaml-null", "null is no value here: leave the key out, or quote text"));
    } else if (!colon) {
      const Node& key = pending_.back();
      const std::string_view around = std::string_view(source_.text).substr(frames_.back().offset);
      const bool braced = around.substr(0, 1) == "{" && around.substr(1).starts_with(key.text) &&
                          around.substr(1 + key.text.size()).starts_with('}');
      std::string text(braced ? "'{" : "'");
      text += key.text;
      text += braced ? "}' must be quoted: text that begins with '{' is read as a map"
                     : "' has no value: inside { } a comma begins the next key, so quote a value "
                       "that holds one";
      node.line = key.line;
      node.column = key.column;
      document_.traps.push_back(
          item(key.place(), braced ? "yaml-flow" : "yaml-comma", std::move(text)));
    } else {
      const Place at = keyed ? pending_.back().place() : place;
      node.line = at.line;
      node.column = at.column;
      document_.traps.push_back(
          item(at, "yaml-null",
               keyed ? "the key has no value: write one, or leave the key out" : "an empty item"));
    }
  }
  add(node, anchor, 1, 0);
}

void Builder::OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) {
  const auto offset = static_cast<std::size_t>(mark.pos);
  const Anchored& target = anchors_[anchor - 1];
  if (target.open) stop(offset, "yaml-alias-cycle", "the alias stands inside the value it repeats");
  if (at_key())
    stop(offset, "yaml-alias", "an alias cannot be a key: quote a key that begins with '*'");
  if (frames_.size() + target.height > limits::kConfigDepth)
    stop(offset, "yaml-too-deep",
         "nesting over " + std::to_string(limits::kConfigDepth) + " levels");
  Node node = target.node;
  node.flow = node.flow || in_flow();
  add(node, 0, target.weight, target.height);
}

// A view into the source where the text stands there verbatim, which is nearly always.
std::string_view Builder::keep(std::size_t offset, bool quoted, const std::string& value) {
  const std::string_view source = source_.text;
  const std::size_t from = offset + (quoted ? 1 : 0);
  if (from <= source.size() && source.substr(from, value.size()) == value)
    return source.substr(from, value.size());
  return tree_.texts_.emplace_back(value);
}

void Builder::OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       const std::string& value) {
  const auto offset = static_cast<std::size_t>(mark.pos);
  check_indent(offset);
  check_tag(tag, Kind::kScalar, offset);
  Node node;
  node.kind = Kind::kScalar;
  node.quoted = tag != "?";
  node.flow = in_flow();
  node.line = static_cast<std::uint32_t>(mark.line + 1);
  node.column = static_cast<std::uint32_t>(mark.column + 1);
  node.text = keep(offset, node.quoted, value);
  const bool key = at_key();
  node.reference = !key && node.text.find("${") != std::string_view::npos;
  const std::size_t begin = node.quoted ? skip_properties(source_.text, offset) : offset;
  const std::size_t closed = quote_end(source_.text, begin);
  if (node.quoted && closed == std::string_view::npos)
    stop(begin, kSyntaxCode, "this quote is never closed");
  last_ = {begin, node.quoted && closed > begin ? closed : begin + value.size()};
  if (key && node.text.find("${") != std::string_view::npos)
    document_.traps.push_back(
        item(node.place(), "env-in-key", "'" + value + "': ${…} stands in values, not in keys"));
  if (key && !node.quoted && value == "<<")
    document_.traps.push_back(
        item(node.place(), "yaml-merge-key",
             "merge keys are not read: share settings with `policies` and `use`"));
  add(node, anchor, 1, 0);
}

void Builder::open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                   YAML::EmitterStyle::value style, Kind kind) {
  const auto offset = static_cast<std::size_t>(mark.pos);
  const bool flow = in_flow() || style == YAML::EmitterStyle::Flow;
  if (!flow) check_indent(offset);
  check_tag(tag, kind, offset);
  if (at_key())
    stop(offset, "yaml-key",
         "a key must be text: quote one that begins with '{' or '[', or close the bracket before "
         "it");
  if (frames_.size() >= limits::kConfigDepth)
    stop(offset, "yaml-too-deep",
         "nesting over " + std::to_string(limits::kConfigDepth) + " levels");
  Frame frame{{}, pending_.size(), offset, anchor, 1, 0};
  frame.node.kind = kind;
  frame.node.flow = flow;
  frame.node.line = static_cast<std::uint32_t>(mark.line + 1);
  frame.node.column = static_cast<std::uint32_t>(mark.column + 1);
  if (anchor != 0) anchors_.resize(std::max<std::size_t>(anchors_.size(), anchor));
  count(1, offset);
  frames_.push_back(frame);
  feed_.progress();
}

void Builder::close() {
  Frame frame = frames_.back();
  if (frame.node.kind == Kind::kMap) drop_duplicates(frame);
  frames_.pop_back();
  const std::size_t children = pending_.size() - frame.start;
  frame.node.first = static_cast<std::uint32_t>(tree_.nodes_.size());
  frame.node.count =
      static_cast<std::uint32_t>(frame.node.kind == Kind::kMap ? children / 2 : children);
  const auto from = pending_.begin() + static_cast<std::ptrdiff_t>(frame.start);
  tree_.nodes_.insert(tree_.nodes_.end(), from, pending_.end());
  pending_.resize(frame.start);
  nodes_ -= frame.weight;  // add() counts it again, with its parent
  add(frame.node, frame.anchor, frame.weight, frame.height + 1);
}

void Builder::add(const Node& node, std::size_t anchor, std::size_t weight, std::size_t height) {
  if (anchor != 0) {
    anchors_.resize(std::max<std::size_t>(anchors_.size(), anchor));
    anchors_[anchor - 1] = {node, weight, height, false};
  }
  pending_.push_back(node);
  if (!frames_.empty()) {
    frames_.back().weight += weight;
    frames_.back().height = std::max(frames_.back().height, height);
  }
  count(weight, frames_.empty() ? 0 : frames_.back().offset);
  feed_.progress();
}

// The later of two goes, so that nothing further is said of it.
void Builder::drop_duplicates(const Frame& frame) {
  const std::size_t entries = (pending_.size() - frame.start) / 2;
  const auto key = [&](std::size_t entry) -> const Node& {
    return pending_[frame.start + 2 * entry];
  };
  std::vector<std::size_t> dropped;
  const auto check = [&](std::size_t first, std::size_t second) {
    std::string text = "duplicate key '";
    text += key(second).text;
    text += "', first at " + source_.name + ":" + std::to_string(key(first).line) + ":" +
            std::to_string(key(first).column);
    Diagnostics::Item found = item(key(second).place(), "duplicate-key", std::move(text));
    if (!found.path.empty()) found.path += '.';
    found.path += key(second).text;
    diagnostics_.add(std::move(found));
    dropped.push_back(second);
  };
  if (entries <= 12) {
    for (std::size_t i = 1; i < entries; ++i)
      for (std::size_t j = 0; j < i; ++j)
        if (key(i).text == key(j).text) {
          check(j, i);
          break;
        }
  } else {
    std::vector<std::size_t> order(entries);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return key(a).text < key(b).text; });
    for (std::size_t i = 1, first = 0; i < entries; ++i) {
      if (key(order[i]).text == key(order[first]).text)
        check(order[first], order[i]);
      else
        first = i;
    }
    std::sort(dropped.begin(), dropped.end());
  }
  if (dropped.empty()) return;
  std::size_t kept = 0;
  auto next = dropped.begin();
  for (std::size_t i = 0; i < entries; ++i) {
    if (next != dropped.end() && *next == i) {
      ++next;
      continue;
    }
    pending_[frame.start + 2 * kept] = pending_[frame.start + 2 * i];
    pending_[frame.start + 2 * kept + 1] = pending_[frame.start + 2 * i + 1];
    ++kept;
  }
  pending_.resize(frame.start + 2 * kept);
}

void Builder::syntax(const YAML::Exception& error) {
  const auto offset =
      error.mark.is_null() ? source_.text.size() : static_cast<std::size_t>(error.mark.pos);
  std::size_t open = std::string_view::npos;
  if (in_flow())
    for (const Frame& frame : frames_)
      if (source_.text[frame.offset] == '{' || source_.text[frame.offset] == '[')
        open = frame.offset;
  TextError found = explain_syntax(source_.text, offset, error.msg, last_, open);
  // No path: the scanner reads ahead, so the open frames need not be where it failed.
  diagnostics_.add({&source_,
                    source_.place(found.offset),
                    Severity::kError,
                    {},
                    std::move(found.text),
                    std::move(found.code),
                    {}});
}

const Node* Tree::find(const Node& map, std::string_view key) const {
  if (map.kind != Kind::kMap) return nullptr;
  for (std::uint32_t i = 0; i < map.count; ++i)
    if (this->key(map, i).text == key) return &value(map, i);
  return nullptr;
}

bool parse(Source& source, Diagnostics& diagnostics, Tree& tree) {
  if (const auto found = check_bytes(source.text)) {
    diagnostics.add(
        {&source, source.place(found->offset), Severity::kError, {}, found->text, found->code, {}});
    return false;
  }
  if (source.text.starts_with("\xEF\xBB\xBF")) source.text.erase(0, 3);
  return Builder(source, diagnostics, tree).run();
}

}  // namespace outrider::config::yaml
