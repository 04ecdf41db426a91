/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The functions of a C library that FreeRTOS uses; Rust's compiler_builtins has them. */
#ifndef RTOS_STRING_H
#define RTOS_STRING_H
#include <stddef.h>
void *memcpy(void *to, const void *from, size_t count);
void *memset(void *to, int byte, size_t count);
int memcmp(const void *left, const void *right, size_t count);
size_t strlen(const char *text);
#endif
