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
typedef struct gradient_work {
  unsigned char *memory, *at;
  size_t size;
} gradient_work;
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
        train_built a =
            train_build(&shape, variant >> 1 & 1, train_dtypes[d], group, variant & 1, variant & 1);
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
    train_built a = train_build(&shape, 1,
                                variant / 2 == 0   ? TT_F32
                                : variant / 2 == 1 ? TT_I4
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
  for (ptrdiff_t i = 0; i < count; i++) {
    wide_a[i] = (double)a[i];
    wide_b[i] = (double)b[i];
  }
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
  if (w->bias) gradient_compare(w, x, dy, batch, w->rows, tt_bias_data(w), grad.bias, most);
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
      gradient_check(&w, 1 + 2 * (variant % 3), large ? 6 : 20);
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

// The derivative along a direction of one core, <dy, J dG>, is <grad, dG>: y is linear in a core,
// so J dG is tt_apply with that core replaced by dG. Shapes too large for central differences.
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
                      1e-6 * (w.shape.order + 2));           // every core rounds once more
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

// ---- trains to start from

// Sample variance of all elements of W over a thousand seeds, and a mean of zero.
static void gradient_test_randomize(void) {
  for (int s = 0; s < GRADIENT_SHAPES; s++) {
    for (int variant = 0; variant < 4; variant++) {
      tt_shape shape = gradient_shape(s);
      tt_options options = test_options();
      ptrdiff_t rows, cols;
      tt_matrix w;
      double sum = 0, square = 0, count = 0;
      shape_true_size(&shape, variant & 1, &rows, &cols);
      if (variant & 1 && s == 5) cols = 25; // much padding: 36 columns
      options.dtype = variant & 2 ? TT_F64 : TT_F32;
      CHECK_STATUS(tt_create(&shape, rows, cols, &options, &w), TT_OK);
      double *dense = test_doubles(rows * cols);
      for (unsigned seed = 0; seed < 1000; seed++) {
        CHECK_STATUS(tt_randomize(&w, seed), TT_OK);
        CHECK_STATUS(tt_expand_f64(&w, dense), TT_OK);
        for (ptrdiff_t i = 0; i < rows * cols; i++) {
          sum += dense[i];
          square += dense[i] * dense[i];
        }
        count += (double)(rows * cols);
        if (seed > 40 && (variant || s >= 6)) break; // only to see that it runs
      }
      // one number of one core, and long products of few numbers, have heavy tails
      if (!variant && s < 6) CHECK_CLOSE(square / count * (double)cols, 1, 0.05);
      CHECK_AT_MOST(fabs(sum / count) * sqrt((double)cols), 0.2);
      free(dense);
      tt_free(&w);
    }
  }
}

static void gradient_test_randomize_padding(void) { // 25 of 36 columns: still 1/25
  static const int sizes[2] = {6, 6};
  tt_shape shape = test_shape(2, sizes, sizes, NULL);
  tt_matrix w;
  double dense[36 * 25], square = 0;
  shape.ranks[1] = 8;
  CHECK_STATUS(tt_create(&shape, 36, 25, NULL, &w), TT_OK);
  for (unsigned seed = 0; seed < 1000; seed++) {
    for (ptrdiff_t i = 0; i < 36; i++) tt_bias_data(&w)[i] = 3;
    w.cores[1].scale = 2;
    CHECK_STATUS(tt_randomize(&w, seed), TT_OK);
    CHECK(w.cores[1].scale == 1 && w.bias[35] == 0);
    CHECK_STATUS(tt_expand_f64(&w, dense), TT_OK);
    for (int i = 0; i < 36 * 25; i++) square += dense[i] * dense[i];
  }
  CHECK_CLOSE(square / (36.0 * 25 * 1000) * 25, 1, 0.05);
  tt_matrix again, other = w;
  CHECK_STATUS(tt_create(&shape, 36, 25, NULL, &again), TT_OK);
  CHECK_STATUS(tt_randomize(&again, 999), TT_OK);
  CHECK(!memcmp(again.cores[0].data, w.cores[0].data, 4 * 6 * 6 * 8));
  CHECK_STATUS(tt_randomize(&again, 998), TT_OK);
  CHECK(memcmp(again.cores[0].data, w.cores[0].data, 4 * 6 * 6 * 8) != 0);
  CHECK_STATUS(tt_randomize(NULL, 1), TT_ERROR_INVALID);
  other.block = NULL;
  CHECK_STATUS(tt_randomize(&other, 1), TT_ERROR_INVALID);
  other = w;
  other.cores[1].dtype = TT_F16;
  CHECK_STATUS(tt_randomize(&other, 1), TT_ERROR_UNSUPPORTED);
  tt_free(&w);
  tt_free(&again);
}

