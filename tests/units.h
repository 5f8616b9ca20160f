// What the units of this program call in each other. Every user makes a train in one unit and reads
// it in another, so that a disagreement about the layout of a struct would show.
#ifndef UNITS_H_INCLUDED
#define UNITS_H_INCLUDED
#include "../tt.h"

#ifdef __cplusplus
extern "C" {
#endif
tt_status units_c_make(tt_matrix *out); // the 4 x 6 matrix 1 / (1 + i + j) as a train of two cores
tt_status units_cpp_make(tt_matrix *out);
double
units_c_error(const tt_matrix *w); // largest deviation of y = W x from the same sum done by hand
double units_cpp_error(const tt_matrix *w);
#ifdef __cplusplus
}
#endif
#endif
