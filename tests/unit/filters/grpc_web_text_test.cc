#include "filters/grpc_web_text.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace outrider {
namespace {

struct Decoded {
  std::string text;
  bool sound = true;
};

Decoded decode(const std::vector<std::string_view>& pieces, std::size_t room = 64) {
  TextDecoder decoder;
  Decoded out;
  std::string piece(room, '\0');
  for (std::string_view in : pieces)
    while (!in.empty() && !decoder.bad()) out.text.append(piece, 0, decoder.decode(in, piece));
  out.sound = !decoder.bad() && decoder.between_groups();
  return out;
}

std::string encode(std::string_view in) {
  std::string out(encoded_size(in.size()), '?');
  EXPECT_EQ(encode_text(in, out), out.size());
  return out;
}

TEST(GrpcWebText, EncodesAsRfc4648Shows) {
  const char* const cases[][2] = {{"", ""},
                                  {"f", "Zg=="},
                                  {"fo", "Zm8="},
                                  {"foo", "Zm9v"},
                                  {"foob", "Zm9vYg=="},
                                  {"fooba", "Zm9vYmE="},
                                  {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, text] : cases) {
    EXPECT_EQ(encode(plain), text);
    EXPECT_EQ(decode({text}).text, plain);
  }
}

TEST(GrpcWebText, EveryByteCutAnywhere) {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  // Padded in the middle, as a sender does that lets go of two pieces.
  const std::string text = encode(bytes.substr(0, 100)) + encode(bytes.substr(100));
  for (std::size_t cut = 0; cut <= text.size(); ++cut)
    for (const std::size_t room : {std::size_t{3}, std::size_t{4}, std::size_t{300}}) {
      const Decoded out =
          decode({std::string_view(text).substr(0, cut), std::string_view(text).substr(cut)}, room);
      ASSERT_EQ(out.text, bytes) << cut;
      ASSERT_TRUE(out.sound);
    }
}

TEST(GrpcWebText, RefusesWhatIsNoBase64) {
  for (const std::string_view bad :
       {"Zm9", "Zm9vY", "Zg", "Z===", "====", "Zm=v", "Zm 9", "Zm9v\n", "Zm-_", "Zm9\x80", "Zg=A"})
    EXPECT_FALSE(decode({bad}).sound) << bad;
  EXPECT_EQ(decode({"Zm9vZ*9v"}).text, "foo");
}

}  // namespace
}  // namespace outrider
