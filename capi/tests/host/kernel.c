/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A kernel in C, as far as rtmm is concerned, in a process: 16 MiB of RAM, and librtmm.a. */
#include <stdio.h>
#include <stdlib.h>

#include <linux/kernel.h>

#include "check.h"

#define RAM_BYTES ((size_t)16 << 20)

/*
 * A physical address is an address here, and the manager's own records must lie below 128 GiB of those. So the RAM is
 * part of the program, which is linked at a low address (-no-pie).
 */
static char memory[2 * RAM_BYTES];

static size_t bugs;
static struct rtmm_bug last_bug;
static uint32_t where = RTMM_CONTEXT_TASK;

void check_failed(const char *file, int line, const char *text)
{
	fprintf(stderr, "%s:%d: not so: %s (last report %u, %u: %s)\n", file, line, text, last_bug.kind,
		last_bug.reason, last_bug.text == NULL ? "none" : last_bug.text);
	exit(1);
}

void check_note(const struct rtmm_bug *bug)
{
	bugs++;
	last_bug = *bug;
}

size_t check_bugs(void)
{
	return bugs;
}

uint32_t check_bug_kind(void)
{
	return last_bug.kind;
}

uint32_t check_bug_reason(void)
{
	return last_bug.reason;
}

uint64_t check_mmio_start(void)
{
	/* Below any process's memory; without an MMU nothing is mapped, only noted. */
	return 0x4000;
}

size_t check_mmio_length(void)
{
	return 4096;
}

uint64_t check_ram_start(void)
{
	return ((uintptr_t)memory + RAM_BYTES - 1) & ~(uint64_t)(RAM_BYTES - 1);
}

size_t check_ram_length(void)
{
	return RAM_BYTES;
}

uintptr_t check_window_start(void)
{
	return 0;
}

uintptr_t check_window_end(void)
{
	return 0;
}

uint32_t check_context(void)
{
	return where;
}

void check_in_interrupt(void (*function)(void))
{
	where = RTMM_CONTEXT_ATOMIC;
	function();
	where = RTMM_CONTEXT_TASK;
}

int rtmm_host_printk(const char *format, ...)
{
	(void)format;
	return 0;
}

void rtmm_host_panic(const char *file, int line)
{
	check_failed(file, line, "BUG()");
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
