// The private copy in C++ of the program whose main is in units_static.c.
#define TT_STATIC
#define TT_IMPLEMENTATION
#include "../tt.h"
#include <math.h>
#include <string.h>
#define UNITS_MAKE make_here
#define UNITS_ERROR error_here
static tt_status make_here(tt_matrix *out);
static double error_here(const tt_matrix *w);
#include "units_body.h"

extern "C" int units_static_cpp(void);
extern "C" int units_static_cpp(void) {
  tt_matrix w;
  tt_shape shape;
  int failed = make_here(&w) != TT_OK || !(error_here(&w) < 1e-5);
  tt_free(&w);
  return failed + (tt_shape_factor(1 << 20, 1, 20, &shape) != TT_ERROR_INVALID);
}
