// What ttc says and how: exit codes, messages that end the program, growing text, tables, JSON and
// progress. stdout carries the result and nothing else; messages and progress go to stderr.
// No locale is ever set, so that numbers read and print the same everywhere. Include after tt.h.
#ifndef TTC_TEXT_H
#define TTC_TEXT_H

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef _WIN32
#include <io.h>
#define isatty _isatty
#define fileno _fileno
#define popen _popen
#define pclose _pclose
#else
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

// Lets compilers that can do so check arguments against the format.
#ifdef __GNUC__
#define PRINTF_LIKE(string, first) __attribute__((format(printf, string, first)))
#else
#define PRINTF_LIKE(string, first)
#endif

#define NO_VALUE ((double)NAN) // what does not apply: "-" in tables, null in JSON

enum exit_code {
  EXIT_GOOD = 0,
  EXIT_SYSTEM = 1,   // a file could not be read or written, no memory
  EXIT_USAGE = 2,    // the command line
  EXIT_INPUT = 3,    // a file, or a layer of it, is not what it should be
  EXIT_TARGET = 4,   // a target cannot be met; nothing was written
  EXIT_DIFFERENT = 5 // verify or diff found a difference
};

// ---------------------------------------------------------------------------------------- messages

static int be_quiet;                      // -q: no progress, no remarks
static int show_progress = 1;             // --no-progress clears it
static volatile sig_atomic_t interrupted; // number of the signal, 0 = none
static size_t progress_width;             // characters of the line on the terminal

static void progress_clear(void) {
  if (progress_width) fprintf(stderr, "\r%*s\r", (int)progress_width, "");
  progress_width = 0;
}

// Control characters, which a terminal would obey, become question marks, those of UTF-8 (C2 80 ..
// C2 9F) too. `kept` is one that stays.
static void hide_controls(char *text, char kept) {
  for (unsigned char *at = (unsigned char *)text; *at; at++) {
    int wide = at[0] == 0xC2 && at[1] >= 0x80 && at[1] < 0xA0;
    if (wide) at[1] = '?';
    if (wide || *at == 127 || (*at < 32 && *at != (unsigned char)kept)) *at = '?';
  }
}

PRINTF_LIKE(1, 0)
static void say(const char *format, va_list arguments) {
  char message[8192];
  vsnprintf(message, sizeof message, format, arguments);
  hide_controls(message, '\n');
  progress_clear();
  fprintf(stderr, "ttc: %s\n", message);
}

// Prints a message and ends the program. Whatever must be tidied up is registered with atexit.
PRINTF_LIKE(2, 3)
static void fail(int code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say(format, arguments);
  va_end(arguments);
  exit(code);
}

// A message that does not end the program; silent under -q.
PRINTF_LIKE(1, 2)
static void remark(const char *format, ...) {
  va_list arguments;
  if (be_quiet) return;
  va_start(arguments, format);
  say(format, arguments);
  va_end(arguments);
}

static int exit_code_of(tt_status status) {
  return status == TT_ERROR_IO || status == TT_ERROR_MEMORY ? EXIT_SYSTEM : EXIT_INPUT;
}

static int is_pipe_signal(int number) {
#ifdef SIGPIPE
  return number == SIGPIPE;
#else
  return number < 0;
#endif
}

// The first signal is only noted (the allocator of the library then refuses, see patience below);
// a second one ends the program at once. Not SIGPIPE: messages on the way out may meet it again.
static void note_signal(int number) {
  interrupted = number;
  signal(number, is_pipe_signal(number) ? note_signal : SIG_DFL);
}

static void catch_signals(void) {
  signal(SIGINT, note_signal);
  signal(SIGTERM, note_signal);
#ifdef SIGHUP
  if (signal(SIGHUP, note_signal) == SIG_IGN) signal(SIGHUP, SIG_IGN); // nohup
#endif
#ifdef SIGPIPE
  signal(SIGPIPE, note_signal);
#endif
}

// Standard streams that are closed must not become the number of a file of ours, which messages
// would then be written into. Where they are, nothing can be written.
static void hold_standard_streams(void) {
#ifndef _WIN32
  for (int i = 0; i < 3; i++)
    if (fcntl(i, F_GETFD) < 0 && open("/dev/null", O_RDONLY) < 0) exit(EXIT_SYSTEM);
#endif
}

