// tt.h beside Eigen, the C++ library that is also only headers: products and singular value
// decompositions. Eigen is compiled with -O2 -march=native, its best case; tt.h chooses its kernels
// at run time. Error: relative, of the product against double, of U S V^T against the matrix.
#include "bench.h"

#include <Eigen/Dense>

typedef Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> eigen_matrix;
typedef Eigen::Map<eigen_matrix> eigen_view;

typedef struct eigen_run {
  ptrdiff_t m, n, k;
  float *a, *b, *c, *u, *s, *vt;
} eigen_run;

static void gemm_ours(void *argument) {
  eigen_run *t = (eigen_run *)argument;
  bench_must(tt_matmul(t->m, t->n, t->k, t->a, t->k, t->b, t->n, t->c, t->n, 0, NULL), "tt_matmul");
}

static void gemm_eigen(void *argument) {
  eigen_run *t = (eigen_run *)argument;
  eigen_view(t->c, t->m, t->n).noalias() =
      eigen_view(t->a, t->m, t->k) * eigen_view(t->b, t->k, t->n);
}

static double gemm_error(const eigen_run *t) {
  Eigen::MatrixXd exact =
      eigen_view(t->a, t->m, t->k).cast<double>() * eigen_view(t->b, t->k, t->n).cast<double>();
  return (eigen_view(t->c, t->m, t->n).cast<double>() - exact).norm() / exact.norm();
}

static void bench_product(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, double peak) {
  char name[64];
  double seconds[2], flops = 2.0 * (double)m * (double)n * (double)k;
  eigen_run t = eigen_run();
  t.m = m;
  t.n = n;
  t.k = k;
  t.a = bench_floats(m * k);
  t.b = bench_floats(k * n);
  t.c = bench_floats(m * n);
  bench_versus(gemm_ours, gemm_eigen, &t, 5, seconds);
  double rival_error = gemm_error(&t);
  gemm_ours(&t);
  snprintf(name, sizeof name, "f32 %ldx%ldx%ld", (long)m, (long)n, (long)k);
  bench_line(name, seconds[0], gemm_error(&t), seconds[1], rival_error, flops / peak);
  free(t.a);
  free(t.b);
  free(t.c);
}

static void svd_ours(void *argument) {
  eigen_run *t = (eigen_run *)argument;
  bench_must(tt_svd(t->a, t->m, t->n, t->u, t->s, t->vt, NULL), "tt_svd");
}

static void svd_eigen(void *argument) { // the tall transpose, its better layout
  eigen_run *t = (eigen_run *)argument;
  Eigen::BDCSVD<Eigen::MatrixXf> svd(Eigen::Map<Eigen::MatrixXf>(t->a, t->n, t->m),
                                     Eigen::ComputeThinU | Eigen::ComputeThinV);
  Eigen::Map<Eigen::VectorXf>(t->s, t->m) = svd.singularValues();
  Eigen::Map<Eigen::MatrixXf>(t->vt, t->n, t->m) = svd.matrixU();
  eigen_view(t->u, t->m, t->m) = svd.matrixV();
}

static double svd_error(const eigen_run *t) {
  Eigen::MatrixXd a = eigen_view(t->a, t->m, t->n).cast<double>(),
                  u = eigen_view(t->u, t->m, t->m).cast<double>(),
                  vt = eigen_view(t->vt, t->m, t->n).cast<double>();
  Eigen::VectorXd s = Eigen::Map<Eigen::VectorXf>(t->s, t->m).cast<double>();
  return (a - u * s.asDiagonal() * vt).norm() / a.norm();
}

static void bench_decomposition(ptrdiff_t m, ptrdiff_t n, double peak) { // m <= n
  char name[64];
  double seconds[2], s = (double)m;
  eigen_run t = eigen_run();
  t.m = m;
  t.n = n;
  t.a = bench_floats(m * n);
  t.u = bench_floats(m * m);
  t.s = bench_floats(m);
  t.vt = bench_floats(m * n);
  bench_versus(svd_ours, svd_eigen, &t, 3, seconds);
  double rival_error = svd_error(&t);
  svd_ours(&t);
  snprintf(name, sizeof name, "f32 SVD %ldx%ld", (long)m, (long)n);
  bench_line(name, seconds[0], svd_error(&t), seconds[1], rival_error,
             (3 * s * s * (double)n + 10.0 / 3 * s * s * s) / peak);
  free(t.a);
  free(t.u);
  free(t.s);
  free(t.vt);
}

int main(int argc, char **argv) {
  bench_start(argc, argv, "eigen: tt_matmul and tt_svd against Eigen (products, BDCSVD)");
  double peak[2] = {bench_peak(0), bench_peak(1)};
  printf("rival: Eigen %d.%d.%d\n", EIGEN_WORLD_VERSION, EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION);
  bench_product(64, 64, 64, peak[0]);
  bench_product(256, 256, 256, peak[0]);
  bench_decomposition(128, 128, peak[1]);
  bench_decomposition(64, 16384, peak[1]);
  if (bench_quick) return 0;
  bench_product(512, 512, 512, peak[0]);
  bench_product(1024, 1024, 1024, peak[0]);
  bench_product(64, 65536, 64, peak[0]);
  bench_decomposition(512, 512, peak[1]);
  bench_decomposition(512, 4096, peak[1]);
  return 0;
}
