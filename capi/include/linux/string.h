/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The mem and str functions: those of the C library, or the ones the compiler counts on where there is none. */
#ifndef RTMM_LINUX_STRING_H
#define RTMM_LINUX_STRING_H

#include <linux/types.h>

#if defined(__STDC_HOSTED__) && __STDC_HOSTED__
#include <string.h>
#else
#ifdef __cplusplus
extern "C" {
#endif
/* librtmm.a brings these five, and a C library that is linked first may bring better ones. */
void *memcpy(void *to, const void *from, size_t count);
void *memmove(void *to, const void *from, size_t count);
void *memset(void *to, int byte, size_t count);
int memcmp(const void *left, const void *right, size_t count);
size_t strlen(const char *text);
#ifdef __cplusplus
}
#endif
#endif

/* Linux declares kmemdup and kstrdup with the strings; ours stand with kmalloc. */
#include <linux/slab.h>

#endif
