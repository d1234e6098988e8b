#include "tests/text/corpus.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <random>
#include <string_view>
#include <utility>

#include "text/utf8.h"

namespace dsv::test {
namespace {

// The standard fixes what mt19937_64 returns, but not what its distributions make of it.
class Random {
 public:
  explicit Random(uint64_t seed) : next_(seed) {}
  size_t below(size_t n) { return next_() % n; }
  bool one_in(size_t n) { return below(n) == 0; }
  // Below n, small values more often: each power of two as often as the next.
  size_t small(size_t n) {
    size_t bits = 0;
    while (size_t{1} << bits < n) ++bits;
    return below(std::min(n, size_t{1} << below(bits + 1)));
  }
  template <class List>
  const auto& of(const List& list) {
    return list[below(std::size(list))];
  }
  // The first ones more often, by the block of 64.
  template <class List>
  const auto& common_of(const List& list) {
    const size_t block = small(std::size(list) / 64);
    return list[block * 64 + below(64)];
  }

 private:
  std::mt19937_64 next_;
};

// Unlike operands of +, the elements of a list are made in order.
std::string joined(std::initializer_list<std::string> parts) {
  std::string out;
  for (const std::string& part : parts) out += part;
  return out;
}

std::string utf8(char32_t value) {
  std::string out;
  append_utf8(out, value);
  return out;
}

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

constexpr std::string_view kCode[] = {
    "#include <%w/%w.h>",
    "#define %W_%W(%i) (((%i) + %n) & ~%x)",
    "// %p",
    "/* %p\n * %p\n */",
    "static inline uint%n_t %i(const struct %i *%i, size_t %i) {",
    "for (int %i = 0; %i < %n; ++%i) {",
    "if (%i->%i[%n] != nullptr && !%i.empty()) return %i::%i<%i>(%i, %f);",
    "} else {",
    "}",
    "};",
    "std::vector<std::pair<%i, %i>> %i{{%n, \"%p\"}, {%n, R\"(%w)\"}};",
    "template <class %w, int32_t... %w>",
    "printf(\"%%d %%s\\n\", %i, %i);  // %p",
    "asm volatile(\"vfmadd231ps %%zmm%n, %%zmm%n, %%zmm%n\" ::: \"memory\");",
    "def %i(self, %i: int = %n, *%i, **%i) -> Optional[%i]:",
    "    \"\"\"%p\n\n    %p.\n    \"\"\"",
    "return [%i for %i in %i.%i() if %i % %n == 0]",
    "@%i.%i('%w', %w=%f)",
    "import %i as %i, %i",
    "raise ValueError(f'%w {%i!r}: %p')  # %p",
    "x = np.zeros((%n, %n), dtype=np.float32)[..., None, :-%n]",
    "lambda %i: %i if %i else {'%i': %n, \"%i\": None}",
    "fn %i<'a>(&mut self, %i: &'a [u8]) -> Result<Vec<%i>, Box<dyn %w>> {",
    "let %i = %i.iter().map(|%i| %i * %f).sum::<f64>()?;",
    "const %i = async ({%i, ...%i}) => await fetch(`/api/${%i}/%w?%w=%n`);",
    "%i?.%i ||= %i === '%w' ? %n : void 0;",
    "public final class %i extends %i<? super %i> implements %i {",
    "SELECT %w, COUNT(*) FROM %i WHERE %i >= %n AND %i LIKE '%%%w%%' GROUP BY %n;",
    "<div class=\"%w-%w %w\" id='%w%n' style=\"width:%n%%\">%p</div>",
    "<!-- %p --><br/>&nbsp;&#%n;",
    "{\"%i\": [%n, %f, true, null], \"%w\": {\"%w\": \"%p\\n\\u00e9\"}},",
    "  - %w: \"%w\"  # %p",
    "$ %w -%w --%w=%n ./%w/%w.tar.gz | grep -E '^[a-z]+$' > /dev/null 2>&1 &",
    "export %W=\"${%W:-/usr/local/%w}\" && [[ -n $1 ]] || exit %n",
    "\\begin{%w} \\frac{%n}{%w_{%n}} \\cdot \\sum_{i=0}^{%n} \\alpha_i $x^2$ \\\\",
    "| %w | %n | %f |",
    "|---|:-:|---:|",
    "## %p",
    "* **%w** _%w_ `%i(%i)` [%w](https://www.%w.com/%w/%i?%w=%n#%w)",
    "%x: %x %x %x  %w\t%w",
    "2%n-0%n-1%n 12:%n:%n.%n [%W] %i.%i(%i): %p",
    "@@ -%n,%n +%n,%n @@ %i",
    "module %i (input wire [%n:0] %i, output reg %i);",
    "<｜DSML｜%w name=\"%i\" string=\"true\">%p</｜DSML｜%w>",
    "",
};

constexpr std::string_view kMarkers[] = {"<think>",
                                         "</think>",
                                         "｜DSML｜",
                                         "<｜DSML｜invoke name=\"",
                                         "</｜DSML｜invoke>",
                                         "<｜",
                                         "｜>",
                                         "▁of▁",
                                         "<｜end▁of",
                                         "<|endoftext|>",
                                         "<th",
                                         "ink>",
                                         "</",
                                         "｜DSML",
                                         "DSML｜",
                                         "｜"};

constexpr std::string_view kSpaces[] = {" ",      " ",      " ",      "\n",     "\n",     "\t",
                                        "\r\n",   "\r",     "\v",     "\f",     "\u0085", "\u00A0",
                                        "\u1680", "\u180E", "\u2003", "\u2009", "\u200B", "\u2028",
                                        "\u2029", "\u202F", "\u205F", "\u3000", "\uFEFF"};

constexpr std::string_view kUnits[] = {
    "a",      " ",      "\n",     "\r\n",   "\t",         "0",       "7",
    "!",      "-=",     "ab",     "A",      "aB",         " a",      "  \n",
    "\u00A0", "\u3000", "中",     "中文",   "あ",         "é",       "e\u0301",
    "\u0301", "ا",      "अ",      "한",     "𝒳",          "😀",       "👨\u200D👩\u200D👧",
    "🇩🇪",     "=",      "/",      "_",      "</",         "<think>", "'s",
    "١",      "½",      "\u180E", "\u0378", "\U0010FFFF", "the ",    "1,",
    "\\n",    "hello",  " \n"};

constexpr std::string_view kEnds[] = {". ",  ".",    ", ",     "; ",       "? ",  "! ",   ": ",
                                      " - ", "... ", "\n",     "\n\n",     ".\n", " (",   ") ",
                                      " \"", "\" ",  "\u2014", "\u2019s ", "'s ", "'LL ", "'t "};

class Writer {
 public:
  explicit Writer(const Tokenizer& tokenizer) {
    for (int32_t id = 0; id < tokenizer.size(); ++id) {
      std::string token(tokenizer.bytes(id));
      if (token.empty()) continue;
      if (tokenizer.find(token) == id) {
        markers_.push_back(std::move(token));
      } else if (token.size() > 1 && token[0] == ' ' &&
                 std::all_of(token.begin() + 1, token.end(), is_letter)) {
        words_.push_back(token.substr(1));
      } else if (is_utf8(token) && ascii_prefix(token) < token.size()) {
        foreign_.push_back(std::move(token));
      } else {
        others_.push_back(std::move(token));
      }
    }
    markers_.insert(markers_.end(), std::begin(kMarkers), std::end(kMarkers));
  }

