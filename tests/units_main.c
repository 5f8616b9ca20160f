// One implementation, users in C and in C++: trains wander between them.
#include "units.h"
#include <stdio.h>

static int passed, failed;
static void check(int good, const char *what) {
  if (good) passed++;
  else { failed++; printf("failed: %s\n", what); }
}

int main(void) {
  tt_matrix from_c, from_cpp;
  check(units_c_make(&from_c) == TT_OK, "C makes a train");
  check(units_cpp_make(&from_cpp) == TT_OK, "C++ makes a train");
  check(units_c_error(&from_c) < 1e-5, "C reads the train of C");
  check(units_c_error(&from_cpp) < 1e-5, "C reads the train of C++");
  check(units_cpp_error(&from_c) < 1e-5, "C++ reads the train of C");
  check(units_cpp_error(&from_cpp) < 1e-5, "C++ reads the train of C++");
  tt_free(&from_c);
  tt_free(&from_cpp);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
