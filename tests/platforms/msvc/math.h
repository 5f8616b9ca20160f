// Declarations of what tt.h and the tests use, as Microsoft's <math.h> has them: clang-cl has no
// C library of its own.
#pragma once
#ifdef __cplusplus
extern "C" {
#endif
double ceil(double);
double copysign(double, double);
double cos(double);
double exp(double);
double expm1(double);
double fabs(double);
double floor(double);
double fmax(double, double);
double fmin(double, double);
double frexp(double, int *);
double ldexp(double, int);
double log(double);
double log1p(double);
double log2(double);
double pow(double, double);
double sin(double);
double sqrt(double);
float fabsf(float);
float sqrtf(float);
#define HUGE_VAL __builtin_huge_val()
#define INFINITY __builtin_inff()
#define NAN      __builtin_nanf("")
#ifdef __cplusplus
}
#endif
