// SHA-256 and the statistics of a layer's inputs: against two passes in long double, in any cut
// into batches, merged, diagonal, with hostile values and failing memory.

static void inputs_hex(const unsigned char digest[32], char out[65]) {
  for (int i = 0; i < 32; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static void inputs_check_hash(const char *text, size_t repeat, size_t step, const char *wanted) {
  size_t length = strlen(text), total = length * repeat;
  char *all = (char *)test_new((ptrdiff_t)total + 1, 1), hex[65];
  unsigned char digest[32];
  tt_sha256 hash;
  for (size_t i = 0; i < repeat; i++) memcpy(all + i * length, text, length);
  tt_sha256_begin(&hash);
  for (size_t at = 0; at < total; at += step)
    tt_sha256_add(&hash, all + at, total - at < step ? total - at : step);
  tt_sha256_end(&hash, digest);
  inputs_hex(digest, hex);
  CHECK(!strcmp(hex, wanted));
  free(all);
}

// The examples of FIPS 180-4, in one piece and in many.
static void inputs_test_hash(void) {
  static const size_t steps[] = {1, 3, 55, 56, 63, 64, 65, 1000, 1000000};
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
    inputs_check_hash("", 0, steps[i],
                      "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    inputs_check_hash("abc", 1, steps[i],
                      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    inputs_check_hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1, steps[i],
                      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    inputs_check_hash("a", 1000000, steps[i],
                      "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
}

static tt_inputs *inputs_new(ptrdiff_t cols, int diagonal) {
  tt_options options = test_options();
  tt_inputs *inputs;
  options.diagonal_inputs = diagonal;
  CHECK_STATUS(tt_inputs_create(cols, &options, &inputs), TT_OK);
  return inputs;
}

// Correlated samples with a mean far from zero, one input that is always 3 and one that repeats
// another.
static float *inputs_samples(ptrdiff_t count, ptrdiff_t n, double mean) {
  float *x = test_floats(count * n);
  for (ptrdiff_t i = 0; i < count; i++) {
    double common = test_normal();
    for (ptrdiff_t j = 0; j < n; j++)
      x[i * n + j] = (float)(mean + common + (double)(j + 1) * test_normal());
    if (n > 2) x[i * n + 1] = 3;
    if (n > 2) x[i * n + 2] = x[i * n];
  }
  return x;
}

// Mean and covariance in two passes.
static void inputs_reference(ptrdiff_t count, ptrdiff_t n, const float *x, double *mean,
                             double *covariance) {
  long double *mu = (long double *)test_new(n, sizeof *mu);
  for (ptrdiff_t i = 0; i < count; i++)
    for (ptrdiff_t j = 0; j < n; j++) mu[j] += (long double)x[i * n + j] / (long double)count;
  for (ptrdiff_t a = 0; a < n; a++) {
    mean[a] = (double)mu[a];
    for (ptrdiff_t b = 0; b < n; b++) {
      long double sum = 0;
      for (ptrdiff_t i = 0; i < count; i++)
        sum += ((long double)x[i * n + a] - mu[a]) * ((long double)x[i * n + b] - mu[b]);
      covariance[a * n + b] = (double)(sum / (long double)count);
    }
  }
  free(mu);
}

static void inputs_check_moments(const tt_inputs *inputs, const double *mean,
                                 const double *covariance, double tolerance) {
  ptrdiff_t n = tt_inputs_cols(inputs);
  double *m = test_doubles(n), *c = test_doubles(n * n),
         largest = reference_largest(n * n, covariance);
  CHECK_STATUS(tt_inputs_moments(inputs, m, c), TT_OK);
  CHECK_STATUS(tt_inputs_moments(inputs, NULL, NULL), TT_OK);
  for (ptrdiff_t i = 0; i < n; i++) {
    CHECK_CLOSE(m[i], mean[i], tolerance * (fabs(mean[i]) + 1));
    for (ptrdiff_t j = 0; j < n; j++) {
      double wanted = inputs->diagonal && i != j ? 0 : covariance[i * n + j];
      CHECK_CLOSE(c[i * n + j], wanted, tolerance * largest);
      if (!inputs->diagonal)
        CHECK(c[i * n + j] == c[j * n + i] ||
              fabs(c[i * n + j] - c[j * n + i]) <= tolerance * largest);
    }
  }
  free(m);
  free(c);
}

static void inputs_check_case(ptrdiff_t count, ptrdiff_t n, double mean, int diagonal,
                              double tolerance) {
  float *x = inputs_samples(count, n, mean);
  double *mu = test_doubles(n), *covariance = test_doubles(n * n);
  inputs_reference(count, n, x, mu, covariance);
  tt_inputs *whole = inputs_new(n, diagonal), *pieces = inputs_new(n, diagonal),
            *first = inputs_new(n, diagonal), *second = inputs_new(n, diagonal);
  CHECK_STATUS(tt_inputs_add(whole, x, count), TT_OK);
  for (ptrdiff_t at = 0, step = 0; at < count; at += step, step = (step * 3 + 1) % 200) {
    if (step > count - at) step = count - at;
    CHECK_STATUS(tt_inputs_add(pieces, x + at * n, step), TT_OK);
  }
  CHECK_STATUS(tt_inputs_add(first, x, count / 3), TT_OK);
  CHECK_STATUS(tt_inputs_add(second, x + count / 3 * n, count - count / 3), TT_OK);
  CHECK_STATUS(tt_inputs_merge(first, second), TT_OK);
  CHECK(tt_inputs_count(whole) == count && tt_inputs_count(pieces) == count &&
        tt_inputs_count(first) == count && tt_inputs_cols(whole) == n);
  inputs_check_moments(whole, mu, covariance, tolerance);
  inputs_check_moments(pieces, mu, covariance, tolerance);
  inputs_check_moments(first, mu, covariance, tolerance);
  unsigned char one[32], two[32];
  CHECK_STATUS(tt_inputs_digest(whole, one), TT_OK);
  CHECK_STATUS(tt_inputs_digest(pieces, two), TT_OK);
  CHECK(!memcmp(one, two, 32));                              // the cut into batches does not matter
  x[0] += 1;
  tt_inputs *other = inputs_new(n, diagonal);
  CHECK_STATUS(tt_inputs_add(other, x, count), TT_OK);
  CHECK_STATUS(tt_inputs_digest(other, two), TT_OK);
  CHECK(memcmp(one, two, 32));
  tt_inputs_free(other);
  tt_inputs_free(whole);
  tt_inputs_free(pieces);
  tt_inputs_free(first);
  tt_inputs_free(second);
  free(x);
  free(mu);
  free(covariance);
}

static void inputs_test_moments(void) {
  static const ptrdiff_t counts[] = {1, 2, 17, 127, 128, 129, 400}, widths[] = {1, 3, 16, 37};
  for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
      for (int diagonal = 0; diagonal < 2; diagonal++)
        inputs_check_case(counts[c], widths[w], diagonal ? -5 : 2, diagonal, 1e-12);
  // sums of squares would lose all digits here: mean 1e6, spread 1
  inputs_check_case(300, 3, 1e6, 0, 1e-10);
}

// Little-endian floats: the digest of one sample is that of its bytes.
static void inputs_test_digest(void) {
  static const float x[2] = {1.0f, -2.5f};
  static const unsigned char bytes[8] = {0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0};
  unsigned char got[32], wanted[32];
  tt_sha256 hash;
  tt_inputs *inputs = inputs_new(2, 0), *empty = inputs_new(2, 0);
  CHECK_STATUS(tt_inputs_add(inputs, x, 1), TT_OK);
  CHECK_STATUS(tt_inputs_digest(inputs, got), TT_OK);
  tt_sha256_begin(&hash);
  tt_sha256_add(&hash, bytes, 8);
  tt_sha256_end(&hash, wanted);
  CHECK(!memcmp(got, wanted, 32));
  CHECK_STATUS(tt_inputs_merge(inputs, empty), TT_OK);       // nothing to merge changes nothing
  CHECK_STATUS(tt_inputs_digest(inputs, got), TT_OK);
  CHECK(!memcmp(got, wanted, 32) && tt_inputs_count(inputs) == 1);
  tt_inputs_free(inputs);
  tt_inputs_free(empty);
}

static void inputs_test_errors(void) {
  float x[6] = {1, 2, 3, 4, 5, 6};
  double mean[2], covariance[4];
  unsigned char digest[32];
  tt_inputs *inputs = inputs_new(2, 0), *wide = inputs_new(3, 0), *diagonal = inputs_new(2, 1),
            *out;
  CHECK_STATUS(tt_inputs_create(0, NULL, &out), TT_ERROR_INVALID);
  CHECK(out == NULL);
  CHECK_STATUS(tt_inputs_create(2, NULL, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_inputs_create(PTRDIFF_MAX / 4, NULL, &out), TT_ERROR_MEMORY);
  CHECK(out == NULL);
  tt_options options = test_options();
  options.epsilon = -1;
  CHECK_STATUS(tt_inputs_create(2, &options, &out), TT_ERROR_INVALID);
  CHECK_STATUS(tt_inputs_add(NULL, x, 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_inputs_add(inputs, NULL, 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_inputs_add(inputs, x, -1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_inputs_add(inputs, NULL, 0), TT_OK);
  CHECK_STATUS(tt_inputs_add(inputs, x, PTRDIFF_MAX), TT_ERROR_MEMORY);
  CHECK_STATUS(tt_inputs_moments(inputs, mean, covariance), TT_OK);
  CHECK(mean[0] == 0 && covariance[3] == 0);                 // empty: zeros
  CHECK_STATUS(tt_inputs_add(inputs, x, 3), TT_OK);
  x[5] = (float)NAN;
  CHECK_STATUS(tt_inputs_add(inputs, x, 3), TT_ERROR_NONFINITE);
  x[5] = (float)INFINITY;
  CHECK_STATUS(tt_inputs_add(inputs, x, 3), TT_ERROR_NONFINITE);
  CHECK(tt_inputs_count(inputs) == 3);
  CHECK_STATUS(tt_inputs_moments(inputs, mean, covariance), TT_OK);
  CHECK(mean[0] == 3 && mean[1] == 4);
  CHECK_STATUS(tt_inputs_moments(NULL, mean, covariance), TT_ERROR_INVALID);
  CHECK_STATUS(tt_inputs_merge(inputs, inputs), TT_ERROR_INVALID);
  CHECK_STATUS(tt_inputs_merge(inputs, wide), TT_ERROR_INVALID);
  CHECK_STATUS(tt_inputs_merge(inputs, diagonal), TT_ERROR_INVALID);
  CHECK_STATUS(tt_inputs_merge(NULL, inputs), TT_ERROR_INVALID);
  CHECK_STATUS(tt_inputs_merge(inputs, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_inputs_digest(NULL, digest), TT_ERROR_INVALID);
  CHECK_STATUS(tt_inputs_digest(inputs, NULL), TT_ERROR_INVALID);
  CHECK(tt_inputs_count(NULL) == 0 && tt_inputs_cols(NULL) == 0);
  tt_inputs_free(NULL);
  tt_inputs_free(inputs);
  tt_inputs_free(wide);
  tt_inputs_free(diagonal);
}

// Every allocation fails once: nothing leaks, and the record is as it was.
static void inputs_test_memory(void) {
  static const float x[4] = {1, 2, 3, 5};
  for (long fail = 1, done = 0; !done; fail++) {
    test_heap heap;
    tt_options options = test_options();
    tt_inputs *inputs, *more;
    double mean[2];
    options.allocator = test_allocator(&heap);
    heap.fail_at = fail;
    tt_status status = tt_inputs_create(2, &options, &inputs);
    tt_status other = tt_inputs_create(2, &options, &more);
    if (!status) status = tt_inputs_add(inputs, x, 1);
    if (!status && !other) other = tt_inputs_add(more, x + 2, 1);
    if (!status && !other) {
      other = tt_inputs_merge(inputs, more);
      CHECK_STATUS(tt_inputs_moments(inputs, mean, NULL), TT_OK);
      CHECK(mean[0] == (other ? 1 : 2));
    }
    CHECK(status == TT_OK || status == TT_ERROR_MEMORY);
    CHECK(other == TT_OK || other == TT_ERROR_MEMORY);
    done = !status && !other;
    tt_inputs_free(inputs);
    tt_inputs_free(more);
    CHECK(heap.live_blocks == 0);
  }
}

// ---- in files

static unsigned char *inputs_saved(tt_writer *writer, size_t *size) {
  CHECK_STATUS(tt_writer_save_memory(writer, NULL, size), TT_OK);
  unsigned char *bytes = (unsigned char *)test_new((ptrdiff_t)*size, 1);
  CHECK_STATUS(tt_writer_save_memory(writer, bytes, size), TT_OK);
  return bytes;
}

// Moments and digest come back bit for bit; adding goes on where it stopped.
static void inputs_check_file(int diagonal) {
  enum { N = 5, COUNT = 30 };
  float *x = inputs_samples(COUNT, N, 1);
  tt_inputs *one = inputs_new(N, diagonal), *two;
  tt_writer *writer;
  tt_file *file;
  size_t size;
  unsigned char before[32], after[32];
  double mean[2][N], covariance[2][N * N];
  CHECK_STATUS(tt_writer_create(NULL, &writer), TT_OK);
  CHECK_STATUS(tt_writer_add_inputs(writer, "fc1", one), TT_ERROR_INVALID); // no samples
  CHECK_STATUS(tt_inputs_add(one, x, COUNT), TT_OK);
  CHECK_STATUS(tt_writer_add_inputs(writer, "fc1", one), TT_OK);
  CHECK_STATUS(tt_writer_add_inputs(writer, "fc1", one), TT_ERROR_INVALID); // twice
  CHECK_STATUS(tt_writer_add_inputs(writer, "a\n", one), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add_inputs(NULL, "a", one), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add_inputs(writer, NULL, one), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add_inputs(writer, "a", NULL), TT_ERROR_INVALID);
  unsigned char *bytes = inputs_saved(writer, &size);
  CHECK_STATUS(tt_file_open_memory(bytes, size, NULL, &file), TT_OK);
  CHECK(tt_file_count(file) == 4);
  CHECK_STATUS(tt_file_inputs(file, "fc1", NULL, &two), TT_OK);
  CHECK(tt_inputs_count(two) == COUNT && tt_inputs_cols(two) == N && two->diagonal == diagonal);
  CHECK_STATUS(tt_inputs_moments(one, mean[0], covariance[0]), TT_OK);
  CHECK_STATUS(tt_inputs_moments(two, mean[1], covariance[1]), TT_OK);
  CHECK(!memcmp(mean[0], mean[1], sizeof mean[0]));
  CHECK_AT_MOST(test_distance(N * N, covariance[1], covariance[0]), 1e-15);
  CHECK_STATUS(tt_inputs_digest(one, before), TT_OK);
  CHECK_STATUS(tt_inputs_digest(two, after), TT_OK);
  CHECK(!memcmp(before, after, 32));
  CHECK_STATUS(tt_inputs_add(one, x, 3), TT_OK);
  CHECK_STATUS(tt_inputs_add(two, x, 3), TT_OK);
  CHECK_STATUS(tt_inputs_moments(one, mean[0], covariance[0]), TT_OK);
  CHECK_STATUS(tt_inputs_moments(two, mean[1], covariance[1]), TT_OK);
  CHECK_AT_MOST(test_distance(N * N, covariance[1], covariance[0]), 1e-14);
  CHECK_STATUS(tt_inputs_digest(two, after), TT_OK);
  CHECK(memcmp(before, after, 32));
  for (long fail = 1, done = 0; !done; fail++) {
    test_heap heap;
    tt_options options = test_options();
    tt_inputs *three;
    options.allocator = test_allocator(&heap);
    heap.fail_at = fail;
    tt_status status = tt_file_inputs(file, "fc1", &options, &three);
    CHECK(status == TT_OK || (status == TT_ERROR_MEMORY && three == NULL));
    done = !status;
    tt_inputs_free(three);
    CHECK(heap.live_blocks == 0);
  }
  tt_file_close(file);
  tt_writer_free(writer);
  tt_inputs_free(one);
  tt_inputs_free(two);
  free(bytes);
  free(x);
}

// A file of moments by hand; each case spoils one of them.
static void inputs_check_spoiled(int what, tt_status wanted) {
  double count = 4, mean[3] = {1, 2, 3}, square[9] = {2, 1, 0, 1, 2, 0, 0, 0, 1};
  unsigned char digest[32] = {0};
  ptrdiff_t dims[2] = {3, 3}, one = 1, length = what == 1 ? 31 : 32;
  tt_writer *writer;
  tt_file *file;
  tt_inputs *inputs;
  size_t size;
  if (what == 2) count = 0;
  if (what == 3) count = 2.5;
  if (what == 4) count = 1e17;
  if (what == 5) square[4] = -1;
  if (what == 6) square[1] = (double)NAN;
  if (what == 7) mean[2] = (double)INFINITY;
  if (what == 8) dims[1] = 2;
  if (what == 9) one = 2;
  if (what == 13) square[1] = square[3] = 2.5;               // more than both variances allow
  if (what == 14) {
    count = 1e6;                                             // sums leave the range
    for (int i = 0; i < 9; i++) square[i] = i % 4 ? 0 : 1e305;
  }
  double counts[2];
  counts[0] = counts[1] = count;
  for (int i = 0; i < 9; i++) tt__little(&square[i], 1, 8);
  for (int i = 0; i < 3; i++) tt__little(&mean[i], 1, 8);
  tt__little(counts, 2, 8);
  CHECK_STATUS(tt_writer_create(NULL, &writer), TT_OK);
  if (what != 10)
    CHECK_STATUS(tt_writer_add(writer, "a.inputs.count", "F64", 1, &one, counts, 8 * (size_t)one),
                 TT_OK);
  if (what != 11)
    CHECK_STATUS(tt_writer_add(writer, "a.inputs.mean", "F64", 1, dims, mean, 24), TT_OK);
  if (what != 12)
    CHECK_STATUS(
        tt_writer_add(writer, "a.inputs.covariance", "F64", 2, dims, square, 24 * (size_t)dims[1]),
        TT_OK);
  CHECK_STATUS(tt_writer_add(writer, "a.inputs.sha256", "U8", 1, &length, digest, (size_t)length),
               TT_OK);
  unsigned char *bytes = inputs_saved(writer, &size);
  CHECK_STATUS(tt_file_open_memory(bytes, size, NULL, &file), TT_OK);
  CHECK_STATUS(tt_file_inputs(file, "a", NULL, &inputs), wanted);
  CHECK((inputs != NULL) == (wanted == TT_OK));
  if (inputs) CHECK(tt_inputs_count(inputs) == 4);
  tt_inputs_free(inputs);
  CHECK_STATUS(tt_file_inputs(file, "b", NULL, &inputs), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_inputs(NULL, "a", NULL, &inputs), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_inputs(file, NULL, NULL, &inputs), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_inputs(file, "a", NULL, NULL), TT_ERROR_INVALID);
  tt_file_close(file);
  tt_writer_free(writer);
  free(bytes);
}

// Samples in a file are added as they are.
static void inputs_test_samples(void) {
  enum { N = 4, COUNT = 9 };
  float *x = inputs_samples(COUNT, N, 0);
  ptrdiff_t dims[2] = {COUNT, N};
  tt_inputs *one = inputs_new(N, 0), *two;
  tt_writer *writer;
  tt_file *file;
  size_t size;
  double mean[2][N];
  CHECK_STATUS(tt_inputs_add(one, x, COUNT), TT_OK);
  tt__little(x, COUNT * N, 4);
  CHECK_STATUS(tt_writer_create(NULL, &writer), TT_OK);
  CHECK_STATUS(tt_writer_add(writer, "a.inputs", "F32", 2, dims, x, 4 * COUNT * N), TT_OK);
  CHECK_STATUS(tt_writer_add(writer, "b.inputs", "F32", 1, dims, x, 4 * COUNT), TT_OK);
  unsigned char *bytes = inputs_saved(writer, &size);
  CHECK_STATUS(tt_file_open_memory(bytes, size, NULL, &file), TT_OK);
  CHECK_STATUS(tt_file_inputs(file, "b", NULL, &two), TT_ERROR_FORMAT);
  CHECK_STATUS(tt_file_inputs(file, "a", NULL, &two), TT_OK);
  CHECK_STATUS(tt_inputs_moments(one, mean[0], NULL), TT_OK);
  CHECK_STATUS(tt_inputs_moments(two, mean[1], NULL), TT_OK);
  CHECK(tt_inputs_count(two) == COUNT && !memcmp(mean[0], mean[1], sizeof mean[0]));
  tt_file_close(file);
  tt_writer_free(writer);
  tt_inputs_free(one);
  tt_inputs_free(two);
  free(bytes);
  free(x);
}

static void inputs_test_files(void) {
  static const tt_status wanted[15] = {
      TT_OK,           TT_ERROR_FORMAT,    TT_ERROR_FORMAT,    TT_ERROR_FORMAT, TT_ERROR_FORMAT,
      TT_ERROR_FORMAT, TT_ERROR_NONFINITE, TT_ERROR_NONFINITE, TT_ERROR_FORMAT, TT_ERROR_FORMAT,
      TT_ERROR_INVALID, TT_ERROR_INVALID,  TT_ERROR_INVALID,   TT_ERROR_FORMAT, TT_ERROR_FORMAT};
  for (int what = 0; what < 15; what++) inputs_check_spoiled(what, wanted[what]);
  inputs_check_file(0);
  inputs_check_file(1);
  inputs_test_samples();
}

static void test_inputs(void) {
  inputs_test_files();
  inputs_test_hash();
  inputs_test_moments();
  inputs_test_digest();
  inputs_test_errors();
  inputs_test_memory();
}