  std::vector<CorpusSection> run() {
    section("prose", 3 << 20, [&] { return sentence(); });
    section("code", 4 << 20, [&] { return line(); });
    section("foreign", 2 << 20, [&] { return foreign(); });
    section("tokens", 1 << 20, [&] { return random_.of(others_); });
    section("numbers", 1 << 19, [&] { return joined({number(), std::string(random_.of(kEnds))}); });
    section("spaces", 1 << 19, [&] { return spaces(); });
    section("emoji", 1 << 19, [&] { return emoji(); });
    section("markers", 1 << 19, [&] { return marker(); });
    code_points();
    section("runs", 1 << 20, [&] { return run_of(random_.of(kUnits), 1 << 12); });
    section("bytes", 1 << 19, [&] { return bytes(); });
    return std::move(sections_);
  }

 private:
  // Texts of 1 byte to 64 KB from what `next` returns.
  template <class Next>
  void section(std::string name, size_t size, const Next& next) {
    CorpusSection section{std::move(name), {}};
    for (size_t written = 0; written < size;) {
      crlf_ = random_.one_in(8);
      indent_unit_ = random_.of(std::array<std::string_view, 3>{"  ", "    ", "\t"});
      indent_ = 0;
      std::string text;
      const size_t target = random_.small(size_t{1} << 16) + 1;
      while (text.size() < target) text += next();
      written += text.size();
      section.texts.push_back(std::move(text));
    }
    sections_.push_back(std::move(section));
  }

