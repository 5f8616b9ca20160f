// Rows of trains, gradients against central differences, optimisers against scalar references, the
// balanced gauge, straight-through values.

enum { GRADIENT_CANARY = 64, GRADIENT_SHAPES = 12 };

// The table of shapes, and beyond it: sixteen cores, prime factors, one core of one number, two
// cores with a large rank, the workshop's train and its mirror.
static tt_shape gradient_shape(int index) {
  static const int ones[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  static const int twos[16] = {2, 1, 2, 1, 2, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1},
                   odds[16] = {1, 2, 1, 2, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2};
  static const int prime_rows[3] = {7, 5, 3}, prime_cols[3] = {3, 11, 5};
  static const int big_rows[2] = {13, 17}, big_cols[2] = {17, 7};
  static const int left_rows[4] = {4, 16, 1, 1}, right_rows[4] = {1, 1, 4, 16};
  if (index < SHAPE_TABLE_SIZE) return train_shape(index, 4);
  tt_shape shape = test_shape(1, ones, ones, NULL);
  if (index == 7) shape = test_shape(16, twos, odds, NULL);
  if (index == 8) shape = test_shape(3, prime_rows, prime_cols, NULL);
  if (index == 9) shape = test_shape(2, big_rows, big_cols, NULL);
  if (index == 10) shape = test_shape(4, left_rows, right_rows, NULL);
  if (index == 11) shape = test_shape(4, right_rows, left_rows, NULL);
  CHECK_STATUS(tt_shape_clip(&shape, index == 9 ? 20 : 3), TT_OK);
  return shape;
}

static int gradient_canary_alive(const unsigned char *bytes) {
  for (int i = 0; i < GRADIENT_CANARY; i++)
    if (bytes[i] != 0xC7) return 0;
  return 1;
}

// Workspace of exactly `size` bytes, full of NaN, at an odd address between canaries.
typedef struct gradient_work { unsigned char *memory, *at; size_t size; } gradient_work;
static gradient_work gradient_work_of(size_t size) {
  gradient_work work;
  work.memory = (unsigned char *)test_new((ptrdiff_t)size + 2 * GRADIENT_CANARY + 128, 1);
  work.at = tt__align(work.memory) + GRADIENT_CANARY + test_below(63);
  work.size = size;
  memset(work.at - GRADIENT_CANARY, 0xC7, GRADIENT_CANARY);
  memset(work.at, 0xFF, size);
  memset(work.at + size, 0xC7, GRADIENT_CANARY);
  CHECK(size >= 1);
  return work;
}
static void gradient_work_done(gradient_work *work) {
  CHECK(gradient_canary_alive(work->at - GRADIENT_CANARY));
  CHECK(gradient_canary_alive(work->at + work->size));
  free(work->memory);
}

// ---- rows

// Every row of W and some of them twice, in any order, against the dense matrix.
static void gradient_check_rows(const tt_matrix *train, const double *dense, double tolerance) {
  tt_matrix w = *train;
  test_heap heap;
  ptrdiff_t count = w.rows + 5, n = w.cols;
  int *index = (int *)test_new(count, sizeof(int));
  float *out = test_floats(count * n + 2);
  double *got = test_doubles(count * n), *expected = test_doubles(count * n);
  gradient_work work = gradient_work_of(tt_rows_work_size(&w));
  w.allocator = test_allocator(&heap);
  heap.fail_at = 1;
  memset(out, 0xFF, (size_t)(count * n + 1) * sizeof(float));
  out[0] = out[count * n + 1] = -7;
  for (ptrdiff_t c = 0; c < count; c++)
    index[c] = c < w.rows ? (int)(w.rows - 1 - c) : test_below((int)w.rows);
  CHECK_STATUS(tt_rows(&w, index, count, out + 1, work.at, work.size), TT_OK);
  CHECK(out[0] == -7 && out[count * n + 1] == -7 && heap.calls == 0);
  for (ptrdiff_t i = 0; i < count * n; i++) {
    got[i] = (double)out[i + 1];
    expected[i] = dense[index[i / n] * n + i % n];
  }
  CHECK_AT_MOST(test_distance(count * n, got, expected), tolerance);
  for (int t = 0; t < 4; t++) { // refused, and out as it was
    index[count - 1] = t == 0 ? -1 : t == 1 ? (int)w.rows : t == 2 ? INT_MAX : 0;
    memset(out, 0, (size_t)(count * n + 2) * sizeof(float));
    CHECK_STATUS(tt_rows(&w, index, count, out + 1, work.at, work.size - (t == 3)),
                 TT_ERROR_INVALID);
    int touched = 0;
    for (ptrdiff_t i = 0; i < count * n; i++) touched |= out[i + 1] != 0;
    CHECK(!touched);
  }
  gradient_work_done(&work);
  free(index);
  free(out);
  free(got);
  free(expected);
}

static void gradient_test_rows(void) {
  static const int groups[3] = {0, TT_GROUP_ROW, 4};
  for (int s = 0; s < GRADIENT_SHAPES; s++) {
    tt_shape shape = gradient_shape(s);
    for (int d = 0; d < 10; d++) {
      for (int variant = 0; variant < 12; variant++) { // sweeps x padding x groups
        int group = groups[variant >> 2];
        if (group && !train_is_integer(train_dtypes[d])) break;
        train_built a = train_build(&shape, variant >> 1 & 1, train_dtypes[d], group, variant & 1,
                                    variant & 1);
        double *dense = train_dense(&a.w);
        gradient_check_rows(&a.w, dense, 3e-6);
        free(dense);
        free(a.memory);
      }
    }
  }
}

// A slice larger than a slab of decoded rows.
static void gradient_test_large_rows(void) {
  static const int rows[2] = {40, 1}, cols[2] = {1, 700}, ranks[3] = {1, 40, 1};
  tt_shape shape = test_shape(2, rows, cols, ranks);
  for (int variant = 0; variant < 6; variant++) {
    train_built a = train_build(&shape, 1, variant / 2 == 0 ? TT_F32 : variant / 2 == 1 ? TT_I4
                                                                                       : TT_F16,
                                32, variant & 1, 0);
    double *dense = test_doubles(a.w.rows * a.w.cols);
    CHECK_STATUS(tt_expand_f64(&a.w, dense), TT_OK);
    gradient_check_rows(&a.w, dense, 5e-6);
    free(dense);
    free(a.memory);
  }
}

static void gradient_test_rows_arguments(void) {
  tt_shape shape = train_shape(5, 3);
  train_built a = train_build(&shape, 0, TT_F32, 0, 0, 1);
  size_t size = tt_rows_work_size(&a.w);
  int index[2] = {1, 2};
  float out[72];
  void *work = test_new((ptrdiff_t)size, 1);
  CHECK(tt_rows_work_size(NULL) == 0);
  CHECK_STATUS(tt_rows(&a.w, NULL, 1, out, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows(&a.w, index, 1, NULL, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows(&a.w, index, 1, out, NULL, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows(&a.w, index, 1, out, work, 0), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows(&a.w, index, -1, out, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows(NULL, index, 1, out, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows(&a.w, NULL, 0, NULL, NULL, 0), TT_OK);
  tt_matrix bad = a.w;
  bad.cores[1].data = NULL;
  CHECK_STATUS(tt_rows(&bad, index, 1, out, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows(&bad, NULL, 0, NULL, NULL, 0), TT_ERROR_INVALID);
  bad = a.w;
  bad.shape.rows[0] = bad.shape.rows[1] = INT_MAX;
  bad.shape.cols[2] = bad.shape.cols[3] = INT_MAX;
  CHECK(tt_rows_work_size(&bad) == 0);
  free(work);
  free(a.memory);
}

static double gradient_distance(ptrdiff_t count, const float *a, const float *b) {
  double *wide_a = test_doubles(count), *wide_b = test_doubles(count);
  for (ptrdiff_t i = 0; i < count; i++) { wide_a[i] = (double)a[i]; wide_b[i] = (double)b[i]; }
  double distance = test_distance(count, wide_a, wide_b);
  free(wide_a);
  free(wide_b);
  return distance;
}

// ---- gradients

// An owned copy of a train with F32 cores, in either sweep, with the scales of its cores.
static tt_matrix gradient_copy(const tt_matrix *from) {
  tt_matrix w;
  CHECK_STATUS(tt_zeros_like(from, NULL, &w), TT_OK);
  for (int k = 0; k < w.shape.order; k++) {
    memcpy(tt_core_data(&w, k), from->cores[k].data,
           (size_t)shape_core(&w.shape, k) * sizeof(float));
    w.cores[k].scale = from->cores[k].scale;
  }
  if (w.bias) memcpy(tt_bias_data(&w), from->bias, (size_t)w.rows * sizeof(float));
  return w;
}

// A random train whose states stay near 1.
static tt_matrix gradient_train(int index, int padded, int sweep, int biased) {
  tt_shape shape = gradient_shape(index);
  train_built a = train_build(&shape, padded, TT_F32, 0, sweep, biased);
  tt_matrix w = gradient_copy(&a.w);
  for (int k = 0; k < shape.order; k++) {
    float *core = (float *)tt_core_data(&w, k);
    for (ptrdiff_t i = 0; i < shape_core(&shape, k); i++)
      core[i] /= sqrtf((float)shape.ranks[k] * (float)shape.cols[k]) *
                 (w.cores[k].scale == 0 ? 1 : w.cores[k].scale);
  }
  free(a.memory);
  return w;
}

// L = sum dy . (x W^T + bias) in double, through the slow oracle.
static double gradient_loss(const tt_matrix *w, const float *x, const float *dy, ptrdiff_t batch) {
  double *dense = train_dense(w), loss = 0;
  for (ptrdiff_t b = 0; b < batch; b++)
    for (ptrdiff_t i = 0; i < w->rows; i++) {
      double y = w->bias ? (double)w->bias[i] : 0;
      for (ptrdiff_t j = 0; j < w->cols; j++)
        y += dense[i * w->cols + j] * (double)x[b * w->cols + j];
      loss += y * (double)dy[b * w->rows + i];
    }
  free(dense);
  return loss;
}

// The central difference of the loss for one number at `at`; exact, for the loss is linear in it.
static double gradient_difference(const tt_matrix *w, const float *x, const float *dy,
                                  ptrdiff_t batch, float *at) {
  float keep = *at;
  *at = keep + 0.5f;
  double up = gradient_loss(w, x, dy, batch), high = (double)*at;
  *at = keep - 0.5f;
  double down = gradient_loss(w, x, dy, batch), low = (double)*at;
  *at = keep;
  return (up - down) / (high - low);
}

// A gradient against central differences for up to `most` of its numbers, relative to the largest.
static void gradient_compare(const tt_matrix *w, const float *x, const float *dy, ptrdiff_t batch,
                             ptrdiff_t count, float *values, const float *gradient,
                             ptrdiff_t most) {
  double *got = test_doubles(most), *wanted = test_doubles(most);
  ptrdiff_t used = count < most ? count : most;
  for (ptrdiff_t t = 0; t < used; t++) {
    ptrdiff_t i = count <= most ? t : test_below((int)count);
    got[t] = (double)gradient[i];
    wanted[t] = gradient_difference(w, x, dy, batch, values + i);
  }
  CHECK_AT_MOST(test_distance(used, got, wanted), 2e-5);
  free(got);
  free(wanted);
}

// Every core, the bias and dx of one train; returns nothing but checks.
static void gradient_check(tt_matrix *w, ptrdiff_t batch, ptrdiff_t most) {
  tt_matrix grad;
  test_heap heap;
  float *x = test_normal_floats(batch * w->cols), *dy = test_normal_floats(batch * w->rows);
  float *dx = test_floats(batch * w->cols + 2);
  gradient_work work = gradient_work_of(tt_backward_work_size(w, batch));
  CHECK_STATUS(tt_zeros_like(w, NULL, &grad), TT_OK);
  tt_allocator keep = w->allocator;
  w->allocator = test_allocator(&heap);
  heap.fail_at = 1;
  memset(dx, 0xFF, (size_t)(batch * w->cols + 1) * sizeof(float));
  dx[0] = dx[batch * w->cols + 1] = -7;
  CHECK_STATUS(tt_backward(w, x, dy, batch, dx + 1, &grad, work.at, work.size), TT_OK);
  CHECK(heap.calls == 0 && dx[0] == -7 && dx[batch * w->cols + 1] == -7);
  w->allocator = keep;
  gradient_work_done(&work);
  for (int k = 0; k < w->shape.order; k++)
    gradient_compare(w, x, dy, batch, shape_core(&w->shape, k), (float *)tt_core_data(w, k),
                     (const float *)grad.cores[k].data, most);
  if (w->bias)
    gradient_compare(w, x, dy, batch, w->rows, tt_bias_data(w), grad.bias, most);
  gradient_compare(w, x, dy, batch, batch * w->cols, x, dx + 1, most);
  tt_free(&grad);
  free(x);
  free(dy);
  free(dx);
}

static void gradient_test_differences(void) {
  for (int s = 0; s < GRADIENT_SHAPES; s++)
    for (int variant = 0; variant < 8; variant++) {
      tt_matrix w = gradient_train(s, variant >> 1 & 1, variant & 1, variant >> 2);
      ptrdiff_t large = shape_rows(&w.shape) * shape_cols(&w.shape) > 4000;
      gradient_check(&w, 1 + 2 * (variant % 3), large ? 6 : 40);
      tt_free(&w);
    }
}

// Adds up over calls and over the batch, without dx the same; grad keeps what it held.
static void gradient_test_sums(void) {
  for (int s = 0; s < GRADIENT_SHAPES; s++) {
    tt_matrix w = gradient_train(s, s & 1, s >> 1 & 1, 1), whole, parts;
    ptrdiff_t batch = 7;
    float *x = test_normal_floats(batch * w.cols), *dy = test_normal_floats(batch * w.rows);
    float *dx = test_floats(batch * w.cols), *dx_parts = test_floats(batch * w.cols);
    gradient_work work = gradient_work_of(tt_backward_work_size(&w, batch));
    CHECK_STATUS(tt_zeros_like(&w, NULL, &whole), TT_OK);
    CHECK_STATUS(tt_zeros_like(&w, NULL, &parts), TT_OK);
    CHECK_STATUS(tt_backward(&w, x, dy, batch, NULL, &whole, work.at, work.size), TT_OK);
    CHECK_STATUS(tt_backward(&w, x, dy, batch, dx, &whole, work.at, work.size), TT_OK);
    for (int twice = 0; twice < 2; twice++)
      for (ptrdiff_t b = 0; b < batch; b++)
        CHECK_STATUS(tt_backward(&w, x + b * w.cols, dy + b * w.rows, 1, dx_parts + b * w.cols,
                                 &parts, work.at, work.size),
                     TT_OK);
    for (int a = 0; a <= w.shape.order; a++) {
      ptrdiff_t count;
      const float *one = tt__array(&whole, a, &count), *other = tt__array(&parts, a, &count);
      CHECK_AT_MOST(gradient_distance(count, other, one), 3e-6);
    }
    CHECK_AT_MOST(gradient_distance(batch * w.cols, dx_parts, dx), 3e-6);
    tt_free(&whole); // a gradient without a bias: no bias gradient, same cores
    tt_matrix plain = w;
    plain.block = NULL;
    plain.bias = NULL;
    CHECK_STATUS(tt_zeros_like(&plain, NULL, &whole), TT_OK);
    CHECK(!whole.bias);
    CHECK_STATUS(tt_backward(&w, x, dy, batch, dx, &whole, work.at, work.size), TT_OK);
    CHECK_STATUS(tt_backward(&w, x, dy, batch, dx, &whole, work.at, work.size), TT_OK);
    for (int a = 0; a < w.shape.order; a++) {
      ptrdiff_t count;
      const float *one = tt__array(&whole, a, &count), *other = tt__array(&parts, a, &count);
      CHECK_AT_MOST(gradient_distance(count, other, one), 3e-6);
    }
    gradient_work_done(&work);
    tt_free(&whole);
    tt_free(&parts);
    tt_free(&w);
    free(x);
    free(dy);
    free(dx);
    free(dx_parts);
  }
}

// The derivative along a direction of one core, <dy, J dG>, is <grad, dG>: y is linear in a core, so
// J dG is tt_apply with that core replaced by dG. Shapes too large for central differences.
static void gradient_check_adjoint(tt_matrix *w, ptrdiff_t batch) {
  tt_matrix grad;
  float *x = test_normal_floats(batch * w->cols), *dy = test_normal_floats(batch * w->rows);
  float *y = test_floats(batch * w->rows), *dx = test_floats(batch * w->cols);
  gradient_work work = gradient_work_of(tt_backward_work_size(w, batch));
  gradient_work forward = gradient_work_of(tt_apply_work_size(w, batch));
  CHECK_STATUS(tt_zeros_like(w, NULL, &grad), TT_OK);
  CHECK_STATUS(tt_backward(w, x, dy, batch, dx, &grad, work.at, work.size), TT_OK);
  for (int k = 0; k < w->shape.order; k++) {
    ptrdiff_t count = shape_core(&w->shape, k);
    float *direction = test_normal_floats(count);
    tt_matrix moved = *w;
    double left = 0, right = 0, size = 0;
    moved.cores[k].data = direction;
    moved.bias = NULL;
    CHECK_STATUS(tt_apply(&moved, x, batch, y, forward.at, forward.size), TT_OK);
    for (ptrdiff_t i = 0; i < batch * w->rows; i++) {
      left += (double)y[i] * (double)dy[i];
      size += fabs((double)y[i] * (double)dy[i]);
    }
    for (ptrdiff_t i = 0; i < count; i++)
      right += (double)direction[i] * (double)((const float *)grad.cores[k].data)[i];
    CHECK_CLOSE(left, right, 1e-5 * size / sqrt((double)(batch * w->rows)));
    free(direction);
  }
  gradient_work_done(&work);
  gradient_work_done(&forward);
  tt_free(&grad);
  free(x);
  free(dy);
  free(y);
  free(dx);
}

static void gradient_test_adjoint(void) {
  static const int rows[3] = {16, 12, 9}, cols[3] = {9, 13, 16}, ranks[4] = {1, 24, 31, 1};
  for (int s = 0; s <= GRADIENT_SHAPES; s++)
    for (int sweep = 0; sweep < 2; sweep++) {
      tt_matrix w;
      if (s < GRADIENT_SHAPES) {
        w = gradient_train(s, sweep, sweep, 1);
      } else {
        tt_shape shape = test_shape(3, rows, cols, ranks);
        CHECK_STATUS(tt_create(&shape, 1720, 1870, NULL, &w), TT_OK);
        CHECK_STATUS(tt_randomize(&w, 5), TT_OK);
        w.sweep = sweep; // random numbers mean as much in the other layout
      }
      gradient_check_adjoint(&w, 9);
      tt_free(&w);
    }
}

// The gradient of rows is that of the product with unit vectors: y = e_index^T W dy.
static void gradient_test_rows_backward(void) {
  for (int s = 0; s < GRADIENT_SHAPES; s++)
    for (int variant = 0; variant < 4; variant++) {
      tt_matrix w = gradient_train(s, variant >> 1, variant & 1, 1), grad, wanted;
      ptrdiff_t count = 6;
      int index[6];
      float *dy = test_normal_floats(count * w.cols), *unit = test_floats(count * w.rows);
      for (ptrdiff_t c = 0; c < count; c++) {
        index[c] = c == 5 ? index[0] : test_below((int)w.rows);
        unit[c * w.rows + index[c]] = 1;
      }
      size_t size = tt_backward_work_size(&w, count);
      if (tt_rows_work_size(&w) > size) size = tt_rows_work_size(&w);
      gradient_work work = gradient_work_of(size);
      CHECK_STATUS(tt_zeros_like(&w, NULL, &grad), TT_OK);
      CHECK_STATUS(tt_zeros_like(&w, NULL, &wanted), TT_OK);
      for (int twice = 0; twice < 2; twice++) {
        CHECK_STATUS(tt_backward(&w, dy, unit, count, NULL, &wanted, work.at, work.size), TT_OK);
        memset(work.at, 0xFF, work.size);
        CHECK_STATUS(tt_rows_backward(&w, index, count, dy, &grad, work.at, work.size), TT_OK);
      }
      for (int k = 0; k < w.shape.order; k++)
        CHECK_AT_MOST(gradient_distance(shape_core(&w.shape, k), (const float *)grad.cores[k].data,
                                        (const float *)wanted.cores[k].data),
                      3e-6);
      for (ptrdiff_t i = 0; i < w.rows; i++) CHECK(grad.bias[i] == 0);
      CHECK_STATUS(tt_rows_backward(&w, index, count, dy, &grad, work.at, work.size - 1),
                   TT_ERROR_INVALID);
      gradient_work_done(&work);
      tt_free(&grad);
      tt_free(&wanted);
      tt_free(&w);
      free(dy);
      free(unit);
    }
}

static void test_gradient(void) {
  gradient_test_rows();
  gradient_test_large_rows();
  gradient_test_rows_arguments();
  gradient_test_differences();
  gradient_test_sums();
  gradient_test_adjoint();
  gradient_test_rows_backward();
}
