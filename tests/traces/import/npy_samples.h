// .npy files for tests.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace epsim {

// The bytes of a .npy file, as numpy/lib/format.py describes them: the header is padded so that data begin at a
// multiple of 64.
inline std::string Npy(int major, const std::string& dict, const std::string& data) {
  const size_t fixed = major == 1 ? 10 : 12;
  std::string header = dict;
  while ((fixed + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::string bytes("\x93NUMPY", 6);
  bytes += static_cast<char>(major);
  bytes += '\0';
  for (size_t i = 0; i < fixed - 8; ++i) bytes += static_cast<char>(header.size() >> (8 * i) & 0xff);
  return bytes + header + data;
}

inline std::string Dict(const std::string& descr, const std::string& shape) {
  return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }";
}

// Numbers as `bytes`-byte little-endian integers.
inline std::string Numbers(const std::vector<int64_t>& values, int bytes) {
  std::string data;
  for (const int64_t value : values) {
    for (int i = 0; i < bytes; ++i) data += static_cast<char>(static_cast<uint64_t>(value) >> (8 * i) & 0xff);
  }
  return data;
}

}  // namespace epsim
