// Tests of examples/ttc/regex.h: its own rules, and the same verdicts as POSIX extended regular
// expressions on random patterns.       cc -O2 ttc_regex.c && ./a.out
#define _POSIX_C_SOURCE 200809L
#include "../examples/ttc/regex.h"
#include <regex.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

static long passed, failed;

static void check(int good, const char *what, const char *pattern, const char *text) {
  if (good)
    passed++;
  else if (++failed <= 20)
    printf("failed: %s, pattern '%s', text '%s'\n", what, pattern, text);
}

static uint64_t state = 1; // splitmix64
static int below(int n) {
  uint64_t z = (state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return (int)((z ^ (z >> 31)) % (uint64_t)n);
}

// Few letters, so that random texts match often.
static char letter(void) { return "abc.1"[below(5)]; }

// The same random item in both dialects: they differ in that POSIX has no \ inside [ ].
static void add_item(char *ours, char *posix) {
  char c = letter();
  int kind = below(8);
  ours += strlen(ours);
  posix += strlen(posix);
  if (kind < 3)
    sprintf(ours, c == '.' ? "\\%c" : "%c", c);
  else if (kind < 4)
    sprintf(ours, ".");
  else if (kind < 5)
    sprintf(ours, "[%s%c%c]", below(2) ? "^" : "", c, letter());
  else if (kind < 6)
    sprintf(ours, "[%sa-%c%s]", below(2) ? "^" : "", "abc"[below(3)], below(2) ? "-" : "");
  else if (kind < 7)
    sprintf(ours, "[%s]%c]", below(2) ? "^" : "", c);
  else {
    sprintf(ours, "[\\%c%c]", ".]^"[below(2)], letter());
    sprintf(posix, "[%s]", ours[2] == ']' ? (char[]){']', ours[3], 0} : (char[]){'.', ours[3], 0});
    return;
  }
  strcpy(posix, ours);
}

static void test_against_posix(void) {
  for (int round = 0; round < 4000; round++) {
    char ours[200] = "", posix[200] = "", text[40];
    regex_t compiled;
    if (below(3) == 0) strcpy(ours, strcpy(posix, "^"));
    for (int i = 1 + below(5); i > 0; i--) {
      add_item(ours, posix);
      const char *often = (const char *[]){"", "*", "+", "?"}[below(4)];
      strcat(ours, often);
      strcat(posix, often);
    }
    if (below(3) == 0) {
      strcat(ours, "$");
      strcat(posix, "$");
    }
    const char *error = regex_error(ours);
    check(!error, error ? error : "valid", ours, "");
    if (regcomp(&compiled, posix, REG_EXTENDED | REG_NOSUB)) {
      check(0, "POSIX refuses it", posix, "");
      continue;
    }
    for (int trial = 0; trial < 20; trial++) {
      int length = below(9);
      for (int i = 0; i < length; i++) text[i] = below(9) ? letter() : "]^-"[below(3)];
      text[length] = 0;
      check(regex_match(ours, text) == !regexec(&compiled, text, 0, NULL, 0), "as POSIX", ours,
            text);
    }
    regfree(&compiled);
  }
}

static void test_errors(void) {
  static const char *const bad[] = {"",    "*",     "^*",          "+a",  "a**",  "a+?", "(a)",
                                    "a|b", "a{2}",  "a}",          "[",   "[]",   "[^]", "[a",
                                    "a\\", "\\d",   "[\\w]",       "[a-", "a^",   "$a",  "^^",
                                    "$$",  "[z-a]", "[[:alpha:]]", "[\\", "[a-\\"};
  static const char *const good[] = {"a",    "^",     "$",      "^$",   "\\$",  "[$^]",
                                     "[]]",  "[^]]",  "[a-]",   "[-a]", "a\\*", "]",
                                     "\\\\", "[\\]]", "[\\\\]", "[.]"};
  char length[REGEX_MAX_LENGTH + 2];
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    check(regex_error(bad[i]) != NULL, "refused", bad[i], "");
    check(!regex_match(bad[i], "a"), "a refused pattern matches nothing", bad[i], "a");
  }
  for (size_t i = 0; i < sizeof good / sizeof *good; i++)
    check(regex_error(good[i]) == NULL, "accepted", good[i], "");
  memset(length, 'a', sizeof length);
  length[REGEX_MAX_LENGTH + 1] = 0;
  check(regex_error(length) != NULL, "too long", length, "");
  length[REGEX_MAX_LENGTH] = 0;
  check(regex_error(length) == NULL, "just short enough", length, "");
  check(regex_match(length, length) && !regex_match(length, length + 1), "255 items", length, "");
}

static void test_names(void) {
  static const char *const cases[][3] = {
      {"^encoder\\.layer\\.[0-5]\\.", "encoder.layer.3.attention.query", "1"},
      {"^encoder\\.layer\\.[0-5]\\.", "encoder.layer.13.attention.query", ""},
      {"query$", "encoder.layer.3.attention.query", "1"},
      {"^fc1$", "fc1", "1"},
      {"^fc1$", "fc12", ""},
      {"fc", "afcb", "1"},
      {"^.*\\.mlp\\..*$", "h.0.mlp.c_fc", "1"},
      {"^$", "", "1"},
      {"^$", "a", ""},
      {".", "", ""},
      {"[\\]]", "]", "1"},
      {"[\\\\]", "\\", "1"},
      {"^[^.]+$", "a.b", ""},
      {"\xC3\xA9", "caf\xC3\xA9", "1"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    check(regex_match(cases[i][0], cases[i][1]) == (*cases[i][2] == '1'), "name", cases[i][0],
          cases[i][1]);
}

// What takes a backtracking matcher longer than the age of the universe.
static void test_time(void) {
  static char pattern[REGEX_MAX_LENGTH + 1], text[20001];
  strcpy(pattern, "^");
  for (int i = 0; i < 120; i++) strcat(pattern, "a*");
  strcat(pattern, "b$");
  memset(text, 'a', sizeof text - 1);
  clock_t start = clock();
  check(!regex_match(pattern, text), "no match", pattern, "a..a");
  text[sizeof text - 2] = 'b';
  check(regex_match(pattern, text), "match", pattern, "a..ab");
  double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
  check(seconds < 5, "two searches over 20,000 bytes end within 5 s", pattern, "a..a");
}

int main(void) {
  test_errors();
  test_names();
  test_time();
  test_against_posix();
  printf("%ld passed, %ld failed\n", passed, failed);
  return failed != 0;
}
