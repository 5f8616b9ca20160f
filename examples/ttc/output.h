// What may be written over: nothing that exists without -f, and never what is read.
// Include after text.h.
#ifndef TTC_OUTPUT_H
#define TTC_OUTPUT_H

#include "text.h"
#include <sys/stat.h>

static int file_exists(const char *path) {
  struct stat status;
  return stat(path, &status) == 0;
}

// Do both names lead to one file, links included?
static int same_file(const char *a, const char *b) {
  struct stat first, second;
  if (!strcmp(a, b)) return 1;
#ifdef _WIN32
  return 0; // there are no inode numbers
#else
  return !stat(a, &first) && !stat(b, &second) && first.st_dev == second.st_dev &&
         first.st_ino == second.st_ino;
#endif
}

// Ends the program unless `output` may be written.
static void check_output(const char *output, const char *input, int force) {
  if (same_file(output, input)) fail(EXIT_USAGE, "%s is both input and output", output);
  if (!force && file_exists(output)) fail(EXIT_USAGE, "%s exists; -f overwrites it", output);
}

#endif
