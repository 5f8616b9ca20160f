// As math.h beside it.
#pragma once
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif
void *calloc(size_t, size_t);
void *malloc(size_t);
void *realloc(void *, size_t);
void free(void *);
int abs(int);
#ifdef __cplusplus
}
#endif
