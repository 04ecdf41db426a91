/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What a test in C needs of the program it runs in: a way to fail, and what the callback `bug` was told.
 *
 * The programs give each test a boot (or process) of its own or run them in a row; they are listed in calls.inc.
 */
#ifndef CHECK_H
#define CHECK_H

#include <rtmm.h>

#if defined(__GNUC__)
__attribute__((noreturn))
#endif
void check_failed(const char *file, int line, const char *text);

/* How many reports there were, and the last one's kind and reason. */
size_t check_bugs(void);
uint32_t check_bug_kind(void);
uint32_t check_bug_reason(void);

/* A device's registers that ioremap may map. */
uint64_t check_mmio_start(void);
size_t check_mmio_length(void);

/* For setup.c: RAM to be managed, and with page tables a window of addresses for vmalloc (else 0 and 0). */
uint64_t check_ram_start(void);
size_t check_ram_length(void);
uintptr_t check_window_start(void);
uintptr_t check_window_end(void);
/* Where the caller runs, as RTMM_CONTEXT_*; and a report that check_bugs is to count. */
uint32_t check_context(void);
void check_note(const struct rtmm_bug *bug);

/* Runs a function where nothing may wait: in an interrupt, or with interrupts off. */
void check_in_interrupt(void (*function)(void));

#define CHECK(what)                                                                                                    \
	do {                                                                                                           \
		if (!(what))                                                                                           \
			check_failed(__FILE__, __LINE__, #what);                                                       \
	} while (0)

/* The statement is a free that is refused for this reason, and told once. */
#define CHECK_REFUSED(why, statement)                                                                                  \
	do {                                                                                                           \
		size_t bugs_before = check_bugs();                                                                     \
		size_t pages_before;                                                                                   \
		rtmm_drain();                                                                                          \
		pages_before = rtmm_nr_free_pages();                                                                   \
		statement;                                                                                             \
		rtmm_drain();                                                                                          \
		CHECK(check_bugs() == bugs_before + 1);                                                                \
		CHECK(check_bug_kind() == RTMM_BUG_BAD_FREE);                                                          \
		CHECK(check_bug_reason() == (why));                                                                    \
		CHECK(rtmm_nr_free_pages() == pages_before);                                                           \
	} while (0)

/* Between these two every page comes back. */
#define CHECK_BEGIN()                                                                                                  \
	size_t pages_at_start;                                                                                         \
	rtmm_drain();                                                                                                  \
	pages_at_start = rtmm_nr_free_pages()
#define CHECK_END()                                                                                                    \
	do {                                                                                                           \
		rtmm_drain();                                                                                          \
		CHECK(rtmm_nr_free_pages() == pages_at_start);                                                         \
		CHECK(rtmm_check() == 0);                                                                              \
	} while (0)

/* The tests. */
#define TEST(name) void name(void);
#include "calls.inc"
#include "setup.inc"
#undef TEST

/* Flags of requests that are to fail. */
#define QUIET (GFP_KERNEL | __GFP_NOWARN)

static inline bool all_bytes_are(const void *memory, int byte, size_t count)
{
	const unsigned char *bytes = (const unsigned char *)memory;
	size_t i;

	for (i = 0; i < count; i++)
		if (bytes[i] != byte)
			return false;
	return true;
}

static inline bool aligned(const void *memory, size_t alignment)
{
	return ((uintptr_t)memory & (alignment - 1)) == 0;
}

#endif
