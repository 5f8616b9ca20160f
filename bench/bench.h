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

static int bench_quick; // smaller sizes, fewer repetitions

// Processor time of this thread: what others do with the machine in the meantime does not count.
static double bench_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
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

// Ours and a rival's, turn by turn, so that whatever slows the machine down hits both: seconds[0]
// and seconds[1] are medians of one call. A rival may be NULL. Short calls are timed in batches.
static void bench_versus(void (*ours)(void *), void (*rival)(void *), void *argument, int least,
                         double seconds[2]) {
  enum { MOST = 51 };
  double times[2][MOST], total = 0, start = bench_seconds();
  void (*run[2])(void *) = {ours, rival};
  int count = 0, sides = rival ? 2 : 1, batch;
  ours(argument);
  if (rival) rival(argument);
  double first = bench_seconds() - start;
  batch = first < 4e-4 ? 1 + (int)(4e-4 / (first + 1e-7)) : 1;
  if (bench_quick && least > 3) least = 3;
  for (; count < MOST && (count < least || total < (bench_quick ? 0.02 : 0.3)); count++)
    for (int side = 0; side < sides; side++) {
      start = bench_seconds();
      for (int i = 0; i < batch; i++) run[side](argument);
      times[side][count] = (bench_seconds() - start) / batch;
      total += times[side][count] * batch;
    }
  seconds[1] = 0;
  for (int side = 0; side < sides; side++) {
    qsort(times[side], (size_t)count, sizeof **times, bench_compare);
    seconds[side] = times[side][count / 2];
  }
}

static void *bench_new(ptrdiff_t count, size_t each) {
  void *block = calloc((size_t)(count > 0 ? count : 1), each);
  if (!block) {
    printf("out of memory\n");
    exit(1);
  }
  return block;
}

static void bench_must(tt_status status, const char *what) {
  if (status == TT_OK) return;
  printf("%s: %s\n", what, tt_status_string(status));
  exit(1);
}

