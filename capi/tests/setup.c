/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Setting a manager up from C: what is refused, what calls do before, and that all of them work after. */
#include "check.h"

#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/mempool.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

static char tag;
static unsigned long depth;
/* RTMM_CONTEXT_*, or what the program says when it is larger than any. */
static uint32_t context_told = 1000;

/*
 * Nothing else runs between a lock and its opening in these programs, so the lock has only to see that sections nest
 * in stack order and that no word is locked twice.
 */
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
	return context_told == 1000 ? check_context() : context_told;
}

static void bug(void *arg, const struct rtmm_bug *report)
{
	void *memory;

	/* No lock is held: it may allocate and free. */
	CHECK(arg == &tag && depth == 0 && report->text != NULL);
	memory = kmalloc(24, GFP_NOWAIT);
	kfree(memory);
	check_note(report);
}

/* What the program's only other task would do while this one sleeps. */
static void (*while_asleep)(void);
static uint64_t time_now;
static unsigned int sleeps, wakes;

static uint64_t now(void *arg)
{
	CHECK(arg == &tag);
	return time_now;
}

static uintptr_t current(void *arg)
{
	CHECK(arg == &tag);
	return 42;
}

static void wait_until(void *arg, uint64_t until)
{
	CHECK(arg == &tag && depth == 0 && until > time_now);
	sleeps++;
	if (while_asleep != NULL)
		while_asleep();
	else
		time_now = until;
}

static void wake(void *arg, uintptr_t task)
{
	CHECK(arg == &tag && depth == 0 && task == 42);
	wakes++;
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
	config.now = now;
	config.current = current;
	config.wait = wait_until;
	config.wake = wake;
	config.max_wait = 1000;
	/* Nothing begins or ends at a page. */
	ram[0].start = check_ram_start() + 1;
	ram[0].length = check_ram_length() - 2;
	config.ram = ram;
	config.ram_count = 1;
	config.vmalloc_start = check_window_start();
	config.vmalloc_end = check_window_end();
	return config;
}

static bool is_set_up;

static void set_up(void)
{
	struct rtmm_config config = good();

	if (is_set_up)
		return;
	/* One byte of the sixth page. */
	reserved[0].start = check_ram_start() + 5 * PAGE_SIZE + 1;
	reserved[0].length = 1;
	config.reserved = reserved;
	config.reserved_count = 1;
	CHECK(rtmm_init(&config) == 0);
	is_set_up = true;
	CHECK(rtmm_page_shift() == RTMM_PAGE_SHIFT);
	CHECK(rtmm_nr_free_pages() > check_ram_length() / PAGE_SIZE / 2);
	CHECK(rtmm_nr_free_pages() < check_ram_length() / PAGE_SIZE - 3);
	CHECK(rtmm_check() == 0 && depth == 0);
}

#define REFUSED(errno_value, change)                                                                                   \
	do {                                                                                                           \
		struct rtmm_config config = good();                                                                    \
		change;                                                                                                \
		CHECK(rtmm_init(&config) == -(errno_value));                                                           \
	} while (0)

