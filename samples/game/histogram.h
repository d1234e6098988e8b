// A histogram as a PNG.
#pragma once

#include <string>
#include <vector>

struct Series {
  std::string name;            // small letters, digits and spaces
  std::vector<double> values;  // in milliseconds
  unsigned color;              // 0xRRGGBB
};
struct Mark {
  std::string name;
  double at;
};

// Bars over [0, limit) milliseconds, values beyond in the last bar; counts on a logarithmic scale, so that
// one slow frame among thousands shows. Throws std::runtime_error if the file cannot be written.
void write_histogram(const std::string& path, const std::vector<Series>& series,
                     const std::vector<Mark>& marks, double limit);
