// As math.h beside it.
#pragma once
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif
char *strchr(const char *, int);
char *strpbrk(const char *, const char *);
char *strstr(const char *, const char *);
char *strrchr(const char *, int);
int memcmp(const void *, const void *, size_t);
int strcmp(const char *, const char *);
int strncmp(const char *, const char *, size_t);
size_t strlen(const char *);
void *memcpy(void *, const void *, size_t);
void *memmove(void *, const void *, size_t);
void *memset(void *, int, size_t);
#ifdef __cplusplus
}
#endif
