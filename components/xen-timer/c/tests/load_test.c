// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// load_test LIBRARY: loads it as a plugin would be, with every symbol that it needs, and by dlsym()
// alone has a timer made.
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "xen_timer.h"

static void* find(void* library, const char* name) {
  void* found = dlsym(library, name);
  if (found == NULL) fprintf(stderr, "%s\n", dlerror());
  return found;
}

int main(int argc, char** argv) {
  void* library = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
  if (library == NULL) {
    fprintf(stderr, "%s\n", argc == 2 ? dlerror() : "load_test LIBRARY");
    return 1;
  }
  uint32_t (*version)(void);
  int (*create)(const struct xen_timer_callbacks*, uint32_t, uint32_t, struct xen_timer_handler**,
                struct xen_timer_error*);
  void* symbols[] = {find(library, "xen_timer_version"), find(library, "xen_timer_create")};
  if (symbols[0] == NULL || symbols[1] == NULL) return 1;
  memcpy(&version, &symbols[0], sizeof(version));
  memcpy(&create, &symbols[1], sizeof(create));

  struct xen_timer_error error = {NULL, 0, 0};
  struct xen_timer_handler* timer;
  if (create(NULL, XEN_TIMER_VIRTUAL, 1, &timer, &error) == 0 || error.operation == NULL) return 1;
  printf("%u.%u: %s\n", version() >> 16, version() >> 8 & 0xff, error.operation);
  return dlclose(library);
}
