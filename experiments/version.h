#pragma once

namespace epsim {
inline constexpr char kVersion[] = "0.1.0";
}  // namespace epsim
