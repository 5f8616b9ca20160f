// The one unit that holds the code. Layers are made on a computer: here they only run.
#define TT_INFERENCE_ONLY
#define TT_IMPLEMENTATION
#include "tt.h"
