// Catalogues are folders of .txtpb files whose text is compiled into the library, so a binary needs nothing beside it.
#pragma once

#include <string_view>

#include "absl/types/span.h"

namespace epsim {

struct CatalogueFile {
  std::string_view name;  // "deepseek-v3", the file's stem.
  std::string_view path;  // "models/catalogue/deepseek-v3.txtpb", for messages.
  std::string_view text;
};

// The entry called `name`, or null.
inline const CatalogueFile* FindInCatalogue(absl::Span<const CatalogueFile> files, std::string_view name) {
  for (const CatalogueFile& file : files) {
    if (file.name == name) return &file;
  }
  return nullptr;
}

}  // namespace epsim
