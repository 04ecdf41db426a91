/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A process as the kernel: RAM in the program itself, one thread, no interrupts. For trying out, and for the unit tests
 * of drivers. Included by one file of a program that is linked with the host's librtmm.a at a low address (-no-pie),
 * where the manager's records must lie.
 */
#ifndef RTMM_PROCESS_H
#define RTMM_PROCESS_H

#include <stdio.h>
#include <stdlib.h>

#include <rtmm.h>

/* Bytes of RAM; a little goes to the manager's tables. */
#ifndef RTMM_PROCESS_RAM
#define RTMM_PROCESS_RAM (16ul << 20)
#endif

static char rtmm_process_ram[RTMM_PROCESS_RAM];

static uintptr_t rtmm_process_lock(void *arg, uintptr_t *word)
{
	(void)arg;
	(void)word;
	return 0;
}

static void rtmm_process_unlock(void *arg, uintptr_t *word, uintptr_t state)
{
	(void)arg;
	(void)word;
	(void)state;
}

static uint32_t rtmm_process_context(void *arg)
{
	(void)arg;
	return RTMM_CONTEXT_TASK;
}

/* A wrong free ends the program: a debugger then stands at it. */
static void rtmm_process_bug(void *arg, const struct rtmm_bug *bug)
{
	(void)arg;
	fprintf(stderr, "%s (%#lx)\n", bug->text, (unsigned long)bug->address);
	abort();
}

/* Sets the manager up. 0, or a negative errno value. */
static inline int rtmm_process_init(void)
{
	struct rtmm_config config = RTMM_CONFIG_INIT;
	struct rtmm_range ram;

	ram.start = (uintptr_t)rtmm_process_ram;
	ram.length = sizeof(rtmm_process_ram);
	config.lock = rtmm_process_lock;
	config.unlock = rtmm_process_unlock;
	config.context = rtmm_process_context;
	config.bug = rtmm_process_bug;
	config.ram = &ram;
	config.ram_count = 1;
	return rtmm_init(&config);
}

#endif
