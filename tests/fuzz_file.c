// Fuzz target of the file reader: opens whatever comes, and where that works reads every byte,
// every pair of the metadata and every matrix. With libFuzzer a mutator that understands the format
// changes numbers of the header and keeps its length right; with FUZZ_REPLAY a plain main replays
// files given as arguments.
//   clang -g -O1 -fsanitize=fuzzer,address,undefined fuzz_file.c -o fuzz_file -lm && ./fuzz_file
//   -dict=fuzz_file.dict corpus
//   cc -DFUZZ_REPLAY fuzz_file.c -o replay -lm && ./replay corpus/*
#define TT_IMPLEMENTATION
#include "../tt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fuzz_require(int condition) { if (!condition) abort(); }

// Memory is limited, so that an allocation chosen by the file shows up.
static void *fuzz_alloc(size_t size, void *user_data) {
  fuzz_require(size <= *(const size_t *)user_data);
  return malloc(size);
}
static void fuzz_free(void *block, void *user_data) {
  (void)user_data;
  free(block);
}

static void fuzz_matrix(const tt_file *file, const char *name, const tt_options *options) {
  tt_matrix w;
  tt_status status = tt_file_matrix(file, name, options, &w);
  fuzz_require(status <= TT_OK && (status == TT_OK) == (w.block != NULL));
  if (status) return;
  size_t size = tt_apply_work_size(&w, 1);                     // 0 would mean: not a valid train
  fuzz_require(size > 0 && w.rows > 0 && w.cols > 0);
  tt_free(&w);
}

// Statistics that were read can be added to and written.
static void fuzz_inputs(const tt_file *file, const char *name, const tt_options *options) {
  tt_inputs *inputs;
  tt_options diagonal = *options;        // samples of n inputs would take n^2 doubles
  double mean;
  diagonal.diagonal_inputs = 1;
  tt_status status = tt_file_inputs(file, name, &diagonal, &inputs);
  fuzz_require(status <= TT_OK && (status == TT_OK) == (inputs != NULL));
  if (status) return;
  fuzz_require(tt_inputs_cols(inputs) > 0 && tt_inputs_count(inputs) >= 0);
  if (tt_inputs_cols(inputs) == 1)
    fuzz_require(tt_inputs_moments(inputs, &mean, NULL) == TT_OK && mean - mean == 0);
  tt_inputs_free(inputs);
}

static void fuzz_tensor(const tt_file *file, int index, const tt_options *options) {
  const char *name, *dtype;
  const ptrdiff_t *dims;
  const void *data;
  int order, found;
  size_t size;
  fuzz_require(tt_file_tensor(file, index, &name, &dtype, &order, &dims, &data, &size) == TT_OK);
  fuzz_require(tt_file_find(file, name, &found) == TT_OK && found == index);
  unsigned char *copy = (unsigned char *)malloc(size + 1);
  fuzz_require(copy && tt_file_read(file, index, 0, copy, size) == TT_OK &&
               !memcmp(copy, data, size));
  fuzz_require(tt_file_read(file, index, 1, copy, size) == TT_ERROR_INVALID);
  free(copy);
  if (order == 2) fuzz_matrix(file, name, options);
  const char *cores = strstr(name, ".cores.0"), *inputs = strstr(name, ".inputs"),
             *end = cores ? cores : inputs;
  if (!end || (cores && cores[8])) return;
  char *layer = (char *)malloc(strlen(name) + 1);
  fuzz_require(layer != NULL);
  memcpy(layer, name, (size_t)(end - name));
  layer[end - name] = 0;
  if (cores) fuzz_matrix(file, layer, options);
  else fuzz_inputs(file, layer, options);
  free(layer);
}

