/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Start code for the kernel in C on QEMU's mps2-an385: vectors, an end, and nothing of Rust's but librtmm.a. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void kernel_start(void);
void kernel_reset(void);
void kernel_say(const char *text);
void kernel_end(bool good);

/* Arm's semihosting: operations and what an exit is told. */
#define SYS_WRITE0 0x04
#define SYS_EXIT 0x18
#define APPLICATION_EXIT 0x20026
#define RUN_TIME_ERROR 0x20023

static void semihosting(uint32_t operation, uintptr_t argument)
{
	register uint32_t r0 __asm("r0") = operation;
	register uintptr_t r1 __asm("r1") = argument;

	__asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

void kernel_say(const char *text)
{
	semihosting(SYS_WRITE0, (uintptr_t)text);
}

void kernel_end(bool good)
{
	semihosting(SYS_EXIT, good ? APPLICATION_EXIT : RUN_TIME_ERROR);
	for (;;)
		continue;
}

static void fault(void)
{
	kernel_say("a fault\n");
	kernel_end(false);
}

void kernel_reset(void)
{
	kernel_start();
}

/* The stack's end, then the handlers of reset, NMI and the faults (Armv7-M ARM, B1.5.3). */
struct vectors {
	uintptr_t stack;
	void (*handlers[15])(void);
};

extern const struct vectors vectors;
__attribute__((section(".vectors"), used)) const struct vectors vectors = {
	0x20400000u,
	{ kernel_reset, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault },
};