static uint64_t bench_state = 88172645463325252u;
static double bench_uniform(void) { // xorshift64
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

// -------------------------------------------------------------------------------------------- data

// side x side matrix with a falling spectrum: sum over 48 terms of (1+k)^-0.7 times a Kronecker
// product of `order` random leg x leg factors, and 30 % noise.
static inline float *bench_kronecker(ptrdiff_t side, int order, ptrdiff_t leg) {
  double *w = (double *)bench_new(side * side, sizeof *w), norm = 0;
  float *out = (float *)bench_new(side * side, sizeof *out);
  double *term = (double *)bench_new(side * side, sizeof *term),
         *next = (double *)bench_new(side * side, sizeof *next);
  for (int k = 0; k < 48; k++) {
    ptrdiff_t size = 1;
    term[0] = pow(1 + k, -0.7);
    for (int d = 0; d < order; d++) {
      ptrdiff_t bigger = size * leg;
      double factor[4096];
      for (ptrdiff_t i = 0; i < leg * leg; i++) factor[i] = bench_normal();
      for (ptrdiff_t i = 0; i < bigger; i++)
        for (ptrdiff_t j = 0; j < bigger; j++)
          next[i * bigger + j] = term[i / leg * size + j / leg] * factor[i % leg * leg + j % leg];
      double *kept = term;
      term = next;
      next = kept;
      size = bigger;
    }
    for (ptrdiff_t i = 0; i < side * side; i++) w[i] += term[i];
  }
  for (ptrdiff_t i = 0; i < side * side; i++) norm += w[i] * w[i];
  double noise = 0.3 * sqrt(norm / (double)(side * side));
  for (ptrdiff_t i = 0; i < side * side; i++) out[i] = (float)(w[i] + noise * bench_normal());
  free(w);
  free(term);
  free(next);
  return out;
}

// Matrix of a random train of this shape, whose ranks are `rank` with weights (1+p)^-0.7 on every
// bond, and 30 % noise: spectra fall as those of weights do, at every cut.
static inline float *bench_weights(const tt_shape *given, ptrdiff_t rows, ptrdiff_t cols,
                                   int rank) {
  tt_shape shape = *given;
  tt_matrix w;
  double square = 0;
  for (int k = 1; k < shape.order; k++) shape.ranks[k] = 0;
  bench_must(tt_shape_clip(&shape, rank), "tt_shape_clip");
  bench_must(tt_create(&shape, rows, cols, NULL, &w), "tt_create");
  for (int k = 0; k < shape.order; k++) {
    float *core = (float *)tt_core_data(&w, k);
    ptrdiff_t right = w.shape.ranks[k + 1],
              count = (ptrdiff_t)w.shape.ranks[k] * shape.rows[k] * shape.cols[k] * right;
    for (ptrdiff_t i = 0; i < count; i++)
      core[i] = (float)(bench_normal() * pow(1 + (double)(i % right), -0.7));
  }
  float *dense = (float *)bench_new(rows * cols, sizeof *dense);
  bench_must(tt_expand(&w, dense), "tt_expand");
  for (ptrdiff_t i = 0; i < rows * cols; i++) square += (double)dense[i] * (double)dense[i];
  float noise = (float)(0.3 * sqrt(square / (double)(rows * cols)));
  for (ptrdiff_t i = 0; i < rows * cols; i++) dense[i] += noise * (float)bench_normal();
  tt_free(&w);
  return dense;
}

// A random train, every core scaled so that the entries of the matrix have variance of about one.
static inline tt_matrix bench_train(int order, int leg, int rank) {
  tt_shape shape;
  tt_matrix w;
  ptrdiff_t side = 1;
  memset(&shape, 0, sizeof shape);
  shape.order = order;
  for (int k = 0; k < order; k++) {
    shape.rows[k] = shape.cols[k] = leg;
    shape.ranks[k] = k ? rank : 1;
    side *= leg;
  }
  shape.ranks[order] = 1;
  bench_must(tt_create(&shape, side, side, NULL, &w), "tt_create");
  for (int k = 0; k < order; k++) {
    float *core = (float *)tt_core_data(&w, k);
    ptrdiff_t count = (ptrdiff_t)w.shape.ranks[k] * leg * leg * w.shape.ranks[k + 1];
    for (ptrdiff_t i = 0; i < count; i++)
      core[i] = (float)(bench_normal() / sqrt((double)w.shape.ranks[k]));
  }
  return w;
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

#ifdef TT__SIMD
// The same with vector types, which stay in registers at every optimisation level, for every
// instruction set that the kernels know.
#define BENCH_VECTORS(NAME, TARGET, T, BYTES)                                                      \
  typedef T NAME##_vector __attribute__((vector_size(BYTES)));                                     \
  TARGET TT__FUSED static void NAME(void *argument) {                                              \
    TT__FUSE                                                                                       \
    NAME##_vector zero = {0}, a = zero + (T)0.999, b = zero + (T)0.001, x[10];                     \
    ptrdiff_t rounds = *(ptrdiff_t *)argument;                                                     \
    TT__UNROLL for (int i = 0; i < 10; i++) x[i] = b * (T)i;                                       \
    for (ptrdiff_t r = 0; r < rounds; r++) {                                                       \
      TT__UNROLL for (int i = 0; i < 10; i++) x[i] = x[i] * a + b;                                 \
    }                                                                                              \
    TT__UNROLL for (int i = 1; i < 10; i++) x[0] += x[i];                                          \
    bench_sink = (double)x[0][0];                                                                  \
  }
BENCH_VECTORS(bench_f32_16, , float, 16)
BENCH_VECTORS(bench_f64_16, , double, 16)
#ifdef TT__DISPATCH
BENCH_VECTORS(bench_f32_32, TT__TARGET_AVX2, float, 32)
BENCH_VECTORS(bench_f64_32, TT__TARGET_AVX2, double, 32)
BENCH_VECTORS(bench_f32_64, TT__TARGET_AVX512, float, 64)
BENCH_VECTORS(bench_f64_64, TT__TARGET_AVX512, double, 64)
#endif
#endif

// Flops per second of a loop that does `flops` of them in a round: the best of ten.
static double bench_rate(void (*loop)(void *), double flops) {
  ptrdiff_t rounds = 200000;
  double best = 0;
  for (int i = 0; i < 10; i++) {
    double start = bench_seconds();
    loop(&rounds);
    double rate = flops * (double)rounds / (bench_seconds() - start);
    if (rate > best) best = rate;
  }
  return best;
}

// Peak flops per second of multiply-adds, one thread: the best of all loops.
static double bench_peak(int wide) {
  double best =
      bench_rate(wide ? bench_fma_f64 : bench_fma_f32, wide ? BENCH_LANES : 2 * BENCH_LANES);
#ifdef TT__SIMD
  double other = bench_rate(wide ? bench_f64_16 : bench_f32_16, wide ? 40 : 80);
  if (other > best) best = other;
#endif
#ifdef TT__DISPATCH
  if (tt__best_level() >= TT__AVX2)
    other = bench_rate(wide ? bench_f64_32 : bench_f32_32, wide ? 80 : 160);
  if (other > best) best = other;
  if (tt__best_level() >= TT__AVX512)
    other = bench_rate(wide ? bench_f64_64 : bench_f32_64, wide ? 160 : 320);
  if (other > best) best = other;
#endif
  return best;
}

typedef struct bench_memory {
  ptrdiff_t count;
  const float *data;
} bench_memory;

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
  printf("machine: %s; compiler: %s; flags: %s; one thread; median of processor time after a "
         "warm-up%s\n",
         machine, compiler, flags, bench_quick ? "; quick" : "");
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
  else
    printf("rival          -                      ratio      -   ");
  printf("%6.1f x bound\n", ours / bound);
  fflush(stdout);
}

#endif // BENCH_H_INCLUDED
