#include "config/variables.h"

#include <gtest/gtest.h>

namespace outrider::config {
namespace {

std::string shown(std::string_view text) {
  std::vector<Piece> pieces;
  const std::string error = split_text(text, pieces);
  if (!error.empty()) return "error: " + error;
  std::string out;
  for (const Piece& piece : pieces) {
    if (piece.variable)
      out += "<" + std::to_string(static_cast<int>(piece.variable->kind)) + ":" +
             std::string(piece.variable->argument) + ">";
    else
      out += "[" + std::string(piece.literal) + "]";
  }
  return out;
}

TEST(Variables, TextIsLiteralAroundVariables) {
  EXPECT_EQ(shown(""), "");
  EXPECT_EQ(shown("plain 100%"), "[plain 100%]");
  EXPECT_EQ(shown("%{time}"), "<0:>");
  EXPECT_EQ(shown("a %{header X-Id} b%{tls}"), "[a ]<22:X-Id>[ b]<21:>");
  EXPECT_EQ(shown("%{path.id}/%{query q}/%{cookie sid}"), "<25:id>[/]<23:q>[/]<24:sid>");
}

TEST(Variables, DoubledPercentIsTheTextItself) {
  EXPECT_EQ(shown("a%%{time}"), "[a][%{time}]");
  EXPECT_EQ(shown("%%{"), "[%{]");
  EXPECT_EQ(shown("%%{a%{time}"), "[%{a]<0:>");
  EXPECT_EQ(shown("%%"), "[%%]");
}

TEST(Variables, KeysAreOtherNamesOfFields) {
  EXPECT_EQ(variable_of("client.ip")->kind, VariableKind::kClient);
  EXPECT_EQ(variable_of("client.id")->kind, VariableKind::kClientId);
}

TEST(Variables, EveryNameIsKnownAndEveryBeginningWantsAnArgument) {
  for (const std::string_view name : variable_names()) {
    const bool beginning = name.back() == ' ' || name.back() == '.';
    EXPECT_NE(variable_of(name).has_value(), beginning) << name;
    EXPECT_TRUE(!beginning || variable_of(std::string(name) + "x").has_value()) << name;
  }
}

TEST(Variables, WrongOnesAreErrors) {
  EXPECT_EQ(shown("%{nope}"), "error: unknown variable 'nope'");
  EXPECT_EQ(shown("%{}"), "error: unknown variable ''");
  EXPECT_EQ(shown("%{header a b}"), "error: unknown variable 'header a b'");
  EXPECT_EQ(shown("%{header }"), "error: unknown variable 'header '");
  EXPECT_EQ(shown("%{ time }"), "error: unknown variable ' time '");
  EXPECT_EQ(shown("x%{time"), "error: '%{' without '}' (write '%%{' for the text itself)");
}

}  // namespace
}  // namespace outrider::config