// Ends the program as the signal would have done, after tidying up.
static void stop_if_interrupted(void) {
  if (!interrupted) return;
  progress_clear();
  if (!is_pipe_signal((int)interrupted)) fputs("ttc: interrupted\n", stderr);
  exit(128 + (int)interrupted);
}

// What was printed has arrived, or else the program ends.
static void finish_output(void) {
  if (!fflush(stdout) && !ferror(stdout)) return;
  stop_if_interrupted(); // whoever read it went away: the usual, quiet end
  fail(EXIT_SYSTEM, "stdout: cannot write");
}

// Goes on only if a call of the library succeeded.
PRINTF_LIKE(2, 3)
static void must(tt_status status, const char *format, ...) {
  char what[512];
  va_list arguments;
  if (status == TT_OK) return;
  stop_if_interrupted();
  va_start(arguments, format);
  vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  fail(exit_code_of(status), "%s: %s", what, tt_status_string(status));
}

// ------------------------------------------------------------------------------------------ memory

static void *get_memory(size_t count, size_t size) {
  void *block = size && count > SIZE_MAX / size ? NULL : calloc(count ? count : 1, size);
  if (!block)
    fail(EXIT_SYSTEM, "out of memory (%lu x %lu bytes)", (unsigned long)count, (unsigned long)size);
  return block;
}

// Room for one more element: doubles the array when `count` reaches *room.
static void *grow(void *array, size_t count, size_t *room, size_t size) {
  if (count < *room) return array;
  size_t wanted = *room ? 2 * *room : 16;
  void *block = wanted > SIZE_MAX / size ? NULL : realloc(array, wanted * size);
  if (!block) fail(EXIT_SYSTEM, "out of memory");
  *room = wanted;
  return block;
}

static char *copy_string(const char *text) {
  size_t size = strlen(text) + 1;
  return (char *)memcpy(get_memory(size, 1), text, size);
}

static void *patient_alloc(size_t size, void *user) {
  (void)user;
  return interrupted ? NULL : malloc(size);
}

static void patient_free(void *block, void *user) {
  (void)user;
  free(block);
}

// Options for calls that may take long: their next allocation fails after a signal, they return
// TT_ERROR_MEMORY, and `must` ends the program in good order.
static tt_options patience(void) {
  tt_options options = {0};
  options.allocator.alloc_fn = patient_alloc;
  options.allocator.free_fn = patient_free;
  return options;
}

// -------------------------------------------------------------------------------------------- text

struct text { // zeroed = empty; data is terminated once anything was added
  char *data;
  size_t size, room;
};

static void text_bytes(struct text *text, const char *bytes, size_t size) {
  while (text->size + size >= text->room)
    text->data = (char *)grow(text->data, text->room, &text->room, 1);
  memcpy(text->data + text->size, bytes, size);
  text->size += size;
  text->data[text->size] = 0;
}

PRINTF_LIKE(2, 3)
static void text_add(struct text *text, const char *format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  int size = vsnprintf(NULL, 0, format, arguments);
  char *line = (char *)get_memory((size_t)size + 1, 1);
  vsnprintf(line, (size_t)size + 1, format, again);
  va_end(again);
  va_end(arguments);
  text_bytes(text, line, (size_t)size);
  free(line);
}

static void text_free(struct text *text) {
  free(text->data);
  memset(text, 0, sizeof *text);
}

// Two hexadecimal digits a byte, as sha256sum prints them.
static void print_hex(const unsigned char *bytes, int count, char *out) {
  for (int i = 0; i < count; i++) sprintf(out + 2 * i, "%02x", bytes[i]);
}

// ------------------------------------------------------------------------------------------- table
// Cells are given row by row; columns are as wide as their widest cell. The first column and those
// with 'l' in `align` stand to the left, the others to the right.

struct table {
  const char *align;           // one letter a column: 'l' or 'r'
  size_t columns, count, room; // cells
  char **cells;
};

PRINTF_LIKE(2, 3)
static void table_cell(struct table *table, const char *format, ...) {
  char cell[1200];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(cell, sizeof cell, format, arguments);
  hide_controls(cell, 0);
  va_end(arguments);
  table->cells = (char **)grow(table->cells, table->count, &table->room, sizeof *table->cells);
  table->cells[table->count++] = copy_string(cell);
}

