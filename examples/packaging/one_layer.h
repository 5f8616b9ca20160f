// A layer of 4 x 4 as a train of two cores in constant memory, and what it makes of one input. The
// recipes beside this file all run it: y = W x with W = G H, G = (1, 2, 3, 4), H = (1, -1, 1, -1).
// Include after the implementation of tt.h.
#ifndef ONE_LAYER_H
#define ONE_LAYER_H

static const float one_layer_g[4] = {1, 2, 3, 4}, one_layer_h[4] = {1, -1, 1, -1};
static const tt_matrix one_layer = {
    {2, {4, 1}, {1, 4}, {1, 1, 1}},
    TT_RIGHT_TO_LEFT,
    4,
    4,
    {{TT_F32, 0, 0, one_layer_g, 0, 0}, {TT_F32, 0, 0, one_layer_h, 0, 0}},
    0,
    0,
    {0, 0, 0}};

// The last of the four outputs for x = (5, 1, 1, 1), which is 16; -1 if tt_apply refuses.
static float one_layer_run(void) {
  static unsigned char work[2048];
  static const float x[4] = {5, 1, 1, 1};
  float y[4];
  return tt_apply(&one_layer, x, 1, y, work, sizeof work) == TT_OK ? y[3] : -1;
}

#endif
