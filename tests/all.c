// All default tests in one program: fast to build in every configuration. Arguments select sections
// by name; the last line is "N passed, N failed".
#include "test.h"

#include "test_config.c"
#include "test_number.c"
#include "test_random.c"
#include "test_gemm.c"
#include "test_qr.c"
#include "test_eigen.c"
#include "test_svd.c"
#include "test_shape.c"
#include "test_train.c"
#include "test_compress.c"
#include "test_round.c"
#include "test_entropy.c"
#include "test_quantize.c"
#include "test_apply.c"
#include "test_file.c"
#include "test_integer.c"
#include "test_export.c"
#include "test_inputs.c"
#include "test_refit.c"
#include "test_gradient.c"
#include "test_plan.c"

static const struct { const char *name; void (*run)(void);
} test_sections[] = {
    {"config", test_config},
    {"number", test_number},
    {"random", test_random},
    {"gemm", test_gemm},
    {"qr", test_qr},
    {"eigen", test_eigen},
    {"svd", test_svd},
    {"shape", test_shape_section},
    {"train", test_train_section},
    {"compress", test_compress},
    {"round", test_round},
    {"entropy", test_entropy},
    {"quantize", test_quantize},
    {"apply", test_apply},
    {"integer", test_integer},
    {"export", test_export},
    {"file", test_file},
    {"inputs", test_inputs},
    {"refit", test_refit},
    {"gradient", test_gradient},
    {"plan", test_plan},
};

int main(int argc, char **argv) {
  for (size_t i = 0; i < sizeof test_sections / sizeof *test_sections; i++) {
    int wanted = argc == 1;
    for (int k = 1; k < argc; k++) wanted |= !strcmp(argv[k], test_sections[i].name);
    if (!wanted) continue;
    long passed = test_passed, failed = test_failed;
    test_seed((unsigned)i);
    test_sections[i].run();
    printf("  %-10s %8ld passed, %ld failed\n", test_sections[i].name, test_passed - passed,
           test_failed - failed);
    fflush(stdout);
  }
  printf("%ld passed, %ld failed\n", test_passed, test_failed);
  return test_failed != 0;
}
