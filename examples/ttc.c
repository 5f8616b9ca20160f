// ttc: compresses the layers of a checkpoint, and tells what is in one.
//   make -C examples ttc                          leaves the program at examples/build/ttc
//   cc -O2 -std=c99 -I.. ttc.c -o ttc -lm         does the same here
//   ./ttc compress model.safetensors -o small.safetensors --target-ratio 4
//   ./ttc --help
// One unit: it holds the implementation of tt.h, so that its parts may read JSON with the reader
// that tt.h has inside (tt__json). The parts are small headers in ttc/, in the order in which they
// build on each other.
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L // popen, fileno, isatty
#endif
#define TT_IMPLEMENTATION
#include "tt.h"
#include "ttc/text.h"
#include "ttc/options.h"
#include "ttc/model.h"
#include "ttc/spec.h"
#include "ttc/fit.h"
#include "ttc/profile.h"
#include "ttc/pack.h"
#include "ttc/plan.h"
#include "ttc/compress.h"
#include "ttc/check.h"
#include "ttc/export.h"
#include "ttc/picture.h"
#include "ttc/study.h"

int main(int argc, char **argv) {
  hold_standard_streams();
  struct options options = read_command_line(argc, argv);
  catch_signals();
  protect_inputs(&options);
  int code = EXIT_GOOD;
  switch (options.command) {
    case DO_INFO: info(&options); break;
    case DO_PROFILE: study(&options); break;
    case DO_COMPRESS: compress(&options); break;
    case DO_EXPAND: expand(&options); break;
    case DO_VERIFY: code = verify(&options); break;
    case DO_DIFF: code = diff(&options); break;
    case DO_EXPORT: export_c(&options); break;
  }
  finish_output();
  return code;
}
