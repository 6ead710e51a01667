// The flag of every command that draws at random.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace epsim {

// --seed N, a whole number from 0 to 2^64 - 1.  `seed` outlives the parsing.
inline CLI::Option* AddSeedFlag(CLI::App* command, std::optional<uint64_t>* seed, const std::string& doc) {
  // As text: the reader of numbers would take "-1" for 2^64 - 1.
  return command
      ->add_option_function<std::string>(
          "--seed",
          [seed](const std::string& text) {
            uint64_t value;
            if (!absl::SimpleAtoi(text, &value)) {
              throw CLI::ValidationError("--seed", absl::StrCat(text, " is not a whole number from 0 to 2^64 - 1"));
            }
            *seed = value;
          },
          doc)
      ->type_name("UINT");
}

}  // namespace epsim