static void gradient_test_zeros(void) {
  for (int s = 0; s < GRADIENT_SHAPES; s++)
    for (int variant = 0; variant < 8; variant++) {
      tt_shape shape = gradient_shape(s);
      train_built a = train_build(&shape, variant & 1, train_dtypes[(s + variant) % 10], 4,
                                  variant >> 1 & 1, variant >> 2);
      test_heap heap;
      tt_options options = test_options();
      tt_matrix zeros, copy;
      options.allocator = test_allocator(&heap);
      heap.fail_at = 1;
      CHECK_STATUS(tt_zeros_like(&a.w, &options, &zeros), TT_ERROR_MEMORY);
      CHECK(train_is_zeroed(&zeros) && heap.live_blocks == 0);
      heap.fail_at = 0;
      heap.calls = 0;
      CHECK_STATUS(tt_zeros_like(&a.w, &options, &zeros), TT_OK);
      CHECK(heap.calls == 1 && zeros.sweep == a.w.sweep && !zeros.bias == !a.w.bias);
      CHECK(zeros.rows == a.w.rows && zeros.cols == a.w.cols);
      for (int k = 0; k < shape.order; k++) {
        const float *core = (const float *)zeros.cores[k].data;
        CHECK(zeros.cores[k].dtype == TT_F32 && zeros.shape.ranks[k] == shape.ranks[k]);
        int clear = 1;
        for (ptrdiff_t i = 0; i < shape_core(&shape, k); i++) clear &= core[i] == 0;
        CHECK(clear);
        ((float *)tt_core_data(&zeros, k))[0] = 5;
      }
      if (zeros.bias) tt_bias_data(&zeros)[0] = 5;
      CHECK_STATUS(tt_clear(&zeros), TT_OK);
      CHECK(((const float *)zeros.cores[shape.order - 1].data)[0] == 0);
      CHECK(!zeros.bias || zeros.bias[0] == 0);
      copy = zeros;
      copy.block = NULL;
      CHECK_STATUS(tt_clear(&copy), TT_ERROR_INVALID);
      tt_free(&zeros);
      CHECK(heap.live_blocks == 0);
      options.dtype = TT_F64;
      CHECK_STATUS(tt_zeros_like(&a.w, &options, &zeros), TT_OK);
      CHECK(zeros.cores[0].dtype == TT_F64);
      tt_free(&zeros);
      CHECK_STATUS(tt_zeros_like(NULL, NULL, &zeros), TT_ERROR_INVALID);
      CHECK_STATUS(tt_zeros_like(&a.w, NULL, NULL), TT_ERROR_INVALID);
      CHECK_STATUS(tt_clear(NULL), TT_ERROR_INVALID);
      free(a.memory);
    }
}

// ---- optimisers

// A train, a gradient of random numbers and two memories; three steps against scalar loops.
typedef struct gradient_group {
  tt_matrix w, grad, first, second;
} gradient_group;
static gradient_group gradient_group_of(int s, int sweep, int biased) {
  gradient_group g;
  g.w = gradient_train(s, 0, sweep, biased);
  CHECK_STATUS(tt_zeros_like(&g.w, NULL, &g.grad), TT_OK);
  CHECK_STATUS(tt_zeros_like(&g.w, NULL, &g.first), TT_OK);
  CHECK_STATUS(tt_zeros_like(&g.w, NULL, &g.second), TT_OK);
  return g;
}
static void gradient_group_free(gradient_group *g) {
  tt_free(&g->w);
  tt_free(&g->grad);
  tt_free(&g->first);
  tt_free(&g->second);
}
static void gradient_fill(const tt_matrix *grad) {
  for (int a = 0; a < tt__array_count(grad); a++) {
    ptrdiff_t count;
    float *values = tt__array(grad, a, &count);
    for (ptrdiff_t i = 0; i < count; i++) values[i] = (float)test_normal();
  }
}

// value, velocity or moments of one number after a step, as the papers write it.
typedef struct gradient_scalar {
  double value, m, v;
} gradient_scalar;
static void gradient_scalar_step(gradient_scalar *s, double g, int t, const tt_adam *o, int sgd) {
  if (sgd) {
    s->m = 0.75 * s->m + g;
    s->value -= 0.01 * s->m;
    return;
  }
  s->value -= o->rate * o->weight_decay * s->value;
  s->m = o->beta1 * s->m + (1 - o->beta1) * g;
  s->v = o->beta2 * s->v + (1 - o->beta2) * g * g;
  double m = s->m / (1 - pow(o->beta1, t)), v = s->v / (1 - pow(o->beta2, t));
  s->value -= o->rate * m / (sqrt(v) + o->epsilon);
}