// A row of titles, one a column.
static struct table table_begin(const char *align, const char *const *titles) {
  struct table table;
  memset(&table, 0, sizeof table);
  table.align = align;
  table.columns = strlen(align);
  for (size_t i = 0; i < table.columns; i++) table_cell(&table, "%s", titles[i]);
  return table;
}

// A number with so many decimals; "-" for NaN, which stands for what does not apply.
static void table_real(struct table *table, int decimals, double value) {
  if (value - value != 0)
    table_cell(table, "-");
  else
    table_cell(table, "%.*f", decimals, value);
}

// Characters of a cell in UTF-8.
static size_t count_characters(const char *text) {
  size_t count = 0;
  for (; *text; text++) count += (*text & 0xC0) != 0x80;
  return count;
}

// Characters of the widest cell of column j.
static size_t table_width(const struct table *table, size_t j) {
  size_t width = 0;
  for (; j < table->count; j += table->columns) {
    size_t length = count_characters(table->cells[j]);
    if (length > width) width = length;
  }
  return width;
}

// Prints the table, without blanks at the ends of lines.
static void table_print(const struct table *table, FILE *out) {
  size_t *width = (size_t *)get_memory(table->columns, sizeof *width), blanks = 0;
  for (size_t j = 0; j < table->columns; j++) width[j] = table_width(table, j);
  for (size_t i = 0; i < table->count; i++) {
    size_t j = i % table->columns, length = count_characters(table->cells[i]);
    size_t pad = width[j] - length;
    int left = table->align[j] == 'l';
    if (j == 0) blanks = 0;
    if (length) fprintf(out, "%*s%s", (int)(blanks + (left ? 0 : pad)), "", table->cells[i]);
    blanks = length ? (left ? pad : 0) : blanks + pad;
    blanks += 2;
    if (j + 1 == table->columns) fputc('\n', out);
  }
  free(width);
}

static void table_free(struct table *table) {
  for (size_t i = 0; i < table->count; i++) free(table->cells[i]);
  free(table->cells);
  memset(table, 0, sizeof *table);
}

// -------------------------------------------------------------------------------------------- JSON
// Every function takes the key of the value, or NULL inside a list. Commas are set as needed.

// The inside of a string: quotes, backslashes and control characters are escaped.
static void json_escaped(struct text *json, const char *value) {
  text_bytes(json, "\"", 1);
  for (; *value; value++) {
    unsigned char c = (unsigned char)*value;
    if (c < 32)
      text_add(json, "\\u%04x", c);
    else if (c == '"' || c == '\\')
      text_add(json, "\\%c", c);
    else
      text_bytes(json, value, 1);
  }
  text_bytes(json, "\"", 1);
}

static void json_key(struct text *json, const char *key) {
  char last = json->size ? json->data[json->size - 1] : '{';
  if (last != '{' && last != '[' && last != ':') text_bytes(json, ",", 1);
  if (!key) return;
  json_escaped(json, key);
  text_bytes(json, ":", 1);
}

static void json_open(struct text *json, const char *key, const char *bracket) {
  json_key(json, key);
  text_bytes(json, bracket, 1);
}

// Closes one or more brackets; a line may end behind them.
static void json_close(struct text *json, const char *brackets) {
  text_bytes(json, brackets, strlen(brackets));
}

static void json_text(struct text *json, const char *key, const char *value) {
  json_key(json, key);
  if (value)
    json_escaped(json, value);
  else
    text_bytes(json, "null", 4);
}

static void json_integer(struct text *json, const char *key, int64_t value) {
  json_key(json, key);
  text_add(json, "%lld", (long long)value);
}

// NaN and Inf, and with them everything that does not apply, are null.
static void json_real(struct text *json, const char *key, double value, int digits) {
  json_key(json, key);
  if (value - value != 0)
    text_bytes(json, "null", 4);
  else
    text_add(json, "%.*g", digits, value);
}

static void json_integers(struct text *json, const char *key, const int *values, int count) {
  json_open(json, key, "[");
  for (int i = 0; i < count; i++) json_integer(json, NULL, values[i]);
  json_close(json, "]");
}

