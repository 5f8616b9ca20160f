// Regular expressions for the names of layers: a small dialect whose patterns mean the same to
// POSIX extended expressions (which have no \ inside a set), Python and PCRE.
//
//   a         itself                        [a-z_]    one byte of the set; [^a-z] one outside it
//   .         any byte                      \.        punctuation itself, also inside a set
//   x* x+ x?  any number of x, at least     ^ $       start and end of the text: at the first and
//             one, at most one                        the last place of the pattern only
//
// Without ^ a match may start anywhere, without $ end anywhere. Not there: groups ( ), choices |,
// counts {n}, classes such as \d or [:alpha:]; they are errors and never taken for something else.
//
// All places in the pattern where a match may stand are followed at once (Thompson, Regular
// expression search algorithm, CACM 11 (1968)): length of the pattern x length of the text steps at
// most, whatever the two are. Nothing is allocated.
#ifndef TTC_REGEX_H
#define TTC_REGEX_H

#include <string.h>

enum { REGEX_MAX_LENGTH = 255 };

struct regex_item {
  unsigned char set[32];     // bit per byte that it takes
  int skippable, repeatable; // x? and x*; x+ and x*
};

struct regex_program {
  struct regex_item items[REGEX_MAX_LENGTH];
  int count;
  int at_start, at_end; // ^ and $
};

static void regex_put(unsigned char set[32], unsigned char byte) {
  set[byte >> 3] = (unsigned char)(set[byte >> 3] | 1u << (byte & 7));
}

static int regex_takes(const struct regex_item *item, unsigned char byte) {
  return item->set[byte >> 3] >> (byte & 7) & 1;
}

// One byte of a pattern, behind \ only punctuation: \d and the like mean more in other dialects.
static const char *regex_read_byte(const char **at, unsigned char *byte) {
  const char *punctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
  int escaped = **at == '\\';
  if (escaped) (*at)++;
  if (!**at) return "a pattern must not end with \\";
  if (escaped && !strchr(punctuation, **at)) return "\\ may only stand before punctuation";
  *byte = (unsigned char)*(*at)++;
  return NULL;
}

// The set behind [ up to and with its ].
static const char *regex_read_set(const char **at, struct regex_item *item) {
  const char *error;
  int outside = **at == '^';
  if (outside) (*at)++;
  const char *start = *at;
  while (**at && (**at != ']' || *at == start)) {
    unsigned char first, last;
    if (**at == '[' && (*at)[1] && strchr(":.=", (*at)[1]))
      return "named classes such as [:alpha:] are not supported";
    if ((error = regex_read_byte(at, &first)) != NULL) return error;
    last = first;
    if (**at == '-' && (*at)[1] && (*at)[1] != ']') {
      (*at)++;
      if ((error = regex_read_byte(at, &last)) != NULL) return error;
      if (last < first) return "a range in [ ] runs backwards";
    }
    for (int byte = first; byte <= last; byte++) regex_put(item->set, (unsigned char)byte);
  }
  if (!**at) return "[ without ]";
  (*at)++;
  for (int i = 0; i < 32 && outside; i++) item->set[i] = (unsigned char)~item->set[i];
  return NULL;
}

// One thing that takes a byte, without what says how often.
static const char *regex_read_item(const char **at, struct regex_item *item) {
  unsigned char byte;
  if (strchr("*+?", **at)) return "*, + or ? must follow what it repeats";
  if (strchr("(){}|", **at))
    return "groups, choices and counts are not supported; write \\( or \\{";
  if (strchr("^$", **at)) return "^ may only come first and $ only last; write \\^ or \\$";
  if (**at == '.') {
    memset(item->set, 255, sizeof item->set);
    (*at)++;
    return NULL;
  }
  if (**at == '[') {
    (*at)++;
    return regex_read_set(at, item);
  }
  const char *error = regex_read_byte(at, &byte);
  if (!error) regex_put(item->set, byte);
  return error;
}

// NULL, or what is wrong with the pattern.
static const char *regex_compile(const char *pattern, struct regex_program *out) {
  const char *at = pattern, *error;
  memset(out, 0, sizeof *out);
  if (!*pattern) return "the pattern is empty";
  if (strlen(pattern) > REGEX_MAX_LENGTH) return "the pattern is longer than 255 bytes";
  out->at_start = *at == '^';
  if (out->at_start) at++;
  while (*at) {
    if (*at == '$' && !at[1]) {
      out->at_end = 1;
      break;
    }
    struct regex_item *item = &out->items[out->count];
    if ((error = regex_read_item(&at, item)) != NULL) return error;
    if (*at == '*' || *at == '+' || *at == '?') {
      item->skippable = *at != '+';
      item->repeatable = *at != '?';
      at++;
    }
    out->count++;
  }
  return NULL;
}

// The places of the pattern that a match has reached: reached[i] says that items before i are done.
static void regex_skip(const struct regex_program *program, unsigned char *reached) {
  for (int i = 0; i < program->count; i++)
    if (reached[i] && program->items[i].skippable) reached[i + 1] = 1;
}

static void regex_step(const struct regex_program *program, unsigned char byte,
                       unsigned char *reached) {
  unsigned char next[REGEX_MAX_LENGTH + 1] = {0};
  for (int i = 0; i < program->count; i++) {
    if (!reached[i] || !regex_takes(&program->items[i], byte)) continue;
    next[i + 1] = 1;
    if (program->items[i].repeatable) next[i] = 1;
  }
  memcpy(reached, next, (size_t)program->count + 1);
}

// What is wrong with a pattern, in English; NULL if it is valid.
static const char *regex_error(const char *pattern) {
  struct regex_program program;
  return regex_compile(pattern, &program);
}

// Non-zero if the pattern matches text, or a part of it where no anchor says otherwise. 0 for a
// pattern that is not valid.
static int regex_match(const char *pattern, const char *text) {
  struct regex_program program;
  unsigned char reached[REGEX_MAX_LENGTH + 1] = {0};
  if (regex_compile(pattern, &program)) return 0;
  for (const char *at = text;; at++) {
    if (at == text || !program.at_start) reached[0] = 1;
    regex_skip(&program, reached);
    if (reached[program.count] && (!program.at_end || !*at)) return 1;
    if (!*at) return 0;
    regex_step(&program, (unsigned char)*at, reached);
  }
}

#endif