// Twenty steps, each number followed by a scalar in double. kind 0 SGD, 1 Adam by default, 2 Adam
// with options.
static void gradient_check_steps(int s, int kind) {
  static const tt_adam usual = {1e-3, 0.9, 0.999, 1e-8, 0}, other = {0.02, 0.8, 0.95, 1e-3, 0.1};
  gradient_group g = gradient_group_of(s, s & 1, 1);
  tt_adam options = kind == 2 ? other : usual, bias_options = options;
  gradient_scalar *scalars[TT_MAX_ORDER + 1];
  int arrays = g.w.shape.order + 1;
  bias_options.weight_decay = 0;
  for (int a = 0; a < arrays; a++) {
    ptrdiff_t count;
    const float *values = tt__array(&g.w, a, &count);
    scalars[a] = (gradient_scalar *)test_new(count, sizeof(gradient_scalar));
    for (ptrdiff_t i = 0; i < count; i++) scalars[a][i].value = (double)values[i];
  }
  for (int t = 1; t <= 20; t++) {
    gradient_fill(&g.grad);
    for (int a = 0; a < arrays; a++) {
      ptrdiff_t count;
      const float *slope = tt__array(&g.grad, a, &count);
      for (ptrdiff_t i = 0; i < count; i++)
        gradient_scalar_step(&scalars[a][i], (double)slope[i], t,
                             a + 1 < arrays ? &options : &bias_options, kind == 0);
    }
    if (kind == 0)
      CHECK_STATUS(tt_sgd_step(&g.w, &g.grad, &g.first, 0.01, 0.75), TT_OK);
    else
      CHECK_STATUS(tt_adam_step(&g.w, &g.grad, &g.first, &g.second, t, kind == 2 ? &other : NULL),
                   TT_OK);
  }
  for (int a = 0; a < arrays; a++) {
    ptrdiff_t count;
    const float *values = tt__array(&g.w, a, &count);
    double worst = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
      double off = fabs((double)values[i] - scalars[a][i].value);
      if (off > worst) worst = off;
    }
    CHECK_AT_MOST(worst, 5e-6);
    free(scalars[a]);
  }
  gradient_group_free(&g);
}

static void gradient_test_optimisers(void) {
  for (int s = 0; s < GRADIENT_SHAPES; s++)
    for (int kind = 0; kind < 3; kind++) gradient_check_steps(s, kind);
}

// Descent finds a train: y = W x is learnt from examples of a planted train.
static void gradient_test_learning(void) {
  for (int kind = 0; kind < 2; kind++)
    for (int s = 0; s < 6; s++) {
      gradient_group g = gradient_group_of(s, kind, 1);
      tt_matrix goal = gradient_train(s, 0, kind, 1);
      ptrdiff_t batch = 32, rows = g.w.rows, cols = g.w.cols;
      float *x = test_floats(batch * cols), *y = test_floats(batch * rows),
            *dy = test_floats(batch * rows);
      gradient_work forward = gradient_work_of(tt_apply_work_size(&goal, batch));
      gradient_work work = gradient_work_of(tt_backward_work_size(&goal, batch));
      double start = 0, loss = 0;
      for (int t = 1; t <= 600; t++) {
        tt_adam adam = {0.02 / (1 + 0.01 * t), 0, 0, 0, 0};
        for (ptrdiff_t i = 0; i < batch * cols; i++) x[i] = (float)test_normal();
        CHECK_STATUS(tt_apply(&goal, x, batch, y, forward.at, forward.size), TT_OK);
        CHECK_STATUS(tt_apply(&g.w, x, batch, dy, forward.at, forward.size), TT_OK);
        loss = 0;
        for (ptrdiff_t i = 0; i < batch * rows; i++) {
          dy[i] -= y[i];
          loss += (double)dy[i] * (double)dy[i];
          dy[i] /= (float)batch;
        }
        if (t == 1) start = loss;
        CHECK_STATUS(tt_clear(&g.grad), TT_OK);
        CHECK_STATUS(tt_backward(&g.w, x, dy, batch, NULL, &g.grad, work.at, work.size), TT_OK);
        if (kind)
          CHECK_STATUS(tt_adam_step(&g.w, &g.grad, &g.first, &g.second, t, &adam), TT_OK);
        else
          CHECK_STATUS(tt_sgd_step(&g.w, &g.grad, &g.first, 0.03 / (double)rows * 4, 0.9), TT_OK);
      }
      CHECK_AT_MOST(loss / start, s < 2 ? 0.05 : 0.2); // a few starts end in a plateau
      gradient_work_done(&forward);
      gradient_work_done(&work);
      gradient_group_free(&g);
      tt_free(&goal);
      free(x);
      free(y);
      free(dy);
    }
}

// ---- the balanced gauge, and turning

