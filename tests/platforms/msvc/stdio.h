// As math.h beside it.
#pragma once
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif
typedef struct _iobuf { void *placeholder; } FILE;
FILE *__acrt_iob_func(unsigned);
#define stdout   (__acrt_iob_func(1))
#define EOF      (-1)
#define _IONBF   4
#define SEEK_SET 0
#define SEEK_END 2
FILE *fopen(const char *, const char *);
int fclose(FILE *);
int fflush(FILE *);
int fputs(const char *, FILE *);
int fseek(FILE *, long, int);
int _fseeki64(FILE *, long long, int);
long long _ftelli64(FILE *);
long ftell(FILE *);
int remove(const char *);
int rename(const char *, const char *);
int setvbuf(FILE *, char *, int, size_t);
size_t fread(void *, size_t, size_t, FILE *);
size_t fwrite(const void *, size_t, size_t, FILE *);
#ifdef __cplusplus
}
#endif
