/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A kernel in C without a C library: it runs every test, and brings what librtmm.a asks of whoever links it. That is
 * nothing but the memory functions, and those only where Rust has none of its own.
 *
 * With start code beside it (BOOTS) it runs; without, it only shows that it can be linked.
 */
#include <linux/kernel.h>

#include "check.h"

#ifdef BRINGS_MEMORY_FUNCTIONS
/* Byte by byte, through volatile pointers, so that no compiler makes calls of themselves of them. */
void *memcpy(void *to, const void *from, size_t count);
void *memmove(void *to, const void *from, size_t count);
void *memset(void *to, int byte, size_t count);
int memcmp(const void *left, const void *right, size_t count);
int bcmp(const void *left, const void *right, size_t count);
size_t strlen(const char *text);

void *memcpy(void *to, const void *from, size_t count)
{
	volatile unsigned char *target = (volatile unsigned char *)to;
	const volatile unsigned char *source = (const volatile unsigned char *)from;

	while (count-- > 0)
		*target++ = *source++;
	return to;
}

void *memmove(void *to, const void *from, size_t count)
{
	volatile unsigned char *target = (volatile unsigned char *)to;
	const volatile unsigned char *source = (const volatile unsigned char *)from;

	if ((uintptr_t)to - (uintptr_t)from >= count)
		return memcpy(to, from, count);
	while (count-- > 0)
		target[count] = source[count];
	return to;
}

void *memset(void *to, int byte, size_t count)
{
	volatile unsigned char *target = (volatile unsigned char *)to;

	while (count-- > 0)
		*target++ = (unsigned char)byte;
	return to;
}

int memcmp(const void *left, const void *right, size_t count)
{
	const volatile unsigned char *one = (const volatile unsigned char *)left;
	const volatile unsigned char *two = (const volatile unsigned char *)right;
	size_t i;

	for (i = 0; i < count; i++)
		if (one[i] != two[i])
			return one[i] < two[i] ? -1 : 1;
	return 0;
}

int bcmp(const void *left, const void *right, size_t count)
{
	return memcmp(left, right, count);
}

size_t strlen(const char *text)
{
	const volatile char *end = (const volatile char *)text;

	while (*end != 0)
		end++;
	return (size_t)(end - text);
}
#endif

#ifdef BOOTS
void kernel_say(const char *text);
void kernel_end(bool good);
#else
static void kernel_say(const char *text)
{
	(void)text;
}

static void kernel_end(bool good)
{
	(void)good;
	for (;;)
		continue;
}
#endif

/* mps2-an385's PSRAM, and its first UART. */
#define RAM_START 0x21000000u
#define RAM_LENGTH ((size_t)4 << 20)
#define MMIO_START 0x40004000u

#include "kernel.inc"

void check_failed(const char *file, int line, const char *text)
{
	(void)line;
	kernel_say(file);
	kernel_say(": not so: ");
	kernel_say(text);
	kernel_say("\n");
	kernel_end(false);
	for (;;)
		continue;
}

void kernel_start(void);
void kernel_start(void)
{
#define TEST(name)                                                                                                     \
	kernel_say(#name "\n");                                                                                        \
	name();
#include "setup.inc"
#undef TEST
	kernel_end(true);
}