// Gram matrices of both sides of bond k from the definition: over all rows and columns of the
// cores on that side.
static void gradient_grams(const tt_matrix *w, int bond, double *left, double *right) {
  int r = w->shape.ranks[bond + 1];
  for (int side = 0; side < 2; side++) {
    // the cores of one side as a train whose last (or first) leg is the bond
    double *gram = side ? right : left, *cores[TT_MAX_ORDER], *next;
    int order = w->shape.order;
    gram[0] = 1;
    double *g = test_doubles(1);
    g[0] = 1;
    for (int t = 0; t <= (side ? order - 2 - bond : bond); t++) {
      int k = side ? order - 1 - t : t, a = w->shape.ranks[k], b = w->shape.ranks[k + 1];
      ptrdiff_t leg = (ptrdiff_t)w->shape.rows[k] * w->shape.cols[k];
      int size = side ? a : b;
      cores[k] = train_core_values(w, k);
      next = test_doubles((ptrdiff_t)size * size);
      for (ptrdiff_t l = 0; l < leg; l++)
        for (int a1 = 0; a1 < a; a1++)
          for (int a2 = 0; a2 < a; a2++)
            for (int b1 = 0; b1 < b; b1++)
              for (int b2 = 0; b2 < b; b2++) {
                double product =
                    cores[k][(a1 * leg + l) * b + b1] * cores[k][(a2 * leg + l) * b + b2];
                if (side)
                  next[a1 * a + a2] += product * g[b1 * b + b2];
                else
                  next[b1 * b + b2] += product * g[a1 * a + a2];
              }
      free(cores[k]);
      free(g);
      g = next;
    }
    for (int i = 0; i < r * r; i++) gram[i] = g[i];
    free(g);
  }
}

static void gradient_check_balance(const tt_matrix *w, const tt_options *options,
                                   double tolerance) {
  tt_matrix b;
  ptrdiff_t count = w->rows * w->cols;
  double *before = test_doubles(count), *after = test_doubles(count);
  CHECK_STATUS(tt_balance(w, options, &b), TT_OK);
  CHECK_STATUS(tt_expand_f64(w, before), TT_OK);
  CHECK_STATUS(tt_expand_f64(&b, after), TT_OK);
  CHECK_AT_MOST(test_distance(count, after, before), tolerance);
  CHECK(b.sweep == TT_RIGHT_TO_LEFT && !b.bias == !w->bias);
  for (int bond = 0; bond + 1 < b.shape.order; bond++) {
    int r = b.shape.ranks[bond + 1], values = w->shape.ranks[bond + 1];
    double *left = test_doubles(r * r), *right = test_doubles(r * r), *s = test_doubles(values);
    CHECK(r <= w->shape.ranks[bond + 1]);
    gradient_grams(&b, bond, left, right);
    CHECK_STATUS(tt_spectrum(w, bond, s, &values), TT_OK);
    for (int i = 0; i < r * r; i++) {
      double wanted = i / r == i % r ? s[i / r] : 0;
      CHECK_CLOSE(left[i], wanted, (tolerance < 1e-9 ? 1e-10 : 1e-6) * s[0]);
      CHECK_CLOSE(right[i], wanted, (tolerance < 1e-9 ? 1e-10 : 1e-6) * s[0]);
    }
    free(left);
    free(right);
    free(s);
  }
  tt_free(&b);
  free(before);
  free(after);
}

static void gradient_test_balance(void) {
  for (int s = 0; s < GRADIENT_SHAPES; s++) {
    tt_shape shape = gradient_shape(s);
    for (int variant = 0; variant < 8; variant++) {
      train_built a =
          train_build(&shape, 0, variant & 2 ? TT_F32 : TT_F64, 0, variant & 1, variant >> 2);
      tt_options options = test_options();
      options.dtype = TT_F64;
      gradient_check_balance(&a.w, variant & 1 ? &options : NULL,
                             variant & 2 && !(variant & 1) ? 1e-6 : 1e-12);
      free(a.memory);
    }
  }
}

// Zero Schmidt values: a train plus itself has twice the rank and half of it is useless; a matrix
// of zeros; numbers near the ends of the range.
static void gradient_test_balance_edges(void) {
  for (int s = 1; s < GRADIENT_SHAPES; s++) {
    tt_shape shape = gradient_shape(s);
    tt_matrix w = test_train(&shape), twice, b, half, zero;
    CHECK_STATUS(tt_add(&w, &w, NULL, &twice), TT_OK);
    gradient_check_balance(&twice, NULL, 1e-12);
    CHECK_STATUS(tt_balance(&twice, NULL, &b), TT_OK);
    CHECK_STATUS(tt_round(&w, NULL, &half, NULL), TT_OK);
    for (int k = 0; k <= shape.order; k++) CHECK(b.shape.ranks[k] <= half.shape.ranks[k]);
    tt_free(&b);
    CHECK_STATUS(tt_scale(&twice, 0, NULL, &zero), TT_OK);
    CHECK_STATUS(tt_balance(&zero, NULL, &b), TT_OK);
    for (int k = 0; k <= shape.order; k++) CHECK(b.shape.ranks[k] == 1);
    for (int k = 0; k < shape.order; k++)
      for (ptrdiff_t i = 0; i < shape_core(&b.shape, k); i++)
        CHECK(((const double *)b.cores[k].data)[i] == 0);
    tt_free(&zero);
    tt_free(&b);
    for (int t = 0; t < 4; t++) {
      double factor = t == 0 ? 1e200 : t == 1 ? 1e-200 : t == 2 ? 3.0 : 6.0, one, other;
      CHECK_STATUS(tt_scale(&w, factor, NULL, &zero), TT_OK);
      CHECK_STATUS(tt_balance(&zero, NULL, &b), TT_OK);
      CHECK_STATUS(tt_norm(&zero, &one), TT_OK);
      CHECK_STATUS(tt_norm(&b, &other), TT_OK);
      CHECK_CLOSE(other / one, 1, 1e-12);
      if (t > 1) gradient_check_balance(&zero, NULL, 1e-12);
      tt_free(&zero);
      tt_free(&b);
    }
    tt_free(&w);
    tt_free(&twice);
    tt_free(&half);
  }
}