  std::string word() {
    std::string word = random_.common_of(words_);
    while (random_.one_in(16)) word += random_.common_of(words_);  // a word that no token is
    if (random_.one_in(32)) {
      for (char& c : word) c = static_cast<char>(c & ~0x20);
    }
    if (random_.one_in(40)) word[random_.below(word.size())] = static_cast<char>('a' + random_.below(26));
    return word;
  }

  std::string sentence() {
    std::string out;
    for (size_t n = 1 + random_.small(20); n-- > 0;) {
      out += word();
      if (n > 0) out += random_.one_in(50) ? "  " : " ";
    }
    if (random_.one_in(6)) out += " " + number();
    return out + std::string(random_.of(kEnds));
  }

  std::string identifier() {
    std::string out = word();
    while (random_.one_in(2)) {
      std::string next = word();
      if (random_.one_in(2)) {
        out += "_";
      } else {
        next[0] = static_cast<char>(next[0] & ~0x20);
      }
      out += next;
    }
    return out;
  }

  std::string number() {
    std::string digits;
    for (size_t n = 1 + random_.small(14); n-- > 0;) digits += static_cast<char>('0' + random_.below(10));
    switch (random_.below(12)) {
      case 0:
        return digits + "." + std::to_string(random_.below(1000));
      case 1:
        return "-" + digits + "e-" + std::to_string(random_.below(40));
      case 2:
        return "0x" + hex();
      case 3:
        return "$" + digits + ",000";
      case 4: {  // digits of another script
        constexpr char32_t kZeros[] = {0x660, 0x6F0, 0x966, 0xE50, 0xFF10, 0x1D7CE, 0x1E4F0, 0x11F50};
        const char32_t zero = random_.of(kZeros);
        std::string out;
        for (const char digit : digits) out += utf8(zero + static_cast<char32_t>(digit - '0'));
        return out;
      }
      case 5:
        return utf8(static_cast<char32_t>(0x2150 + random_.below(0x40))) + digits + "\u00B2";
      default:
        return digits;
    }
  }

  std::string hex() {
    std::string out;
    for (size_t n = 1 + random_.below(16); n-- > 0;) out += "0123456789abcdef"[random_.below(16)];
    return out;
  }

  // One line of a program.
  std::string line() {
    const std::string_view format = random_.of(kCode);
    if (format.starts_with("}") && indent_ > 0) --indent_;
    std::string out;
    for (size_t i = 0; i < indent_; ++i) out += indent_unit_;
    for (size_t at = 0; at < format.size(); ++at) {
      if (format[at] != '%') {
        out += format[at];
        continue;
      }
      switch (format[++at]) {
        case 'i':
          out += identifier();
          break;
        case 'w':
          out += word();
          break;
        case 'W':
          for (const char c : word()) out += static_cast<char>(c & ~0x20);
          break;
        case 'n':
          out += std::to_string(random_.small(100000));
          break;
        case 'f':
          out += joined({std::to_string(random_.small(1000)), ".", std::to_string(random_.below(100)), "f"});
          break;
        case 'x':
          out += "0x" + hex();
          break;
        case 'p':
          out += random_.one_in(10) ? foreign() : sentence();
          break;
        default:
          out += format[at];  // %%
      }
    }
    if (format.ends_with("{") || format.ends_with(":")) ++indent_;
    if (indent_ > 8 || random_.one_in(12)) indent_ = random_.below(3);
    if (random_.one_in(20)) out += spaces();
    return out + (crlf_ ? "\r\n" : "\n");
  }

  // Text of a few neighbouring scripts: tokens that were learnt together stand near each other only by
  // chance, so pieces of one first code point are drawn again until they meet.
  std::string foreign() {
    std::string out;
    const std::string* last = &random_.of(foreign_);
    for (size_t n = 1 + random_.below(12); n-- > 0;) {
      const std::string* next = &random_.of(foreign_);
      for (int i = 0; i < 20 && (*next)[(*next)[0] == ' '] != (*last)[(*last)[0] == ' ']; ++i) {
        next = &random_.of(foreign_);
      }
      out += *next;
      if (random_.one_in(12)) out += random_.of(kEnds);
      if (random_.one_in(16)) out += word();
      last = next;
    }
    return out;
  }

  std::string spaces() {
    std::string out;
    for (size_t n = 1 + random_.small(12); n-- > 0;) {
      out += random_.one_in(4) ? run_of(random_.of(kSpaces), 16) : random_.of(kSpaces);
    }
    switch (random_.below(6)) {
      case 0:
        return out + number();
      case 1:
        return out + std::string(random_.of(kEnds));
      case 2:
        return out + random_.of(foreign_);
      default:
        return out + word();
    }
  }

