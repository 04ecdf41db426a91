/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A kernel in C, as far as rtmm is concerned, in a process: callbacks, 16 MiB of RAM, and librtmm.a.
 *
 * First what rtmm_init refuses, and what calls before it do; then the calls.
 */
#include <stdio.h>
#include <stdlib.h>

#include <linux/kernel.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "check.h"

#define RAM_BYTES ((size_t)16 << 20)

/*
 * A physical address is an address here, and the manager's own records must lie below 128 GiB of those. So the RAM is
 * part of the program, which is linked at a low address (-no-pie).
 */
static char memory[2 * RAM_BYTES];

static size_t bugs;
static struct rtmm_bug last_bug;
static unsigned long depth;
static uint32_t where = RTMM_CONTEXT_BOOT;
static char tag;

void check_failed(const char *file, int line, const char *text)
{
	fprintf(stderr, "%s:%d: not so: %s (last report %u, %u: %s)\n", file, line, text, last_bug.kind,
		last_bug.reason, last_bug.text == NULL ? "none" : last_bug.text);
	exit(1);
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

/* Sections nest in stack order, with different words. */
static uintptr_t lock(void *arg, uintptr_t *word)
{
	CHECK(arg == &tag && *word == 0);
	*word = 1;
	return depth++;
}

static void unlock(void *arg, uintptr_t *word, uintptr_t state)
{
	CHECK(arg == &tag && *word == 1 && state == depth - 1);
	*word = 0;
	depth--;
}

static uint32_t context(void *arg)
{
	CHECK(arg == &tag);
	return where;
}

static void bug(void *arg, const struct rtmm_bug *report)
{
	void *memory;

	/* No lock is held: it may allocate and free. */
	CHECK(arg == &tag && depth == 0 && report->text != NULL);
	memory = kmalloc(24, GFP_NOWAIT);
	kfree(memory);
	bugs++;
	last_bug = *report;
}

static struct rtmm_range ram[RTMM_MAX_RANGES + 1], reserved[2];
static struct rtmm_zone zones[RTMM_MAX_ZONES + 1];

static struct rtmm_config good(void)
{
	struct rtmm_config config = RTMM_CONFIG_INIT;

	config.arg = &tag;
	config.lock = lock;
	config.unlock = unlock;
	config.context = context;
	config.bug = bug;
	config.ram = ram;
	config.ram_count = 1;
	return config;
}

#define REFUSED(errno_value, change)                                                                                   \
	do {                                                                                                           \
		struct rtmm_config config = good();                                                                    \
		change;                                                                                                \
		CHECK(rtmm_init(&config) == -(errno_value));                                                           \
	} while (0)

static void senseless_configurations_are_refused(void)
{
	union {
		struct rtmm_config config;
		char bytes[sizeof(struct rtmm_config) + 1];
	} crooked;

	CHECK(rtmm_init(NULL) == -RTMM_EINVAL);
	crooked.config = good();
	CHECK(rtmm_init((struct rtmm_config *)(void *)(crooked.bytes + 1)) == -RTMM_EINVAL);
	REFUSED(RTMM_EINVAL, config.size = 0);
	REFUSED(RTMM_EINVAL, config.size--);
	REFUSED(RTMM_EINVAL, config.size++);
	REFUSED(RTMM_EINVAL, config.size = UINT32_MAX);
	REFUSED(RTMM_EINVAL, config.version = 0);
	REFUSED(RTMM_EINVAL, config.version = RTMM_CONFIG_VERSION + 1);
	REFUSED(RTMM_EINVAL, config.page_shift = RTMM_PAGE_SHIFT + 1);
	REFUSED(RTMM_EINVAL, config.page_shift = 0);
	REFUSED(RTMM_EINVAL, config.flags = 1);
	REFUSED(RTMM_EINVAL, config.flags = 0x80000000u);
	REFUSED(RTMM_EINVAL, config.lock = NULL);
	REFUSED(RTMM_EINVAL, config.unlock = NULL);
	REFUSED(RTMM_EINVAL, config.context = NULL);
	REFUSED(RTMM_EINVAL, config.bug = NULL);
	REFUSED(RTMM_EINVAL, config.ram = NULL);
	REFUSED(RTMM_EINVAL, config.ram = (struct rtmm_range *)(void *)((char *)ram + 1));
	REFUSED(RTMM_E2BIG, config.ram_count = RTMM_MAX_RANGES + 1);
	REFUSED(RTMM_E2BIG, config.ram_count = SIZE_MAX);
	REFUSED(RTMM_ENOMEM, config.ram_count = 0);
	REFUSED(RTMM_EINVAL, config.reserved_count = 1);
	REFUSED(RTMM_E2BIG, (config.reserved = reserved, config.reserved_count = SIZE_MAX));
	REFUSED(RTMM_EINVAL, config.zone_count = 1);
	REFUSED(RTMM_E2BIG, (config.zones = zones, config.zone_count = RTMM_MAX_ZONES + 1));
	REFUSED(RTMM_EINVAL, (config.vmalloc_start = 0x10000, config.vmalloc_end = 0x20000));
	REFUSED(RTMM_EINVAL, config.vmalloc_end = 1);
	REFUSED(RTMM_EINVAL, config.vmalloc_start = UINTPTR_MAX);

	zones[0].kind = RTMM_ZONE_HIGHMEM + 1;
	zones[0].end = UINT64_MAX;
	REFUSED(RTMM_EINVAL, (config.zones = zones, config.zone_count = 1));
	zones[0].kind = UINT32_MAX;
	REFUSED(RTMM_EINVAL, (config.zones = zones, config.zone_count = 1));
	zones[0].kind = RTMM_ZONE_NORMAL;
	zones[0].reserved = 1;
	REFUSED(RTMM_EINVAL, (config.zones = zones, config.zone_count = 1));
	zones[0].reserved = 0;
	zones[1] = zones[0];
	REFUSED(RTMM_EINVAL, (config.zones = zones, config.zone_count = 2));
	zones[1].kind = RTMM_ZONE_DMA;
	zones[0].end = 4096;
	REFUSED(RTMM_EINVAL, (config.zones = zones, config.zone_count = 2));

	reserved[0] = ram[0];
	REFUSED(RTMM_ENOMEM, (config.reserved = reserved, config.reserved_count = 1));
	ram[1].length = PAGE_SIZE - 1;
	REFUSED(RTMM_ENOMEM, (config.ram = ram + 1));
}

static void calls_before_set_up_give_nothing(void)
{
	CHECK(kmalloc(64, GFP_KERNEL) == NULL);
	CHECK(kzalloc(64, GFP_KERNEL) == NULL);
	CHECK(krealloc(NULL, 64, GFP_KERNEL) == NULL);
	CHECK(vmalloc(64) == NULL);
	CHECK(__get_free_page(GFP_KERNEL) == 0);
	CHECK(alloc_page(GFP_KERNEL) == NULL);
	CHECK(alloc_pages_exact(64, GFP_KERNEL) == NULL);
	CHECK(kmem_cache_create("early", 8, 0, 0, NULL) == NULL);
	CHECK(rtmm_ioremap(0x4000, 4) == NULL);
	CHECK(rtmm_nr_free_pages() == 0);
	kfree(&tag);
	vfree(&tag);
	free_page((unsigned long)&tag);
	rtmm_iounmap(&tag);
	/* There is nobody yet to be told. */
	CHECK(bugs == 0);
}

int main(void)
{
	uintptr_t start = ((uintptr_t)memory + RAM_BYTES - 1) & ~(RAM_BYTES - 1);
	struct rtmm_config config;

	/* Nothing begins or ends at a page. */
	ram[0].start = start + 1;
	ram[0].length = RAM_BYTES - 2;
	calls_before_set_up_give_nothing();
	senseless_configurations_are_refused();
	calls_before_set_up_give_nothing();

	config = good();
	reserved[0].start = start + 5 * PAGE_SIZE + 1;
	reserved[0].length = 1;
	config.reserved = reserved;
	config.reserved_count = 1;
	CHECK(rtmm_init(&config) == 0);
	CHECK(rtmm_init(&config) == -RTMM_EEXIST);
	CHECK(rtmm_init(NULL) == -RTMM_EINVAL);
	where = RTMM_CONTEXT_TASK;
	CHECK(rtmm_page_shift() == RTMM_PAGE_SHIFT && !rtmm_has_mmu());
	CHECK(rtmm_nr_free_pages() > RAM_BYTES / PAGE_SIZE / 2 && rtmm_nr_free_pages() < RAM_BYTES / PAGE_SIZE - 3);

#define TEST(name)                                                                                                     \
	printf("%s\n", #name);                                                                                         \
	name();                                                                                                        \
	CHECK(depth == 0);
#include "calls.inc"
#undef TEST
	/* What is no context must be taken for the strictest: it is told, and nothing waits. */
	where = 77;
	bugs = 0;
	vfree(vmalloc(1));
	CHECK(bugs == 1 && last_bug.kind == RTMM_BUG_MAY_WAIT_IN_ATOMIC);
	return 0;
}