void senseless_configurations_are_refused(void)
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
	REFUSED(RTMM_EINVAL, config.flags = 2);
	REFUSED(RTMM_EINVAL, config.flags = 3);
	/* Ratios that are given, and no word of it. */
	REFUSED(RTMM_EINVAL, config.reserve_ratio[3] = 1);
	REFUSED(RTMM_EINVAL, config.flags = 0x80000000u);
	REFUSED(RTMM_EINVAL, config.lock = NULL);
	REFUSED(RTMM_EINVAL, config.unlock = NULL);
	REFUSED(RTMM_EINVAL, config.context = NULL);
	REFUSED(RTMM_EINVAL, config.bug = NULL);
	REFUSED(RTMM_EINVAL, config.now = NULL);
	REFUSED(RTMM_EINVAL, config.current = NULL);
	REFUSED(RTMM_EINVAL, config.wait = NULL);
	REFUSED(RTMM_EINVAL, config.wake = NULL);
	REFUSED(RTMM_EINVAL, config.ram = NULL);
	REFUSED(RTMM_EINVAL, config.ram = (struct rtmm_range *)(void *)((char *)ram + 1));
	REFUSED(RTMM_E2BIG, config.ram_count = RTMM_MAX_RANGES + 1);
	REFUSED(RTMM_E2BIG, config.ram_count = SIZE_MAX);
	REFUSED(RTMM_ENOMEM, config.ram_count = 0);
	REFUSED(RTMM_EINVAL, config.reserved_count = 1);
	REFUSED(RTMM_E2BIG, (config.reserved = reserved, config.reserved_count = SIZE_MAX));
	REFUSED(RTMM_EINVAL, config.zone_count = 1);
	REFUSED(RTMM_E2BIG, (config.zones = zones, config.zone_count = RTMM_MAX_ZONES + 1));
	REFUSED(RTMM_EINVAL, config.vmalloc_end++);
	REFUSED(RTMM_EINVAL, config.vmalloc_start++);
	REFUSED(RTMM_EINVAL, config.vmalloc_start = UINTPTR_MAX);
	if (rtmm_has_mmu()) {
		REFUSED(RTMM_EINVAL, config.vmalloc_end = config.vmalloc_start);
		REFUSED(RTMM_EINVAL, config.vmalloc_end = config.vmalloc_start - PAGE_SIZE);
	} else {
		REFUSED(RTMM_EINVAL, (config.vmalloc_start = PAGE_SIZE, config.vmalloc_end = 2 * PAGE_SIZE));
		REFUSED(RTMM_EINVAL, (config.vmalloc_start = PAGE_SIZE, config.vmalloc_end = PAGE_SIZE));
	}

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

	REFUSED(RTMM_ENOMEM, (reserved[0] = ram[0], config.reserved = reserved, config.reserved_count = 1));
	REFUSED(RTMM_ENOMEM, (ram[0].length = PAGE_SIZE - 1));
	REFUSED(RTMM_ENOMEM, (ram[0].start = UINT64_MAX - PAGE_SIZE, ram[0].length = UINT64_MAX));
	/* None of them has spoiled a good one. */
	set_up();
}

static size_t shrink_nothing(void *arg, const struct rtmm_shrink_request *request)
{
	(void)arg;
	(void)request;
	return 0;
}

static int32_t map_nothing(void *arg, size_t page, size_t pfn)
{
	(void)arg;
	return page == pfn;
}

