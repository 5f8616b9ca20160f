// A user in C: declarations only.
#include "units.h"
#include <math.h>
#include <string.h>
#define UNITS_MAKE units_c_make
#define UNITS_ERROR units_c_error
#include "units_body.h"
