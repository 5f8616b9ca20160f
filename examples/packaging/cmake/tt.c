// The one unit that holds the code.
#define TT_IMPLEMENTATION
#include "tt.h"