void calls_before_set_up_give_nothing(void)
{
	uintptr_t frames[2] = { 1, 0 };
	char bytes[1] = { 0 };

	if (is_set_up)
		return;
	CHECK(kmalloc(64, GFP_KERNEL) == NULL);
	CHECK(kzalloc(64, GFP_KERNEL) == NULL);
	CHECK(krealloc(NULL, 64, GFP_KERNEL) == NULL);
	CHECK(vmalloc(64) == NULL);
	CHECK(__get_free_page(GFP_KERNEL) == 0);
	CHECK(alloc_page(GFP_KERNEL) == NULL);
	CHECK(alloc_pages_exact(64, GFP_KERNEL) == NULL);
	CHECK(kmem_cache_create("early", 8, 0, 0, NULL) == NULL);
	CHECK(rtmm_ioremap(check_mmio_start(), 4) == NULL);
	CHECK(rtmm_nr_free_pages() == 0);
	CHECK(kvmalloc(64, GFP_KERNEL) == NULL && kcalloc(8, 8, GFP_KERNEL) == NULL);
	CHECK(rtmm_kmalloc_deadline(64, GFP_KERNEL, UINT64_MAX) == NULL);
	CHECK(rtmm_get_free_pages_deadline(GFP_KERNEL, 0, UINT64_MAX) == 0);
	CHECK(mempool_create_kmalloc_pool(1, 8) == NULL);
	CHECK(mempool_create(1, mempool_kmalloc, mempool_kfree, NULL) == NULL);
	CHECK(rtmm_shrinker_create(shrink_nothing, shrink_nothing, NULL) == NULL);
	CHECK(rtmm_shrinker_destroy((struct rtmm_shrinker *)(void *)&tag) == -RTMM_EINVAL);
	CHECK(rtmm_vmalloc_with(64, GFP_KERNEL, RTMM_PROT_READ_WRITE, 0, 15) == NULL);
	CHECK(vrealloc(NULL, 64, GFP_KERNEL) == NULL && vmalloc_user(64) == NULL && vmalloc_32_user(64) == NULL);
	CHECK(rtmm_remap_vmalloc_range(&tag, 0, 1, NULL, NULL) == -RTMM_EINVAL);
	CHECK(rtmm_remap_vmalloc_range(&tag, 0, 1, map_nothing, NULL) == -RTMM_EINVAL);
	CHECK(rtmm_vread(bytes, &tag, 1) == 0 && rtmm_vwrite(bytes, &tag, 1) == 0);
	CHECK(rtmm_set_memory(0, 1, RTMM_PROT_READ) < 0 && rtmm_vmap(frames, 1, RTMM_PROT_READ) == NULL);
	CHECK(rtmm_vm_map_ram(frames, 1) == NULL && rtmm_alloc_pages_bulk(GFP_KERNEL, 1, frames + 1) == 0);
	CHECK(kmemdup(bytes, 1, GFP_KERNEL) == NULL && kstrdup("early", GFP_KERNEL) == NULL);
	CHECK(kmem_cache_alloc((struct kmem_cache *)(void *)&tag, GFP_KERNEL) == NULL);
	CHECK(kmem_cache_shrink((struct kmem_cache *)(void *)&tag) == -RTMM_EINVAL);
	CHECK(mempool_alloc((mempool_t *)(void *)&tag, GFP_KERNEL) == NULL);
	CHECK(mempool_resize((mempool_t *)(void *)&tag, 1) == -RTMM_EINVAL);
	CHECK(mempool_create_slab_pool(1, (struct kmem_cache *)(void *)&tag) == NULL);
	CHECK(mempool_create_page_pool(1, 0) == NULL && get_zeroed_page(GFP_KERNEL) == 0);
	CHECK(ksize(&tag) == 0 && rtmm_virt_to_pfn(&tag) == 0);
	kmem_cache_free((struct kmem_cache *)(void *)&tag, &tag);
	kmem_cache_destroy((struct kmem_cache *)(void *)&tag);
	mempool_free(&tag, (mempool_t *)(void *)&tag);
	mempool_destroy((mempool_t *)(void *)&tag);
	rtmm_vunmap(&tag);
	rtmm_vm_unmap_ram(&tag, 1);
	rtmm_free_pages_exact(&tag, 1);
	rtmm_free_pages_frame(1, 0);
	rtmm_put_page(1);
	kvfree(&tag);
	CHECK(rtmm_check() <= 0 && rtmm_page_shift() == RTMM_PAGE_SHIFT);
	CHECK(rtmm_split_page(1, 1) == -RTMM_EAGAIN && !rtmm_get_page(1) && rtmm_page_count(1) == 0);
	CHECK(rtmm_page_address(1) == NULL && !rtmm_is_vmalloc_addr(&tag) && rtmm_vmalloc_to_pfn(&tag) == 0);
	rtmm_drain();
	kfree(&tag);
	vfree(&tag);
	free_page((unsigned long)&tag);
	rtmm_iounmap(&tag);
	/* There is nobody yet to be told. */
	CHECK(check_bugs() == 0);
}

void a_second_set_up_is_refused(void)
{
	struct rtmm_config config;

	set_up();
	config = good();
	CHECK(rtmm_init(&config) == -RTMM_EEXIST);
	CHECK(rtmm_init(NULL) == -RTMM_EINVAL);
	kfree(kmalloc(10, GFP_KERNEL));
}

void a_manager_set_up_from_c_serves_every_call(void)
{
	set_up();
#define TEST(name)                                                                                                     \
	name();                                                                                                        \
	CHECK(depth == 0);
#include "calls.inc"
#undef TEST
}

void a_context_that_is_none_counts_as_atomic(void)
{
	size_t bugs;

	set_up();
	bugs = check_bugs();
	context_told = 77;
	/* Told for a flag that may wait, which has not been told of from here. */
	vfree(vzalloc(1));
	context_told = 1000;
	CHECK(check_bugs() == bugs + 1 && check_bug_kind() == RTMM_BUG_MAY_WAIT_IN_ATOMIC);
}

static void **hoard;