// What was read can be written, and reads back the same.
static void fuzz_copy(const tt_file *file, const tt_options *options) {
  tt_writer *writer;
  tt_file *again;
  size_t size = 0;
  fuzz_require(tt_writer_create(options, &writer) == TT_OK);
  for (int i = 0; i < tt_file_count(file); i++)
    fuzz_require(tt_writer_copy(writer, file, i) == TT_OK);
  fuzz_require(tt_writer_save_memory(writer, NULL, &size) == TT_OK);
  unsigned char *bytes = (unsigned char *)malloc(size);
  fuzz_require(bytes && tt_writer_save_memory(writer, bytes, &size) == TT_OK);
  fuzz_require(tt_file_open_memory(bytes, size, options, &again) == TT_OK);
  fuzz_require(tt_file_count(again) == tt_file_count(file));
  tt_file_close(again);
  free(bytes);
  tt_writer_free(writer);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  tt_file *file;
  tt_options options;
  // U8 weights grow by 4, an index entry by about 20; products have their workspace
  ptrdiff_t most = PTRDIFF_MAX;
  size_t limit = 170000 + (size_t)tt__gemm_work_size(most, most, most, 1) + 64 * size;
  memset(&options, 0, sizeof options);
  options.allocator.alloc_fn = fuzz_alloc;
  options.allocator.free_fn = fuzz_free;
  options.allocator.user_data = &limit;
  options.strict = size & 1;
  tt_status status = tt_file_open_memory(bytes, size, &options, &file);
  fuzz_require(status <= TT_OK && (status == TT_OK) == (file != NULL));
  for (int i = 0; i < tt_file_count(file); i++) fuzz_tensor(file, i, &options);
  for (int i = 0; i < tt_file_metadata_count(file); i++) {
    const char *key, *value;
    fuzz_require(tt_file_metadata(file, i, &key, &value) == TT_OK &&
                 strlen(key) + strlen(value) <= size);
  }
  if (file) fuzz_copy(file, &options);
  tt_file_close(file);
  return 0;
}

#ifdef FUZZ_REPLAY
int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    FILE *stream = fopen(argv[i], "rb");
    if (!stream || fseek(stream, 0, SEEK_END)) { printf("cannot read %s\n", argv[i]); return 1; }
    long size = ftell(stream);
    rewind(stream);
    uint8_t *bytes = (uint8_t *)malloc((size_t)size + !size); // exactly as long as the file
    if (!bytes || fread(bytes, 1, (size_t)size, stream) != (size_t)size) {
      printf("cannot read %s\n", argv[i]);
      return 1;
    }
    fclose(stream);
    LLVMFuzzerTestOneInput(bytes, (size_t)size);
    free(bytes);
  }
  printf("%d files replayed\n", argc - 1);
  return 0;
}
#else
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

// Replaces digits first..end-1 of the text by another number; returns the new size, or the old one
// without room.
static size_t fuzz_number(uint8_t *data, size_t size, size_t max_size, size_t first, size_t end,
                          unsigned seed) {
  static const char numbers[][21] = {"0",
                                     "1",
                                     "2",
                                     "3",
                                     "4",
                                     "8",
                                     "16",
                                     "17",
                                     "255",
                                     "65536",
                                     "2147483647",
                                     "2147483648",
                                     "4294967295",
                                     "4294967296",
                                     "9223372036854775807",
                                     "9223372036854775808",
                                     "18446744073709551615",
                                     "1e3",
                                     "-1",
                                     "00"};
  const char *text = numbers[seed % (sizeof numbers / sizeof *numbers)];
  size_t length = strlen(text), changed = size - (end - first) + length;
  if (changed > max_size) return size;
  memmove(data + first + length, data + end, size - end);
  memcpy(data + first, text, length);
  return changed;
}

// Half of the time: one number of the header, or anything in the header; then the length in front
// is made right.
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
  uint64_t header = 0;
  for (int i = 7; i >= 0 && size >= 8; i--) header = header << 8 | data[i];
  if (seed % 2 || size < 10 || header == 0 || header > size - 8)
    return LLVMFuzzerMutate(data, size, max_size);
  size_t end = 8 + (size_t)header, changed = size, first;
  if (seed / 2 % 4) {
    for (first = 8 + seed / 8 % (size_t)header;
         first < end && (data[first] < '0' || data[first] > '9');)
      first++;
    size_t last = first;
    while (last < end && data[last] >= '0' && data[last] <= '9') last++;
    if (first < end) changed = fuzz_number(data, size, max_size, first, last, seed / 64);
  } else {
    size_t tail = size - end;
    uint8_t *kept = (uint8_t *)malloc(tail + 1);
    fuzz_require(kept != NULL);
    memcpy(kept, data + end, tail);
    header = LLVMFuzzerMutate(data + 8, (size_t)header, max_size - 8 - tail);
    changed = 8 + (size_t)header + tail;
    memcpy(data + 8 + header, kept, tail);
    free(kept);
  }
  header = changed - (size - end) - 8;
  for (int i = 0; i < 8; i++) data[i] = (uint8_t)(header >> (8 * i) & 255);
  return changed;
}
#endif