static void gradient_test_balance_memory(void) {
  for (int s = 0; s < SHAPE_TABLE_SIZE; s++) {
    tt_shape shape = gradient_shape(s);
    train_built a = train_build(&shape, 0, TT_F32, 0, s & 1, 1);
    test_heap heap;
    tt_options options = test_options();
    tt_status status = TT_ERROR_MEMORY;
    options.allocator = test_allocator(&heap);
    for (long fail = 1; status == TT_ERROR_MEMORY && fail < 2000; fail++) {
      tt_matrix b;
      heap.calls = 0;
      heap.fail_at = fail;
      status = tt_balance(&a.w, &options, &b);
      CHECK(status == TT_OK || (status == TT_ERROR_MEMORY && train_is_zeroed(&b)));
      if (status == TT_OK) CHECK(heap.calls < fail);
      tt_free(&b);
      CHECK(heap.live_blocks == 0);
    }
    CHECK_STATUS(status, TT_OK);
    free(a.memory);
  }
}

static void gradient_test_balance_arguments(void) {
  tt_shape shape = gradient_shape(5);
  tt_matrix w = test_train(&shape), b;
  tt_options bad = test_options();
  CHECK_STATUS(tt_balance(NULL, NULL, &b), TT_ERROR_INVALID);
  CHECK(train_is_zeroed(&b));
  CHECK_STATUS(tt_balance(&w, NULL, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_balance(&w, NULL, &w), TT_ERROR_INVALID);
  bad.max_rank = -1;
  CHECK_STATUS(tt_balance(&w, &bad, &b), TT_ERROR_INVALID);
  ((double *)tt_core_data(&w, 1))[3] = (double)NAN;
  CHECK_STATUS(tt_balance(&w, NULL, &b), TT_ERROR_NONFINITE);
  CHECK(train_is_zeroed(&b));
  CHECK_STATUS(tt_turn(&w, TT_LEFT_TO_RIGHT, NULL, &b), TT_ERROR_NONFINITE);
  CHECK_STATUS(tt_turn(&w, 2, NULL, &b), TT_ERROR_INVALID);
  CHECK_STATUS(tt_turn(&w, -1, NULL, &b), TT_ERROR_INVALID);
  CHECK_STATUS(tt_turn(NULL, 0, NULL, &b), TT_ERROR_INVALID);
  tt_free(&w);
}

static void gradient_test_turn(void) {
  for (int s = 0; s < GRADIENT_SHAPES; s++)
    for (int variant = 0; variant < 8; variant++) {
      tt_matrix w = gradient_train(s, variant & 1, variant >> 1 & 1, variant >> 2), turned, back;
      double *dense = train_dense(&w);
      CHECK_STATUS(tt_turn(&w, !w.sweep, NULL, &turned), TT_OK);
      CHECK(turned.sweep == !w.sweep && !turned.bias == !w.bias);
      CHECK(!memcmp(&turned.shape, &w.shape, sizeof w.shape));
      train_check_dense(&turned, dense, 1e-6);
      CHECK_STATUS(tt_turn(&turned, w.sweep, NULL, &back), TT_OK);
      train_check_dense(&back, dense, 1e-6);
      tt_free(&back);
      CHECK_STATUS(tt_turn(&w, w.sweep, NULL, &back), TT_OK); // nothing to do: same bytes
      for (int k = 0; k < w.shape.order; k++)
        CHECK(!memcmp(back.cores[k].data, w.cores[k].data,
                      (size_t)shape_core(&w.shape, k) * sizeof(float)));
      tt_free(&back);
      tt_free(&turned);
      tt_free(&w);
      free(dense);
    }
}

// ---- straight-through values

static void gradient_check_values(const tt_matrix *w, tt_dtype dtype, int group) {
  tt_matrix coded, values;
  CHECK_STATUS(tt_quantize(w, dtype, group, NULL, &coded, NULL), TT_OK);
  CHECK_STATUS(tt_zeros_like(w, NULL, &values), TT_OK);
  CHECK_STATUS(tt_quantize_values(w, dtype, group, &values), TT_OK);
  for (int k = 0; k < w->shape.order; k++) {
    ptrdiff_t rows = train_view_rows(w, k), length = train_view_cols(w, k), wrong = 0;
    const float *got = (const float *)values.cores[k].data;
    float *wanted = test_floats(rows * length);
    tt__decode_rows(&coded.cores[k], 0, rows, length, wanted);
    for (ptrdiff_t i = 0; i < rows * length; i++) wrong += got[i] != wanted[i];
    CHECK(wrong == 0);
    free(wanted);
  }
  if (w->bias) CHECK(!memcmp(values.bias, w->bias, (size_t)w->rows * sizeof(float)));
  tt_free(&coded);
  tt_free(&values);
}

static void gradient_test_values(void) {
  static const int groups[6] = {0, TT_GROUP_ROW, 1, 3, 32, 1000};
  for (int s = 0; s < GRADIENT_SHAPES; s++)
    for (int variant = 0; variant < 6; variant++) {
      tt_matrix w = gradient_train(s, variant & 1, variant >> 1 & 1, variant >> 2);
      float *core = (float *)tt_core_data(&w, 0);
      ptrdiff_t count = shape_core(&w.shape, 0);
      for (ptrdiff_t i = 0; i < count && variant == 1; i++) core[i] = 0; // a core of zeros
      for (ptrdiff_t i = 0; i < count && variant == 2; i++) core[i] *= 1e6f;
      for (ptrdiff_t i = 0; i < count && variant == 3; i++) core[i] *= 1e-7f;
      // beyond the range where tt_quantize leaves the gauge alone
      for (ptrdiff_t i = 0; i < count && variant == 4; i++) core[i] *= 1e-38f;
      for (ptrdiff_t i = 1; i < count && variant == 5; i += 2) core[i] = 0;
      for (int d = 0; d < 10; d++)
        for (int g = 0; g < 6; g++)
          if (g == 0 || train_is_integer(train_dtypes[d]))
            gradient_check_values(&w, train_dtypes[d], groups[g]);
      tt_free(&w);
    }
}

static void gradient_test_values_arguments(void) {
  gradient_group g = gradient_group_of(5, 0, 1);
  tt_matrix plain = g.w, no_bias;
  plain.bias = NULL;
  CHECK_STATUS(tt_zeros_like(&plain, NULL, &no_bias), TT_OK);
  CHECK_STATUS(tt_quantize_values(NULL, TT_I8, 0, &g.grad), TT_ERROR_INVALID);
  CHECK_STATUS(tt_quantize_values(&g.w, TT_I8, 0, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_quantize_values(&g.w, TT_I8, 0, &g.w), TT_ERROR_INVALID);
  CHECK_STATUS(tt_quantize_values(&g.w, TT_I8, 0, &no_bias), TT_ERROR_INVALID);
  CHECK_STATUS(tt_quantize_values(&plain, TT_I8, 0, &g.grad), TT_ERROR_INVALID);
  CHECK_STATUS(tt_quantize_values(&g.w, (tt_dtype)10, 0, &g.grad), TT_ERROR_INVALID);
  CHECK_STATUS(tt_quantize_values(&g.w, TT_I8, -2, &g.grad), TT_ERROR_INVALID);
  CHECK_STATUS(tt_quantize_values(&g.w, TT_F16, 32, &g.grad), TT_ERROR_UNSUPPORTED);
  ((float *)tt_core_data(&g.w, 3))[2] = (float)INFINITY;
  CHECK_STATUS(tt_quantize_values(&g.w, TT_I8, 0, &g.grad), TT_ERROR_NONFINITE);
  CHECK(((const float *)g.grad.cores[0].data)[0] == 0 && g.grad.bias[0] == 0);
  tt_free(&no_bias);
  gradient_group_free(&g);
}

// ---- arguments

static double gradient_total(const tt_matrix *w) { // changes with any number
  double total = 0;
  for (int a = 0; a < tt__array_count(w); a++) {
    ptrdiff_t count;
    const float *values = tt__array(w, a, &count);
    for (ptrdiff_t i = 0; i < count; i++) total += (double)values[i] * (1 + 0.37 * (double)(i + a));
  }
  return total;
}

// Refused with this status, and neither grad nor dx touched.
static void gradient_refused(const tt_matrix *w, const float *x, const float *dy, ptrdiff_t batch,
                             tt_matrix *grad, void *work, size_t size, tt_status wanted) {
  float dx[40 * 4];
  double before = grad && tt__valid(grad) ? gradient_total(grad) : 0;
  for (int i = 0; i < 160; i++) dx[i] = 42;
  CHECK_STATUS(tt_backward(w, x, dy, batch, dx, grad, work, size), wanted);
  int touched = 0;
  for (int i = 0; i < 160; i++) touched |= dx[i] != 42;
  CHECK(!touched);
  if (grad && tt__valid(grad)) CHECK(gradient_total(grad) == before);
}

static void gradient_test_arguments(void) {
  gradient_group g = gradient_group_of(5, 0, 1), other = gradient_group_of(4, 0, 1),
                 turned = gradient_group_of(5, 1, 1);
  float x[36 * 4] = {0}, dy[36 * 4] = {0};
  size_t size = tt_backward_work_size(&g.w, 4);
  void *work = test_new((ptrdiff_t)size, 1);
  gradient_fill(&g.grad);
  gradient_refused(NULL, x, dy, 4, &g.grad, work, size, TT_ERROR_INVALID);
  gradient_refused(&g.w, NULL, dy, 4, &g.grad, work, size, TT_ERROR_INVALID);
  gradient_refused(&g.w, x, NULL, 4, &g.grad, work, size, TT_ERROR_INVALID);
  gradient_refused(&g.w, x, dy, -1, &g.grad, work, size, TT_ERROR_INVALID);
  gradient_refused(&g.w, x, dy, 4, NULL, work, size, TT_ERROR_INVALID);
  gradient_refused(&g.w, x, dy, 4, &g.grad, NULL, size, TT_ERROR_INVALID);
  gradient_refused(&g.w, x, dy, 4, &g.grad, work, size - 1, TT_ERROR_INVALID);
  gradient_refused(&g.w, x, dy, 4, &g.w, work, size, TT_ERROR_INVALID);
  gradient_refused(&g.w, x, dy, 4, &other.grad, work, size, TT_ERROR_INVALID);
  gradient_refused(&g.w, x, dy, 4, &turned.grad, work, size, TT_ERROR_INVALID);
  gradient_refused(&g.w, x, dy, PTRDIFF_MAX / 4, &g.grad, work, size, TT_ERROR_INVALID);
  for (int t = 0; t < 7; t++) {
    tt_matrix bad = g.grad;
    if (t == 0) bad.block = NULL;
    if (t == 1) bad.rows--;
    if (t == 2) bad.cols--;
    if (t == 3) bad.cores[1].dtype = TT_F16;
    if (t == 4) bad.cores[1].scale = 2;
    if (t == 5) bad.cores[2].data = NULL;
    if (t == 6) bad.shape.ranks[2]--;
    CHECK_STATUS(tt_backward(&g.w, x, dy, 4, NULL, &bad, work, size), TT_ERROR_INVALID);
  }
  CHECK_STATUS(tt_backward(&g.w, NULL, NULL, 0, NULL, &g.grad, NULL, 0), TT_OK);
  CHECK(tt_backward_work_size(NULL, 1) == 0 && tt_backward_work_size(&g.w, -1) == 0);
  CHECK(tt_backward_work_size(&g.w, PTRDIFF_MAX) == 0 && tt_backward_work_size(&g.w, 0) >= 1);
  for (int d = 1; d < 10; d++) { // coded and double cores
    tt_matrix coded;
    CHECK_STATUS(tt_quantize(&g.w, train_dtypes[d], 0, NULL, &coded, NULL), TT_OK);
    gradient_refused(&coded, x, dy, 4, &g.grad, work, size, TT_ERROR_UNSUPPORTED);
    CHECK_STATUS(tt_sgd_step(&coded, &g.grad, NULL, 1, 0), TT_ERROR_UNSUPPORTED);
    CHECK_STATUS(tt_quantize_values(&coded, TT_I8, 0, &g.grad), TT_ERROR_UNSUPPORTED);
    tt_free(&coded);
  }
  float scales[2] = {g.w.cores[0].scale, g.w.cores[1].scale};  // their product leaves the range
  g.w.cores[0].scale = g.w.cores[1].scale = 1e30f;
  gradient_refused(&g.w, x, dy, 4, &g.grad, work, size, TT_ERROR_UNSUPPORTED);
  g.w.cores[0].scale = scales[0];
  g.w.cores[1].scale = scales[1];
  int index[4] = {0, 3, 35, 36};
  CHECK_STATUS(tt_rows_backward(&g.w, index, 3, dy, &g.grad, work, size), TT_OK);
  double before = gradient_total(&g.grad);
  CHECK_STATUS(tt_rows_backward(&g.w, index, 4, dy, &g.grad, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows_backward(&g.w, NULL, 3, dy, &g.grad, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows_backward(&g.w, index, 3, NULL, &g.grad, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows_backward(&g.w, index, 3, dy, &g.grad, NULL, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows_backward(&g.w, index, 3, dy, &other.grad, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows_backward(&g.w, index, -1, dy, &g.grad, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows_backward(&g.w, NULL, 0, NULL, &g.grad, NULL, 0), TT_OK);
  CHECK(gradient_total(&g.grad) == before);
  free(work);
  gradient_group_free(&g);
  gradient_group_free(&other);
  gradient_group_free(&turned);
}

static void gradient_test_step_arguments(void) {
  gradient_group g = gradient_group_of(5, 0, 1), other = gradient_group_of(4, 0, 1);
  gradient_fill(&g.grad);
  double before = gradient_total(&g.w);
  tt_matrix *w = &g.w, *grad = &g.grad, *m = &g.first, *v = &g.second, plain = g.w, no_bias;
  CHECK_STATUS(tt_sgd_step(NULL, grad, NULL, 1, 0), TT_ERROR_INVALID);
  CHECK_STATUS(tt_sgd_step(w, NULL, NULL, 1, 0), TT_ERROR_INVALID);
  CHECK_STATUS(tt_sgd_step(w, w, NULL, 1, 0), TT_ERROR_INVALID);
  CHECK_STATUS(tt_sgd_step(w, grad, grad, 1, 0.5), TT_ERROR_INVALID);
  CHECK_STATUS(tt_sgd_step(w, &other.grad, NULL, 1, 0), TT_ERROR_INVALID);
  CHECK_STATUS(tt_sgd_step(w, grad, NULL, 1, 0.5), TT_ERROR_INVALID);
  CHECK_STATUS(tt_sgd_step(w, grad, m, -1, 0.5), TT_ERROR_INVALID);
  CHECK_STATUS(tt_sgd_step(w, grad, m, (double)NAN, 0.5), TT_ERROR_INVALID);
  CHECK_STATUS(tt_sgd_step(w, grad, m, (double)INFINITY, 0.5), TT_ERROR_INVALID);
  CHECK_STATUS(tt_sgd_step(w, grad, m, 1, 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_sgd_step(w, grad, m, 1, -0.5), TT_ERROR_INVALID);
  CHECK_STATUS(tt_sgd_step(w, grad, &other.first, 1, 0.5), TT_ERROR_INVALID);
  CHECK_STATUS(tt_adam_step(NULL, grad, m, v, 1, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_adam_step(w, grad, NULL, v, 1, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_adam_step(w, grad, m, NULL, 1, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_adam_step(w, grad, m, m, 1, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_adam_step(w, grad, m, w, 1, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_adam_step(w, grad, m, v, 0, NULL), TT_ERROR_INVALID);
  for (int t = 0; t < 6; t++) {
    static const tt_adam bad[6] = {{-1, 0, 0, 0, 0}, {0, 1, 0, 0, 0},  {0, 0, 1, 0, 0},
                                   {0, -1, 0, 0, 0}, {0, 0, 0, -1, 0}, {0, 0, 0, 0, -1}};
    CHECK_STATUS(tt_adam_step(w, grad, m, v, 1, &bad[t]), TT_ERROR_INVALID);
  }
  plain.bias = NULL; // a gradient that would move a bias that is not there, or that has no memory
  CHECK_STATUS(tt_sgd_step(&plain, grad, NULL, 1, 0), TT_ERROR_INVALID);
  CHECK_STATUS(tt_zeros_like(&plain, NULL, &no_bias), TT_OK);
  CHECK_STATUS(tt_sgd_step(w, grad, &no_bias, 1, 0.5), TT_ERROR_INVALID);
  plain.block = NULL;
  CHECK_STATUS(tt_sgd_step(&plain, &no_bias, NULL, 1, 0), TT_ERROR_INVALID);
  for (int a = 0; a <= 4; a += 2) { // NaN and Inf, also in the bias
    ptrdiff_t count;
    float *values = tt__array(grad, a, &count), keep = values[count - 1];
    values[count - 1] = a == 2 ? -(float)INFINITY : (float)NAN;
    CHECK_STATUS(tt_sgd_step(w, grad, m, 1, 0.5), TT_ERROR_NONFINITE);
    CHECK_STATUS(tt_adam_step(w, grad, m, v, 1, NULL), TT_ERROR_NONFINITE);
    values[count - 1] = keep;
  }
  CHECK(gradient_total(w) == before && gradient_total(m) == 0 && gradient_total(v) == 0);
  float bias = w->bias[3]; // without a bias in the gradient the bias is frozen
  ((float *)tt_core_data(&no_bias, 0))[0] = 1;
  float first = ((const float *)w->cores[0].data)[0];
  CHECK_STATUS(tt_sgd_step(w, &no_bias, NULL, 0.5, 0), TT_OK);
  CHECK(w->bias[3] == bias && ((const float *)w->cores[0].data)[0] == first - 0.5f);
  ((float *)tt_core_data(grad, 0))[0] = 1e30f; // a square beyond float: no Inf, the step is small
  CHECK_STATUS(tt_adam_step(w, grad, m, v, 1, NULL), TT_OK);
  CHECK(((const float *)v->cores[0].data)[0] == FLT_MAX);
  CHECK_CLOSE(((const float *)w->cores[0].data)[0], first - 0.5f, 2e-3);
  tt_free(&no_bias);
  gradient_group_free(&g);
  gradient_group_free(&other);
}

static void test_gradient(void) {
  gradient_test_rows();
  gradient_test_large_rows();
  gradient_test_rows_arguments();
  gradient_test_differences();
  gradient_test_sums();
  gradient_test_adjoint();
  gradient_test_rows_backward();
  gradient_test_randomize();
  gradient_test_randomize_padding();
  gradient_test_zeros();
  gradient_test_optimisers();
  gradient_test_learning();
  gradient_test_balance();
  gradient_test_balance_edges();
  gradient_test_balance_memory();
  gradient_test_balance_arguments();
  gradient_test_turn();
  gradient_test_values();
  gradient_test_values_arguments();
  gradient_test_arguments();
  gradient_test_step_arguments();
}