/* Each page's first word leads to the one before. */
static void take_everything(void)
{
	void *page;

	while ((page = (void *)__get_free_page(GFP_ATOMIC | __GFP_NOWARN)) != NULL) {
		*(void **)page = (void *)hoard;
		hoard = (void **)page;
	}
	CHECK(hoard != NULL);
}

static void give_everything(void)
{
	while (hoard != NULL) {
		unsigned long page = (unsigned long)hoard;

		hoard = (void **)*hoard;
		free_page(page);
	}
}

void a_task_waits_until_memory_comes_back(void)
{
	unsigned long page;

	set_up();
	take_everything();
	sleeps = wakes = 0;
	while_asleep = give_everything;
	page = __get_free_page(GFP_KERNEL);
	while_asleep = NULL;
	CHECK(page != 0 && sleeps == 1 && wakes == 1 && hoard == NULL);
	free_page(page);
	CHECK(rtmm_check() == 0);
}

void a_task_gives_up_when_its_time_is_over(void)
{
	uint64_t start;

	set_up();
	take_everything();
	sleeps = wakes = 0;
	start = time_now;
	CHECK(__get_free_page(GFP_KERNEL | __GFP_NOWARN) == 0);
	/* It is awake now and then, to look for what nobody tells of. */
	CHECK(sleeps >= 1 && time_now == start + 1000);
	sleeps = 0;
	/* One that may not wait does not. */
	CHECK(__get_free_page(GFP_NOWAIT | __GFP_NOWARN) == 0 && sleeps == 0);
	give_everything();
	CHECK(rtmm_check() == 0);
}

void a_deadline_of_the_callers_ends_the_wait(void)
{
	uint64_t start;
	uintptr_t page;

	set_up();
	take_everything();
	sleeps = wakes = 0;
	start = time_now;
	CHECK(rtmm_get_free_pages_deadline(GFP_KERNEL | __GFP_NOWARN, 0, start + 300) == 0);
	CHECK(sleeps >= 1 && time_now == start + 300);
	sleeps = 0;
	CHECK(rtmm_kmalloc_deadline(2 * PAGE_SIZE, GFP_KERNEL | __GFP_NOWARN, start + 350) == NULL);
	CHECK(sleeps >= 1 && time_now == start + 350);
	sleeps = 0;
	/* Over already. */
	CHECK(rtmm_alloc_pages_deadline(GFP_KERNEL | __GFP_NOWARN, 0, start) == 0 && sleeps == 0);
	while_asleep = give_everything;
	page = rtmm_get_free_pages_deadline(GFP_KERNEL, 0, start + 1000000);
	while_asleep = NULL;
	CHECK(page != 0 && sleeps == 1 && wakes == 1 && time_now == start + 350);
	free_page(page);
	CHECK(rtmm_check() == 0);
}

/* For a boot of its own, since a manager is tuned once. */
void a_manager_that_keeps_nothing_gives_its_last_page(void)
{
	struct rtmm_config config = good();

	if (is_set_up)
		return;
	config.min_free = RTMM_MIN_FREE_NONE;
	config.flags = RTMM_CONFIG_RESERVE_RATIO;
	CHECK(rtmm_init(&config) == 0);
	is_set_up = true;
	while_asleep = NULL;
	while (__get_free_page(GFP_NOWAIT | __GFP_NOWARN) != 0)
		continue;
	rtmm_drain();
	CHECK(rtmm_nr_free_pages() == 0 && rtmm_check() == 0);
}

/* As above. */
void a_manager_keeps_as_much_as_it_is_told(void)
{
	struct rtmm_config config = good();
	size_t pages = check_ram_length() / PAGE_SIZE / 4;

	if (is_set_up)
		return;
	config.min_free = pages * PAGE_SIZE;
	CHECK(rtmm_init(&config) == 0);
	is_set_up = true;
	while (__get_free_page(GFP_NOWAIT | __GFP_NOWARN) != 0)
		continue;
	/* Not more than was asked for, and a whole fraction of the memory. */
	CHECK(rtmm_nr_free_pages() <= pages && rtmm_nr_free_pages() >= pages - pages / 4);
	/* For GFP_ATOMIC there is some of it. */
	CHECK(__get_free_page(GFP_ATOMIC) != 0 && rtmm_check() == 0);
}
