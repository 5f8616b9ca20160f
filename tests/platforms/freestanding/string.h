// For compilers that bring no C library: what tt.h needs of <string.h> where it only runs trains.
#ifndef PLATFORMS_STRING_H
#define PLATFORMS_STRING_H
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
#ifdef __cplusplus
}
#endif
#endif