  std::string emoji() {
    const auto any = [&](char32_t first, char32_t last) {
      return utf8(first + static_cast<char32_t>(random_.below(last - first + 1)));
    };
    const auto picture = [&] { return random_.one_in(4) ? any(0x2600, 0x27BF) : any(0x1F300, 0x1FAFF); };
    std::string out;
    switch (random_.below(6)) {
      case 0:  // a family
        for (size_t n = 1 + random_.below(4); n-- > 0;) out += picture() + utf8(0x200D);
        return out + picture();
      case 1:
        return joined({picture(), any(0x1F3FB, 0x1F3FF), utf8(0xFE0F)});
      case 2:  // flags, also halves of them
        for (size_t n = 1 + random_.below(6); n-- > 0;) out += any(0x1F1E6, 0x1F1FF);
        return out;
      case 3:  // a key, a flag of tags
        return random_.one_in(2) ? any('0', '9') + utf8(0xFE0F) + utf8(0x20E3)
                                 : utf8(0x1F3F4) + any(0xE0061, 0xE007A) + utf8(0xE007F);
      case 4:  // letters under heaps of marks
        for (const char c : word()) {
          out += c;
          for (size_t n = random_.below(8); n-- > 0;)
            out += random_.one_in(6) ? any(0x20D0, 0x20F0) : any(0x300, 0x36F);
        }
        return out;
      default:
        return joined({picture(), sentence()});
    }
  }

  // An added token, whole or cut, in text or against another.
  std::string marker() {
    std::string out = random_.of(markers_);
    if (random_.one_in(3)) {
      const size_t begin = random_.below(out.size());
      out = replace_invalid_utf8(out.substr(begin, random_.below(out.size() - begin) + 1));
    }
    return out + (random_.one_in(2) ? sentence() : random_.one_in(2) ? spaces() : "");
  }

  // Every code point of the planes that have any, a sample of the others, in changing company.
  void code_points() {
    CorpusSection section{"code points", {}};
    constexpr std::string_view kCompany[] = {"",   "",  "a",  " ",      "1",  ",",
                                             "\n", "é", "中", "\u0301", " b", "$"};
    std::string text;
    for (char32_t value = 0; value <= 0x10FFFF; ++value) {
      if (value >= 0xD800 && value <= 0xDFFF) continue;
      const bool is_empty_plane = (value >= 0x40000 && value < 0xE0000) || value >= 0xF0000;
      if (is_empty_plane && !random_.one_in(64)) continue;
      const bool is_uniform = (value >= 0x3400 && value < 0x9F00) || (value >= 0xAC00 && value < 0xD700) ||
                              (value >= 0x20000 && value < 0x40000) || value >= 0xE0200;
      if (is_uniform && !random_.one_in(4)) continue;
      for (size_t n = is_uniform ? 1 : 3; n-- > 0;) {
        text += random_.of(kCompany);
        text += utf8(value);
        text += random_.of(kCompany);
      }
      if (text.size() > 4096) section.texts.push_back(std::exchange(text, {}));
    }
    sections_.push_back(std::move(section));
  }

  std::string run_of(std::string_view unit, size_t limit) {
    std::string out;
    for (size_t n = random_.small(limit); n-- > 0;) out += unit;
    return out;
  }

  // Not UTF-8: bytes at random, or text with a few of them changed.
  std::string bytes() {
    std::string out = random_.one_in(3)   ? std::string(1 + random_.below(40), '\0')
                      : random_.one_in(2) ? foreign()
                                          : emoji();
    if (out[0] == '\0') {
      for (char& c : out) c = static_cast<char>(random_.below(256));
    } else if (random_.one_in(2)) {
      out.resize(1 + random_.below(out.size()));
    } else {
      out[random_.below(out.size())] = static_cast<char>(random_.below(256));
    }
    return out;
  }

  Random random_{20251201};
  // Of the tokenizer, by id, which is by how early they were merged.
  std::vector<std::string> words_, foreign_, others_, markers_;
  std::vector<CorpusSection> sections_;
  // How the current text is laid out.
  bool crlf_ = false;
  std::string_view indent_unit_;
  size_t indent_ = 0;
};

}  // namespace

std::vector<CorpusSection> make_corpus(const Tokenizer& tokenizer) { return Writer(tokenizer).run(); }

}  // namespace dsv::test
