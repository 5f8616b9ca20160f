// What every bench shares: a clock, the median of several runs, the bounds of this machine measured
// on the spot (peak of fused multiply-adds, read bandwidth), one header line and one table line. A
// line that loses is printed like any other.
#ifndef BENCH_H_INCLUDED
#define BENCH_H_INCLUDED

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 199309L
#endif
#define TT_IMPLEMENTATION
#include "../tt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef BENCH_BLAS
#include <cblas.h>
#include <lapacke.h>
#endif
#ifndef BENCH_FLAGS
#define BENCH_FLAGS "unknown flags"
#endif

static int bench_quick;                                        // smaller sizes, fewer repetitions

static double bench_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int bench_compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

// Median seconds of one call after a warm-up call. At least `least` calls (3 at most in a quick
// run), more while they are short; a single call above two seconds is its own warm-up and counts as
// measured.
static double bench_median(void (*run)(void *), void *argument, int least) {
  enum { MOST = 51 };
  double times[MOST], start = bench_seconds(), total = 0;
  int count = 0;
  run(argument);
  double first = bench_seconds() - start;
  if (first > 2) return first;
  if (bench_quick && least > 3) least = 3;
  while (count < MOST && (count < least || total < (bench_quick ? 0.02 : 0.2))) {
    start = bench_seconds();
    run(argument);
    times[count] = bench_seconds() - start;
    total += times[count++];
  }
  qsort(times, (size_t)count, sizeof *times, bench_compare);
  return times[count / 2];
}

static void *bench_new(ptrdiff_t count, size_t each) {
  void *block = calloc((size_t)(count > 0 ? count : 1), each);
  if (!block) { printf("out of memory\n"); exit(1); }
  return block;
}

static void bench_must(tt_status status, const char *what) {
  if (status == TT_OK) return;
  printf("%s: %s\n", what, tt_status_string(status));
  exit(1);
}

static uint64_t bench_state = 88172645463325252u;
static double bench_uniform(void) {                            // xorshift64
  bench_state ^= bench_state << 13;
  bench_state ^= bench_state >> 7;
  bench_state ^= bench_state << 17;
  return (double)(bench_state >> 11) / 9007199254740992.0;
}
static double bench_normal(void) { // sum of four uniforms, unit variance
  return (bench_uniform() + bench_uniform() + bench_uniform() + bench_uniform() - 2) *
         1.7320508075688772;
}
static float *bench_floats(ptrdiff_t count) {
  float *x = (float *)bench_new(count, sizeof *x);
  for (ptrdiff_t i = 0; i < count; i++) x[i] = (float)bench_normal();
  return x;
}

// --------------------------------------------------------------------------- bounds of the machine

enum { BENCH_LANES = 192 }; // enough independent chains for any vector width

static volatile double bench_sink;

// x = x * a + b on BENCH_LANES numbers that a compiler keeps in registers where it has enough of
// them.
static void bench_fma_f32(void *argument) {
  float x[BENCH_LANES], a = 0.999f, b = 0.001f, sum = 0;
  ptrdiff_t rounds = *(ptrdiff_t *)argument;
  for (int i = 0; i < BENCH_LANES; i++) x[i] = (float)i;
  for (ptrdiff_t r = 0; r < rounds; r++)
    for (int i = 0; i < BENCH_LANES; i++) x[i] = x[i] * a + b;
  for (int i = 0; i < BENCH_LANES; i++) sum += x[i];
  bench_sink = (double)sum;
}

static void bench_fma_f64(void *argument) {
  double x[BENCH_LANES / 2], a = 0.999, b = 0.001, sum = 0;
  ptrdiff_t rounds = *(ptrdiff_t *)argument;
  for (int i = 0; i < BENCH_LANES / 2; i++) x[i] = i;
  for (ptrdiff_t r = 0; r < rounds; r++)
    for (int i = 0; i < BENCH_LANES / 2; i++) x[i] = x[i] * a + b;
  for (int i = 0; i < BENCH_LANES / 2; i++) sum += x[i];
  bench_sink = sum;
}

#ifdef __GNUC__
// The same with vector types, which stay in registers at every optimisation level.
typedef float bench_vec_f32 __attribute__((vector_size(64)));
typedef double bench_vec_f64 __attribute__((vector_size(64)));
#define BENCH_VECTORS(T, NAME, VEC)                                                                \
  static void NAME(void *argument) {                                                               \
    VEC a = (VEC){0} + (T)0.999, b = (VEC){0} + (T)0.001, x0 = b, x1 = b + 1, x2 = b + 2,          \
        x3 = b + 3, x4 = b + 4, x5 = b + 5, x6 = b + 6, x7 = b + 7, x8 = b + 8, x9 = b + 9;        \
    ptrdiff_t rounds = *(ptrdiff_t *)argument;                                                     \
    for (ptrdiff_t r = 0; r < rounds; r++) {                                                       \
      x0 = x0 * a + b;                                                                             \
      x1 = x1 * a + b;                                                                             \
      x2 = x2 * a + b;                                                                             \
      x3 = x3 * a + b;                                                                             \
      x4 = x4 * a + b;                                                                             \
      x5 = x5 * a + b;                                                                             \
      x6 = x6 * a + b;                                                                             \
      x7 = x7 * a + b;                                                                             \
      x8 = x8 * a + b;                                                                             \
      x9 = x9 * a + b;                                                                             \
    }                                                                                              \
    VEC sum = x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + x9;                                     \
    bench_sink = (double)sum[0];                                                                   \
  }
