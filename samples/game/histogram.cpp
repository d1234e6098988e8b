#include "histogram.h"

#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>

namespace {

constexpr int kWidth = 960, kHeight = 420, kLeft = 60, kRight = 20, kTop = 60, kBottom = 50, kZoom = 2;

// Five rows of three dots per sign, the top row in the highest bits.
int glyph(char sign) {
  static constexpr int kDigits[] = {075557, 026227, 071747, 071717, 055711,
                                    074717, 074757, 071222, 075757, 075717};
  static constexpr int kLetters[] = {025755, 065656, 034443, 065556, 074647, 074644, 034553, 055755, 072227,
                                     011152, 055655, 044447, 057755, 065555, 025552, 065644, 025563, 065655,
                                     034216, 072222, 055557, 055522, 055775, 055255, 055222, 071247};
  if (sign >= '0' && sign <= '9') return kDigits[sign - '0'];
  if (sign >= 'a' && sign <= 'z') return kLetters[sign - 'a'];
  return sign == '.' ? 2 : 0;
}

class Canvas {
 public:
  Canvas() : pixels_(static_cast<size_t>(kWidth) * kHeight * 3, 255) {}

  void box(int left, int top, int right, int bottom, unsigned color) {
    for (int y = std::max(top, 0); y < std::min(bottom, kHeight); ++y) {
      for (int x = std::max(left, 0); x < std::min(right, kWidth); ++x) {
        for (int c = 0; c < 3; ++c) pixels_[(y * kWidth + x) * 3 + c] = color >> (16 - 8 * c) & 255;
      }
    }
  }
  void text(int x, int y, const std::string& line, unsigned color) {
    for (const char sign : line) {
      for (int dot = 0; dot < 15; ++dot) {
        if (!(glyph(sign) >> (14 - dot) & 1)) continue;
        const int left = x + dot % 3 * kZoom, top = y + dot / 3 * kZoom;
        box(left, top, left + kZoom, top + kZoom, color);
      }
      x += 4 * kZoom;
    }
  }
  void write(const std::string& path) const {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    image.width = kWidth;
    image.height = kHeight;
    image.format = PNG_FORMAT_RGB;
    if (!png_image_write_to_file(&image, path.c_str(), 0, pixels_.data(), 0, nullptr)) {
      throw std::runtime_error(path + " cannot be written: " + image.message);
    }
  }

 private:
  std::vector<uint8_t> pixels_;
};

std::string number(double value) {
  std::string text = std::to_string(value);
  return text.substr(0, text.find('.'));
}

}  // namespace

void write_histogram(const std::string& path, const std::vector<Series>& series,
                     const std::vector<Mark>& marks, double limit) {
  constexpr int kBars = 220;
  const int span = kWidth - kLeft - kRight, floor = kHeight - kBottom, height = floor - kTop;
  std::vector<std::vector<int>> counts;
  int most = 1;
  for (const Series& one : series) {
    std::vector<int>& bars = counts.emplace_back(kBars, 0);
    for (const double value : one.values) {
      most = std::max(most, ++bars[std::clamp(static_cast<int>(value / limit * kBars), 0, kBars - 1)]);
    }
  }
  const double decades = std::ceil(std::log10(most)) + 0.3;
  const auto y_of = [&](double count) {
    return floor - static_cast<int>((std::log10(count) + 0.3) / decades * height);
  };
  const auto x_of = [&](double ms) { return kLeft + static_cast<int>(ms / limit * span); };

  Canvas canvas;
  for (double count = 1; count <= most; count *= 10) {
    canvas.box(kLeft, y_of(count), kWidth - kRight, y_of(count) + 1, 0xDDDDDD);
    canvas.text(kLeft - 8 - 8 * static_cast<int>(number(count).size()), y_of(count) - 5, number(count),
                0x666666);
  }
  for (int ms = 0; ms <= limit; ms += 2) {
    canvas.box(x_of(ms), floor, x_of(ms) + 1, floor + 5, 0x666666);
    canvas.text(x_of(ms) - 4, floor + 10, number(ms), 0x666666);
  }
  canvas.text(kWidth - kRight - 24 * 8, kHeight - 18, "milliseconds in a frame", 0x666666);
  canvas.text(8, kTop - 24, "frames", 0x666666);
  for (size_t s = 0; s < series.size(); ++s) {
    for (int bar = 0; bar < kBars; ++bar) {
      if (counts[s][bar] == 0) continue;
      const int left = kLeft + bar * span / kBars;
      canvas.box(left, y_of(counts[s][bar]), left + span / kBars, floor, series[s].color);
    }
    const int left = kLeft + 100 + static_cast<int>(s) * 260;
    canvas.box(left, 12, left + 12, 24, series[s].color);
    canvas.text(left + 20, 13, series[s].name, 0x333333);
  }
  for (const Mark& mark : marks) {
    canvas.box(x_of(mark.at), kTop - 12, x_of(mark.at) + 2, floor, 0xCC0000);
    canvas.text(std::min(x_of(mark.at) + 6, kWidth - 8 * static_cast<int>(mark.name.size())), kTop - 12,
                mark.name, 0xCC0000);
  }
  canvas.box(kLeft, floor, kWidth - kRight, floor + 1, 0x666666);
  canvas.write(path);
}
