// How do time and memory of a compression grow with the size of the matrix, with the rank, with the
// number of cores and with threads? Data: bench_weights. Times are the least of three runs; those
// with threads are wall times, and only measured where the processors are free. Memory: the peak of
// what tt_compress allocates, over the matrix itself.
#include "bench.h"

#ifdef _OPENMP
#include <omp.h>
#endif

typedef struct growth_heap {
  size_t live, peak;
} growth_heap;
typedef union growth_head {
  size_t size;
  double align[2];
} growth_head;

static void *growth_alloc(size_t size, void *user) {
  growth_heap *heap = (growth_heap *)user;
  growth_head *head = (growth_head *)malloc(size + sizeof *head);
  if (!head) return NULL;
  head->size = size;
  heap->live += size;
  if (heap->live > heap->peak) heap->peak = heap->live;
  return head + 1;
}

static void growth_free(void *block, void *user) {
  growth_head *head = (growth_head *)block;
  if (!block) return;
  ((growth_heap *)user)->live -= (head - 1)->size;
  free(head - 1);
}

typedef struct growth_run {
  const float *w;
  ptrdiff_t side;
  tt_shape shape;
  int cap;
  tt_report report;
  growth_heap heap;
} growth_run;

static void growth_compress(void *argument) {
  growth_run *t = (growth_run *)argument;
  tt_options options;
  tt_matrix train;
  memset(&options, 0, sizeof options);
  options.max_rank = t->cap;
  options.allocator.alloc_fn = growth_alloc;
  options.allocator.free_fn = growth_free;
  options.allocator.user_data = &t->heap;
  bench_must(tt_compress(t->w, t->side, t->side, &t->shape, &options, &train, &t->report),
             "tt_compress");
  tt_free(&train);
}

static double growth_wall(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

// `threads` 0: processor time of one thread; else wall time with so many.
static double growth_time(growth_run *t, int threads) {
  double best = 1e9;
  for (int i = 0; i < 3; i++) {
    double start = threads ? growth_wall() : bench_seconds();
    growth_compress(t);
    double now = (threads ? growth_wall() : bench_seconds()) - start;
    if (now < best) best = now;
  }
  return best;
}

// Legs of a power of two, as even as can be.
static tt_shape growth_shape(ptrdiff_t side, int order) {
  tt_shape shape;
  memset(&shape, 0, sizeof shape);
  shape.order = order;
  shape.ranks[0] = shape.ranks[order] = 1;
  for (int k = 0; k < order; k++) shape.rows[k] = shape.cols[k] = 1;
  for (int k = 0; side > 1; side /= 2, k++) {
    shape.rows[k % order] *= 2;
    shape.cols[k % order] *= 2;
  }
  return shape;
}

static double growth_line(const float *w, ptrdiff_t side, int order, int cap, int threads) {
  growth_run t;
  char shape[64] = "";
  memset(&t, 0, sizeof t);
  t.w = w;
  t.side = side;
  t.cap = cap;
  t.shape = growth_shape(side, order);
#ifdef _OPENMP
  omp_set_num_threads(threads ? threads : 1);
#endif
  double seconds = growth_time(&t, threads), entries = (double)side * (double)side;
  for (int k = 0; k < order; k++)
    snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%s%d", k ? "." : "",
             t.shape.rows[k] * t.shape.cols[k]);
  printf(
      "%5ld  modes %-24s cap %3d  %10.3f ms  %6.2f ns per entry  err %8.1e  memory %5.2f x matrix",
      (long)side, shape, cap, seconds * 1e3, seconds * 1e9 / entries, t.report.relative_error,
      (double)t.heap.peak / (4 * entries));
  if (threads) printf("  threads %d (wall)", threads);
  printf("\n");
  fflush(stdout);
  return seconds;
}

// Wall time means something only where nobody else wants the processors.
static void growth_threads(const float *w, ptrdiff_t side) {
#ifdef _OPENMP
  double start[2] = {growth_wall(), bench_seconds()};
  growth_line(w, side, 4, 32, 0);
  double wall = growth_wall() - start[0], busy = bench_seconds() - start[1];
  if (wall > 1.2 * busy) {
    printf("skipped: threads (the machine is busy: %.1f s of processor time took %.1f s)\n", busy,
           wall);
    return;
  }
  for (int threads = 1; threads <= omp_get_num_procs() && threads <= 16; threads *= 2)
    growth_line(w, side, 4, 32, threads);
#else
  (void)w;
  (void)side;
  printf("skipped: threads (compiled without OpenMP)\n");
#endif
}

int main(int argc, char **argv) {
  bench_start(argc, argv, "growth: tt_compress over size, rank, order and threads");
  ptrdiff_t largest = bench_quick ? 1024 : 8192, side = bench_quick ? 512 : 4096;
  for (ptrdiff_t n = 512; n <= largest; n *= 2) {
    tt_shape shape = growth_shape(n, 4);
    float *w = bench_weights(&shape, n, n, 64);
    growth_line(w, n, 4, 32, 0);
    if (n == side) {
      for (int cap = 8; cap <= 256; cap *= 2) growth_line(w, n, 3, cap, 0);
      for (int order = 2; order <= 6; order++) growth_line(w, n, order, 32, 0);
      growth_threads(w, n);
    }
    free(w);
  }
  return 0;
}