BENCH_VECTORS(float, bench_vectors_f32, bench_vec_f32)
BENCH_VECTORS(double, bench_vectors_f64, bench_vec_f64)
#endif

// Peak flops per second of multiply-adds, one thread: the better of the two loops.
static double bench_peak(int wide) {
  ptrdiff_t rounds = 200000;
  double flops = 2.0 * (double)rounds * (wide ? BENCH_LANES / 2 : BENCH_LANES);
  double best = flops / bench_median(wide ? bench_fma_f64 : bench_fma_f32, &rounds, 5);
#ifdef __GNUC__
  double vectors = 2.0 * (double)rounds * 10 * (wide ? 8 : 16);
  double other = vectors / bench_median(wide ? bench_vectors_f64 : bench_vectors_f32, &rounds, 5);
  if (other > best) best = other;
#endif
  return best;
}

typedef struct bench_memory { ptrdiff_t count; const float *data; } bench_memory;

static void bench_read(void *argument) {
  const bench_memory *memory = (const bench_memory *)argument;
  float sum[64] = {0};
  for (ptrdiff_t i = 0; i + 64 <= memory->count; i += 64)
    for (int t = 0; t < 64; t++) sum[t] += memory->data[i + t];
  for (int t = 1; t < 64; t++) sum[0] += sum[t];
  bench_sink = (double)sum[0];
}

// Bytes per second of one thread reading `count` floats again and again.
static double bench_bandwidth(ptrdiff_t count) {
  bench_memory memory;
  float *data = bench_floats(count);
  memory.count = count;
  memory.data = data;
  double rate = 4.0 * (double)count / bench_median(bench_read, &memory, 5);
  free(data);
  return rate;
}

// ------------------------------------------------------------------------------------------ output

static void bench_machine(char *name, size_t size) {
  char line[256];
  FILE *file = fopen("/proc/cpuinfo", "r");
  snprintf(name, size, "unknown processor");
  while (file && fgets(line, sizeof line, file)) {
    char *colon = strchr(line, ':');
    if (strncmp(line, "model name", 10) || !colon) continue;
    line[strcspn(line, "\n")] = 0;
    snprintf(name, size, "%s", colon + 2);
    break;
  }
  if (file) fclose(file);
}

// Reads the arguments and prints the header. Returns 1 for a quick run.
static void bench_start(int argc, char **argv, const char *question) {
  char machine[128];
  const char *flags = BENCH_FLAGS;
  bench_quick = argc > 1 && !strcmp(argv[1], "quick");
  bench_machine(machine, sizeof machine);
#ifdef __VERSION__
  const char *compiler = __VERSION__;
#else
  const char *compiler = "unknown compiler";
#endif
  printf("\n%s\n", question);
  printf("machine: %s; compiler: %s; flags: %s; one thread; median after a warm-up%s\n", machine,
         compiler, flags, bench_quick ? "; quick" : "");
#ifdef BENCH_BLAS
  openblas_set_num_threads(1);
  printf("rival: %s\n", openblas_get_config());
#else
  printf("skipped: OpenBLAS (not found, or BLAS=0)\n");
#endif
  printf("bounds: %.1f GF/s f32, %.1f GF/s f64 multiply-adds; reads %.1f GB/s from 64 MB\n",
         bench_peak(0) * 1e-9, bench_peak(1) * 1e-9, bench_bandwidth(16 << 20) * 1e-9);
  fflush(stdout);
}

// One line: what, ours and the rival in ms with errors beside them, how many times the rival's
// speed ours is, and how many times the bound (the least time that flops or bytes allow) ours
// takes. rival <= 0: there is none.
static void bench_line(const char *what, double ours, double our_error, double rival,
                       double rival_error, double bound) {
  printf("%-34s %10.3f ms  err %8.1e   ", what, ours * 1e3, our_error);
  if (rival > 0)
    printf("rival %10.3f ms  err %8.1e   ratio %6.2fx   ", rival * 1e3, rival_error, rival / ours);
  else printf("rival          -                      ratio      -   ");
  printf("%6.1f x bound\n", ours / bound);
  fflush(stdout);
}

#endif // BENCH_H_INCLUDED
