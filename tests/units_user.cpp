// A user in C++: declarations only.
#include "units.h"
#include <math.h>
#include <string.h>
#define UNITS_MAKE units_cpp_make
#define UNITS_ERROR units_cpp_error
#include "units_body.h"
