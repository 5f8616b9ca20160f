// The unit that holds the code; it is compiled as C and as C++.
#define TT_IMPLEMENTATION
#include "../tt.h"
