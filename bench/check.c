// Hot paths, one at a time, for check.sh: `check NAME` runs one under callgrind, which counts the
// instructions of run_NAME alone; `check list` prints a name, its multiply-adds and the most
// instructions per multiply-add it may take; `check peak` compares the product of matrices with the
// peak of multiply-adds that this machine shows now.
//
// The counts do not depend on the machine's speed or load, only on compiler and instruction set:
// valgrind shows programs a processor with AVX2, where one instruction does 8 multiply-adds of
// float or 4 of double. A kernel needs 12 of them, 2 loads and 6 broadcasts per step of a tile:
// 0.21 instructions per multiply-add in float, 0.42 in double; loops, packing and edges come on
// top. The bounds stand a quarter above what gcc 12 and clang 14 reach (the larger of the two):
// lost vectors, a kernel that spills its sums, one more pass over the data, or an algorithm of the
// next order all cost more than that.
#include "bench.h"

#define RUN __attribute__((noinline)) static void

typedef struct check_state {
  ptrdiff_t m, n, k;
  int cap, method;
  float *a, *b, *c;
  double *x, *y, *z;
  tt_matrix train;
  void *work;
  size_t work_size;
  tt_shape shape;
} check_state;

RUN run_product_f32(check_state *t) {
  bench_must(tt_matmul(t->m, t->n, t->k, t->a, t->k, t->b, t->n, t->c, t->n, 0, NULL), "matmul");
}
RUN run_product_f64(check_state *t) {
  bench_must(tt_matmul_f64(t->m, t->n, t->k, t->x, t->k, t->y, t->n, t->z, t->n, 0, NULL),
             "matmul");
}
RUN run_vector(check_state *t) { run_product_f32(t); }
RUN run_apply(check_state *t) {
  bench_must(tt_apply(&t->train, t->a, t->m, t->c, t->work, t->work_size), "apply");
}
RUN run_apply_batch(check_state *t) { run_apply(t); }
RUN run_eigen(check_state *t) {
  bench_must(tt_eigh_f64(t->n, t->x, t->n, t->y, t->z, t->n, NULL), "eigh");
}
static void check_svd(check_state *t) {
  tt_options options;
  memset(&options, 0, sizeof options);
  options.max_rank = t->cap;
  options.method = t->method;
  bench_must(tt_svd(t->a, t->m, t->n, t->b, t->c, (float *)(void *)t->x, &options), "svd");
}
RUN run_svd_square(check_state *t) { check_svd(t); }
RUN run_svd_long(check_state *t) { check_svd(t); }
RUN run_svd_leading(check_state *t) { check_svd(t); }
RUN run_compress(check_state *t) {
  tt_options options;
  tt_matrix train;
  memset(&options, 0, sizeof options);
  options.max_rank = t->cap;
  bench_must(tt_compress(t->a, t->m, t->n, &t->shape, &options, &train, NULL), "compress");
  tt_free(&train);
}

// Multiply-adds are those of the textbook algorithm; for decompositions only a unit to count in.
typedef struct check_case {
  const char *name;
  void (*run)(check_state *);
  ptrdiff_t m, n, k;
  int cap, method; // of a train: rank, order
  double macs, most;
} check_case;

static const check_case cases[] = {
    {"product_f32", run_product_f32, 192, 192, 192, 0, 0, 192.0 * 192 * 192, 0.42},
    {"product_f64", run_product_f64, 192, 192, 192, 0, 0, 192.0 * 192 * 192, 0.87},
    {"vector", run_vector, 512, 1, 512, 0, 0, 512.0 * 512, 0.46},
    {"apply", run_apply, 1, 1024, 1024, 16, 2, 0, 0.5},
    {"apply_batch", run_apply_batch, 64, 512, 512, 16, 3, 0, 0.44},
    {"eigen", run_eigen, 256, 256, 0, 0, 0, 256.0 * 256 * 256, 5},
    {"svd_square", run_svd_square, 192, 192, 0, 0, TT_SVD_AUTO, 192.0 * 192 * 192, 7.5},
    {"svd_long", run_svd_long, 64, 4096, 0, 0, TT_SVD_AUTO, 64.0 * 64 * 4096, 3},
    {"svd_leading", run_svd_leading, 640, 640, 0, 32, TT_SVD_RANDOMIZED, 640.0 * 640 * 128, 2.9},
    {"compress", run_compress, 512, 512, 0, 16, 3, 512.0 * 512 * 64, 2.5},
};

static void check_fill(check_state *t, const check_case *c) {
  ptrdiff_t most = 512 * 1024;
  t->m = c->m;
  t->n = c->n;
  t->k = c->k;
  t->cap = c->cap;
  t->method = c->method;
  t->a = bench_floats(most);
  t->b = bench_floats(most);
  t->c = bench_floats(most);
  t->x = (double *)bench_new(most, sizeof *t->x);
  t->y = (double *)bench_new(most, sizeof *t->y);
  t->z = (double *)bench_new(most, sizeof *t->z);
  for (ptrdiff_t i = 0; i < most; i++) t->x[i] = t->y[i] = (double)t->a[i];
  t->shape.order = 3;
  t->shape.ranks[0] = t->shape.ranks[3] = 1;
  for (int k = 0; k < 3; k++) t->shape.rows[k] = t->shape.cols[k] = 8;
  if (strncmp(c->name, "apply", 5)) return;
  tt_matrix train = bench_train(c->method, c->method == 2 ? 32 : 8, c->cap);
  bench_must(tt_prepare(&train, c->m, NULL, &t->train), "prepare");
  tt_free(&train);
  t->work_size = tt_apply_work_size(&t->train, c->m);
  t->work = bench_new((ptrdiff_t)t->work_size, 1);
}

static double check_macs(const check_case *c) {
  check_state t;
  if (c->macs > 0) return c->macs;
  memset(&t, 0, sizeof t);
  check_fill(&t, c);
  return (double)tt_apply_macs(&t.train, c->m);
}

// The vector kernels of this very processor, which callgrind may not see, must reach a share of
// its peak: half, where a kernel that keeps its sums in memory gets a third. The best of many runs,
// so that a busy machine does not matter.
static int check_peak(void) {
  int failed = 0;
  for (int wide = 0; wide < 2; wide++) {
    check_state t;
    memset(&t, 0, sizeof t);
    check_fill(&t, &cases[wide]);
    double best = 1e9, flops = 2 * cases[wide].macs, peak = bench_peak(wide);
    for (int i = 0; i < 200; i++) {
      double start = bench_seconds();
      cases[wide].run(&t);
      start = bench_seconds() - start;
      if (start < best) best = start;
    }
    double share = flops / best / peak;
    printf("%-14s %6.1f of %6.1f GF/s, share %.2f, at least 0.50  %s\n", cases[wide].name,
           flops / best * 1e-9, peak * 1e-9, share, share >= 0.5 ? "good" : "FAILED");
    failed += share < 0.5;
  }
  return failed;
}

int main(int argc, char **argv) {
  int count = (int)(sizeof cases / sizeof *cases);
  if (argc != 2) return 2;
  if (!strcmp(argv[1], "peak")) return check_peak();
  for (int i = 0; i < count; i++) {
    const check_case *c = &cases[i];
    check_state t;
    if (!strcmp(argv[1], "list")) printf("%s %.0f %g\n", c->name, check_macs(c), c->most);
    if (strcmp(argv[1], c->name)) continue;
    memset(&t, 0, sizeof t);
    check_fill(&t, c);
    c->run(&t);
  }
  return 0;
}
