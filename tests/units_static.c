// A private copy in C with its own limit of cores; main calls the private copy in C++ as well.
#define TT_STATIC
#define TT_MAX_ORDER 20
#define TT_IMPLEMENTATION
#include "../tt.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#define UNITS_MAKE make_here
#define UNITS_ERROR error_here
static tt_status make_here(tt_matrix *out);
static double error_here(const tt_matrix *w);
#include "units_body.h"

int units_static_cpp(void);                        // number of failures in the other copy

static int passed, failed;
static void check(int good, const char *what) {
  if (good) passed++;
  else { failed++; printf("failed: %s\n", what); }
}

int main(void) {
  tt_matrix w;
  tt_shape shape;
  check(make_here(&w) == TT_OK && error_here(&w) < 1e-5, "the copy in C works");
  tt_free(&w);
  check(tt_shape_factor(1 << 20, 1, 20, &shape) == TT_OK && shape.order == 20,
        "the copy in C has 20 cores");
  check(units_static_cpp() == 0, "the copy in C++ works and has 16 cores");
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
