// Starts the sanitizer before any library's constructor, in programs that are not built with it.
//
// nbdkit gets it preloaded, and it would start at the first malloc: that of p11-kit's constructor,
// inside newlocale(), which holds the C library's lock of locales. Starting asks dlerror(), which
// takes and returns that lock too and leaves it broken: at exit p11-kit would wait for it for ever.
// This library is preloaded behind it and linked with -z initfirst. Threads: none yet.
#include <cstdlib>

namespace {

__attribute__((constructor)) void start() {
  void* volatile anything = std::malloc(1);
  std::free(anything);
}

}  // namespace
