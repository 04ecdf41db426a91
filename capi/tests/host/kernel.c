/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A kernel in C, as far as rtmm is concerned, in a process: 16 MiB of RAM, and librtmm.a. */
#include <stdio.h>
#include <stdlib.h>

#include <linux/kernel.h>

#include "check.h"

#define RAM_LENGTH ((size_t)16 << 20)

/*
 * A physical address is an address here, and the manager's own records must lie below 128 GiB of those. So the RAM is
 * part of the program, which is linked at a low address (-no-pie).
 */
static char memory[2 * RAM_LENGTH];
#define RAM_START (((uintptr_t)memory + RAM_LENGTH - 1) & ~(uint64_t)(RAM_LENGTH - 1))
/* Below any process's memory; without an MMU nothing is mapped, only noted. */
#define MMIO_START 0x4000u

#include "kernel.inc"

void check_failed(const char *file, int line, const char *text)
{
	fprintf(stderr, "%s:%d: not so: %s (last report %u, %u: %s)\n", file, line, text, last_bug.kind,
		last_bug.reason, last_bug.text == NULL ? "none" : last_bug.text);
	exit(1);
}

int main(void)
{
#define TEST(name)                                                                                                     \
	printf("%s\n", #name);                                                                                         \
	name();
#include "setup.inc"
#undef TEST
	return 0;
}
