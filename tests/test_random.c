// >>random: the generator is a fixed function, and its bits look like coin tosses, along counters
// and along seeds.
#include "test.h"

// splitmix64 started at 0, as published: output n is mix(n * 0x9E3779B97F4A7C15).
static void random_golden(void) {
  static const uint64_t published[5] = {0xE220A8397B1DCDAFu, 0x6E789E6AA1B965F4u,
                                        0x06C45D188009454Fu, 0xF88BB8A8724C81ECu,
                                        0x1B39896A51A8749Bu};
  for (unsigned n = 0; n < 5; n++) CHECK(tt__mix((n + 1) * 0x9E3779B97F4A7C15u) == published[n]);
  for (unsigned n = 0; n < 100; n++) {
    uint64_t inner = tt__mix(n + 0x9E3779B97F4A7C15u);
    CHECK(tt__random(n * 3, n) == tt__mix(inner + n * 3 * 0xD1342543DE82EF95u));
    CHECK(tt__random_sign(n * 3, n) == (tt__random(n * 3, n) >> 63 ? 1.0 : -1.0));
  }
}

static int random_ones(uint64_t z) {
  int count = 0;
  for (; z; z &= z - 1) count++;
  return count;
}

// For N tosses of a fair coin the number of heads deviates from N/2 by sqrt(N)/2; six of those,
// over all the few hundred numbers looked at here, is a chance of one in a million. The numbers are
// fixed: the test never flickers.
static void random_bits(int along_seeds) {
  enum { N = 1 << 16 };
  long heads[64], same[64], flipped = 0;
  double six = 6 * sqrt((double)N) / 2;
  memset(heads, 0, sizeof heads);
  memset(same, 0, sizeof same);
  for (unsigned i = 0; i < N; i++) {
    uint64_t z = along_seeds ? tt__random(i, 5) : tt__random(5, i);
    uint64_t next = along_seeds ? tt__random(i + 1, 5) : tt__random(5, i + 1);
    flipped += random_ones(z ^ next);
    for (int bit = 0; bit < 64; bit++) {
      heads[bit] += (long)(z >> bit & 1);
      same[bit] += (long)(~(z ^ next) >> bit & 1);
    }
  }
  for (int bit = 0; bit < 64; bit++) {
    CHECK_CLOSE(heads[bit], N / 2, six);
    CHECK_CLOSE(same[bit], N / 2, six);
  }
  CHECK_CLOSE(flipped, 32.0 * N, 8 * six);
}

// Products of the signs of two streams are fair as well: the columns of a random test matrix are
// independent.
static void random_streams(void) {
  enum { N = 1 << 14 };
  for (unsigned other = 1; other <= 8; other++) {
    double sum = 0, shifted = 0;
    for (unsigned i = 0; i < N; i++) {
      sum += tt__random_sign(0, i) * tt__random_sign(other, i);
      shifted += tt__random_sign(3, i) * tt__random_sign(3, i + other);
    }
    CHECK_AT_MOST(fabs(sum), 6 * sqrt((double)N));
    CHECK_AT_MOST(fabs(shifted), 6 * sqrt((double)N));
  }
}

static int random_compare(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

// Counters are mapped one to one (mix is a bijection), so no number of one stream repeats.
static void random_distinct(void) {
  enum { N = 1 << 15 };
  uint64_t *z = (uint64_t *)test_new(N, sizeof *z);
  int repeated = 0;
  for (unsigned i = 0; i < N; i++) z[i] = tt__random(9, ((uint64_t)i << 40) + i);
  qsort(z, N, sizeof *z, random_compare);
  for (int i = 1; i < N; i++) repeated += z[i] == z[i - 1];
  CHECK(repeated == 0);
  free(z);
}

static void test_random(void) {
  random_golden();
  random_bits(0);
  random_bits(1);
  random_streams();
  random_distinct();
}