// Is there something of this name that is no plain file, a device say? It is written to, and never
// replaced.
static int is_special(const char *path) {
#ifdef _WIN32
  (void)path;
  return 0;
#else
  struct stat status;
  return !stat(path, &status) && !S_ISREG(status.st_mode);
#endif
}

// Writes a finished text to a file, in one step, or to stdout for "-".
static void text_save(const struct text *text, const char *path) {
  int to_stdout = !strcmp(path, "-"), in_place = to_stdout || is_special(path);
  char *name = (char *)get_memory(strlen(path) + 16, 1);
  FILE *file = to_stdout ? stdout : in_place ? fopen(path, "wb") : tt__create_sibling(path, name);
  if (!file) fail(EXIT_SYSTEM, "%s: %s", path, strerror(errno));
  size_t written = fwrite(text->data, 1, text->size, file);
  int good = written == text->size && fflush(file) == 0;
  if (!to_stdout) good = fclose(file) == 0 && good;
  if (!in_place && good) good = tt__replace_file(name, path);
  if (!in_place && !good) remove(name);
  free(name);
  if (good) return;
  stop_if_interrupted();
  fail(EXIT_SYSTEM, "%s: cannot write", path);
}

// The whole of a small text file, terminated.
static struct text text_load(const char *path) {
  struct text text = {NULL, 0, 0};
  char piece[4096];
  FILE *file = fopen(path, "rb");
  if (!file) fail(EXIT_SYSTEM, "%s: %s", path, strerror(errno));
  text_bytes(&text, "", 0);
  for (size_t size; (size = fread(piece, 1, sizeof piece, file)) > 0;)
    text_bytes(&text, piece, size);
  if (ferror(file)) fail(EXIT_SYSTEM, "%s: cannot read", path);
  fclose(file);
  return text;
}

// ---- reading, with the cursor of tt.h

// A number, or NaN for null.
static double json_read_real(tt__json *json) {
  char word[40];
  size_t length = 0;
  char *end;
  (void)tt__json_next(json);
  for (char c; (c = tt__json_peek(json)) != 0 && strchr("+-.0123456789eEnul", c); json->at++)
    if (length + 1 < sizeof word) word[length++] = c;
  word[length] = 0;
  if (!strcmp(word, "null")) return NO_VALUE;
  double value = strtod(word, &end);
  if (!length || *end || !strchr("-0123456789", *word)) tt__json_fail(json, TT_ERROR_FORMAT);
  return value;
}

// A string or null as a new string or NULL, which replaces *out.
static void json_read_string(tt__json *json, char **out) {
  free(*out);
  *out = NULL;
  if (tt__json_next(json) == 'n') {
    (void)json_read_real(json);
    return;
  }
  tt__json start = *json;
  ptrdiff_t length = tt__json_string(json, NULL, 0);
  *out = (char *)get_memory((size_t)length + 1, 1);
  tt__json_string(&start, *out, length + 1);
}

// ---------------------------------------------------------------------------------------- progress
// One line on a terminal that is written over, with the time that remains; nothing in a log.

struct progress {
  double total, done; // any unit of work
  time_t start;
};

static int on_terminal(FILE *stream) {
  const char *term = getenv("TERM");
  return isatty(fileno(stream)) && (!term || strcmp(term, "dumb") != 0);
}

static struct progress progress_begin(double total) {
  struct progress progress;
  progress.total = total;
  progress.done = 0;
  progress.start = time(NULL);
  return progress;
}

// Says what is worked on now. Work is counted when it is done (progress->done += ..).
static void progress_show(const struct progress *progress, const char *what) {
  char line[120], remaining[32] = "";
  if (be_quiet || !show_progress || !on_terminal(stderr)) return;
  double share = progress->total > 0 ? progress->done / progress->total : 0;
  double spent = difftime(time(NULL), progress->start);
  if (share > 0 && spent >= 1) {
    long seconds = (long)(spent / share - spent + 0.5);
    sprintf(remaining, ", %ld:%02ld left", seconds / 60, seconds % 60);
  }
  snprintf(line, sizeof line, "%3.0f %%%s  %.60s", 100 * share, remaining, what);
  progress_clear();
  fputs(line, stderr);
  fflush(stderr);
  progress_width = strlen(line);
}

#endif
