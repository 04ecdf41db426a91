/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What happens when memory is short: pools with a reserve, shrinkers, deadlines, and that all of it comes back. */
#include "check.h"

#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/mempool.h>
#include <linux/mm.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

static char in_the_image[64];

void a_pool_serves_from_its_reserve(void)
{
	struct kmem_cache *cache = kmem_cache_create("pooled", 72, 0, 0, NULL);
	mempool_t *pools[3];
	void *elements[4];
	size_t i, j;
	void **list = NULL;
	void *block;
	CHECK_BEGIN();

	pools[0] = mempool_create_kmalloc_pool(4, 100);
	pools[1] = mempool_create_slab_pool(4, cache);
	pools[2] = mempool_create_page_pool(4, 1);
	for (i = 0; i < ARRAY_SIZE(pools); i++)
		CHECK(pools[i] != NULL);
	/* Nothing is left for anybody else. */
	while ((block = kmalloc(16, GFP_ATOMIC | __GFP_NOWARN)) != NULL) {
		*(void **)block = (void *)list;
		list = (void **)block;
	}
	for (i = 0; i < ARRAY_SIZE(pools); i++) {
		for (j = 0; j < ARRAY_SIZE(elements); j++) {
			elements[j] = mempool_alloc(pools[i], GFP_NOWAIT | __GFP_NOWARN);
			CHECK(elements[j] != NULL);
		}
		for (j = 0; j < ARRAY_SIZE(elements); j++)
			mempool_free(elements[j], pools[i]);
	}
	while (list != NULL) {
		block = (void *)list;
		list = (void **)*(void **)block;
		kfree(block);
	}
	elements[0] = mempool_alloc(pools[2], GFP_KERNEL);
	CHECK(virt_to_page(page_address((struct page *)elements[0])) == (struct page *)elements[0]);
	mempool_free(elements[0], pools[2]);
	CHECK(mempool_resize(pools[0], 8) == 0 && mempool_resize(pools[0], 1) == 0);
	for (i = 0; i < ARRAY_SIZE(pools); i++)
		mempool_destroy(pools[i]);
	CHECK_END();
	kmem_cache_destroy(cache);
}

void pools_that_make_no_sense_are_not_made(void)
{
	mempool_t *pool;
	CHECK_BEGIN();

	CHECK(mempool_create_kmalloc_pool(0, 64) == NULL);
	CHECK(mempool_create_kmalloc_pool(-1, 64) == NULL);
	CHECK(mempool_create_kmalloc_pool(65, 64) == NULL);
	CHECK(mempool_create_kmalloc_pool(1, 0) == NULL);
	CHECK(mempool_create_kmalloc_pool(1, SIZE_MAX) == NULL);
	CHECK(mempool_create_page_pool(1, -1) == NULL);
	CHECK(mempool_create_page_pool(1, 60) == NULL);
	CHECK_REFUSED(RTMM_FREE_WRONG_CACHE, CHECK(mempool_create_slab_pool(1, NULL) == NULL));
	mempool_destroy(NULL);
	pool = mempool_create_kmalloc_pool(1, 64);
	CHECK(pool != NULL);
	CHECK(mempool_resize(pool, 0) == -RTMM_EINVAL && mempool_resize(pool, -5) == -RTMM_EINVAL);
	CHECK(mempool_resize(pool, 65) == -RTMM_EINVAL);
	CHECK(mempool_alloc(pool, (gfp_t)1 << 30) == NULL);
	mempool_destroy(pool);
	CHECK_END();
}

void wrong_frees_to_a_pool_are_refused(void)
{
	mempool_t *pool;
	char *element;
	size_t bugs;
	CHECK_BEGIN();

	pool = mempool_create_kmalloc_pool(2, 64);
	CHECK(pool != NULL);
	element = (char *)mempool_alloc(pool, GFP_KERNEL);
	CHECK(element != NULL);
	CHECK_REFUSED(RTMM_FREE_INTERIOR, mempool_free(element + 8, pool));
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, mempool_free(element, (mempool_t *)(void *)element));
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, mempool_free(element, (mempool_t *)UINTPTR_MAX));
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, CHECK(mempool_alloc(NULL, GFP_KERNEL) == NULL));
	mempool_free(NULL, pool);
	CHECK_REFUSED(RTMM_FREE_INTERIOR, kfree((void *)pool));
	bugs = check_bugs();
	mempool_destroy(pool);
	CHECK(check_bugs() == bugs + 1 && check_bug_kind() == RTMM_BUG_POOL_BUSY);
	mempool_free(element, pool);
	CHECK_REFUSED(check_bug_reason(), mempool_free(element, pool));
	mempool_destroy(pool);
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, mempool_destroy(pool));
	CHECK_END();
}

static size_t own_out;
static bool own_is_dry;

static void *own_alloc(gfp_t flags, void *data)
{
	/* Only flags that have a name here. */
	CHECK(data == &own_out && (flags & ~(GFP_KERNEL | __GFP_NOWARN | __GFP_NORETRY)) == 0);
	if (own_is_dry)
		return NULL;
	own_out++;
	return kmalloc(48, flags);
}

static void own_free(void *element, void *data)
{
	CHECK(data == &own_out && own_out > 0);
	own_out--;
	kfree(element);
}

void a_pool_of_the_callers_functions_serves_from_its_reserve(void)
{
	mempool_t *pool;
	void *elements[3];
	size_t i;
	CHECK_BEGIN();

	own_out = 0;
	own_is_dry = false;
	pool = mempool_create(3, own_alloc, own_free, &own_out);
	CHECK(pool != NULL && own_out == 3);
	own_is_dry = true;
	for (i = 0; i < ARRAY_SIZE(elements); i++) {
		elements[i] = mempool_alloc(pool, i == 0 ? GFP_KERNEL : GFP_NOWAIT);
		CHECK(elements[i] != NULL);
		memset(elements[i], 0x66, 48);
	}
	CHECK(mempool_alloc(pool, GFP_NOWAIT) == NULL && mempool_alloc(pool, GFP_KERNEL) == NULL);
	CHECK(mempool_resize(pool, 4) == -RTMM_ENOMEM);
	mempool_free(elements[0], pool);
	CHECK(own_out == 3);
	CHECK_REFUSED(RTMM_FREE_DOUBLE, mempool_free(elements[0], pool));
	own_is_dry = false;
	elements[0] = mempool_alloc(pool, GFP_KERNEL);
	CHECK(elements[0] != NULL && own_out == 4);
	/* How long an element is only the functions know. */
	CHECK(mempool_alloc(pool, GFP_KERNEL | __GFP_ZERO) == NULL);
	for (i = 0; i < ARRAY_SIZE(elements); i++)
		mempool_free(elements[i], pool);
	CHECK(own_out == 3);
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, mempool_free(in_the_image, pool));
	mempool_destroy(pool);
	CHECK(own_out == 0);

	/* Linux's own functions do as well. */
	pool = mempool_create(2, mempool_kmalloc, mempool_kfree, (void *)(uintptr_t)90);
	CHECK(pool != NULL);
	elements[0] = mempool_alloc(pool, GFP_KERNEL);
	CHECK(elements[0] != NULL && ksize(elements[0]) >= 90);
	mempool_free(elements[0], pool);
	mempool_destroy(pool);
	pool = mempool_create(2, mempool_alloc_pages, mempool_free_pages, (void *)(uintptr_t)1);
	CHECK(pool != NULL);
	elements[0] = mempool_alloc(pool, GFP_KERNEL);
	CHECK(elements[0] != NULL && page_address((struct page *)elements[0]) != NULL);
	mempool_free(elements[0], pool);
	mempool_destroy(pool);
	CHECK_END();
}

void pools_without_functions_are_not_made(void)
{
	CHECK_BEGIN();

	own_out = 0;
	own_is_dry = false;
	CHECK(mempool_create(1, NULL, own_free, &own_out) == NULL);
	CHECK(mempool_create(1, own_alloc, NULL, &own_out) == NULL);
	CHECK(mempool_create(1, NULL, NULL, NULL) == NULL);
	CHECK(mempool_create(0, own_alloc, own_free, &own_out) == NULL);
	CHECK(mempool_create(65, own_alloc, own_free, &own_out) == NULL);
	own_is_dry = true;
	CHECK(mempool_create(1, own_alloc, own_free, &own_out) == NULL);
	CHECK(own_out == 0);
	CHECK_END();
}

/* Pages that somebody keeps and could do without; each begins with the address of the next. */
static void **kept;
static size_t kept_count, times_asked;
static struct rtmm_shrinker *keeper;

static void keep_everything(void)
{
	unsigned long page;

	while ((page = __get_free_page(GFP_NOWAIT | __GFP_NOWARN)) != 0) {
		*(void **)page = (void *)kept;
		kept = (void **)page;
		kept_count++;
	}
}

static size_t give_kept(size_t most)
{
	size_t freed;

	for (freed = 0; freed < most && kept != NULL; freed++) {
		unsigned long page = (unsigned long)kept;

		kept = (void **)*kept;
		free_page(page);
	}
	kept_count -= freed;
	return freed;
}

static size_t count_kept(void *arg, const struct rtmm_shrink_request *request)
{
	CHECK(arg == in_the_image && request->reserved == 0 && request->pages > 0);
	CHECK((request->flags & __GFP_DIRECT_RECLAIM) != 0);
	return kept_count;
}

static size_t scan_kept(void *arg, const struct rtmm_shrink_request *request)
{
	CHECK(arg == in_the_image && request->scan > 0 && request->scan <= kept_count);
	times_asked++;
	/* Not while it runs. */
	CHECK(rtmm_shrinker_destroy(keeper) == -RTMM_EBUSY);
	return give_kept(request->scan);
}

void a_shrinker_gives_when_memory_is_short(void)
{
	unsigned long page;
	CHECK_BEGIN();

	keeper = rtmm_shrinker_create(count_kept, scan_kept, in_the_image);
	CHECK(keeper != NULL);
	times_asked = 0;
	keep_everything();
	CHECK(kept_count > 0 && times_asked == 0);
	/* Who may not wait is refused; who may gets what the shrinker gives. */
	CHECK(__get_free_page(GFP_NOWAIT | __GFP_NOWARN) == 0 && times_asked == 0);
	page = __get_free_page(GFP_KERNEL);
	CHECK(page != 0 && times_asked == 1);
	free_page(page);
	CHECK(rtmm_shrinker_destroy(keeper) == 0);
	CHECK(rtmm_shrinker_destroy(keeper) == -RTMM_EINVAL && rtmm_shrinker_destroy(NULL) == 0);
	keep_everything();
	CHECK(__get_free_page(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN) == 0 && times_asked == 1);
	give_kept(SIZE_MAX);
	CHECK_END();
}

static size_t count_none(void *arg, const struct rtmm_shrink_request *request)
{
	(void)arg;
	(void)request;
	return 0;
}

void shrinkers_that_make_no_sense_are_not_made(void)
{
	struct rtmm_shrinker *shrinkers[8];
	void *object;
	size_t i;
	CHECK_BEGIN();

	CHECK(rtmm_shrinker_create(NULL, count_none, NULL) == NULL);
	CHECK(rtmm_shrinker_create(count_none, NULL, NULL) == NULL);
	CHECK(rtmm_shrinker_create(NULL, NULL, NULL) == NULL);
	object = kzalloc(128, GFP_KERNEL);
	CHECK(object != NULL && rtmm_shrinker_destroy((struct rtmm_shrinker *)object) == -RTMM_EINVAL);
	kfree(object);
	for (i = 0; i < ARRAY_SIZE(shrinkers); i++) {
		shrinkers[i] = rtmm_shrinker_create(count_none, count_none, NULL);
		CHECK(shrinkers[i] != NULL);
	}
	/* There may be eight. */
	CHECK(rtmm_shrinker_create(count_none, count_none, NULL) == NULL);
	CHECK(shrinker_alloc(0, "ninth") == NULL);
	CHECK_REFUSED(RTMM_FREE_INTERIOR, kfree((void *)shrinkers[0]));
	for (i = 0; i < ARRAY_SIZE(shrinkers); i++)
		CHECK(rtmm_shrinker_destroy(shrinkers[i]) == 0);
	CHECK_END();
}

static unsigned long count_objects(struct shrinker *shrinker, struct shrink_control *control)
{
	CHECK(shrinker->private_data == &kept && control->nid == 0);
	return kept_count == 0 ? SHRINK_EMPTY : (unsigned long)kept_count;
}

static unsigned long scan_objects(struct shrinker *shrinker, struct shrink_control *control)
{
	CHECK(shrinker->private_data == &kept);
	times_asked++;
	/* First it has no wish to. */
	return times_asked == 1 ? SHRINK_STOP : (unsigned long)give_kept(control->nr_to_scan);
}

void a_shrinker_of_linux_says_stop_and_gives(void)
{
	struct shrinker *shrinker;
	unsigned long page;
	CHECK_BEGIN();

	shrinker = shrinker_alloc(0, "%s of a test", "shrinker");
	CHECK(shrinker != NULL);
	shrinker->count_objects = count_objects;
	shrinker->scan_objects = scan_objects;
	shrinker->private_data = &kept;
	times_asked = 0;
	keep_everything();
	/* It is not registered yet. */
	CHECK(__get_free_page(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN) == 0 && times_asked == 0);
	shrinker_register(shrinker);
	CHECK(__get_free_page(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN) == 0 && times_asked == 1);
	page = __get_free_page(GFP_KERNEL);
	CHECK(page != 0 && times_asked == 2);
	free_page(page);
	give_kept(SIZE_MAX);
	shrinker_free(shrinker);
	shrinker_free(NULL);
	CHECK_END();
}

void a_deadline_that_is_over_does_not_wait_and_refuses_nothing_else(void)
{
	uintptr_t pages;
	size_t frame;
	void *object;
	CHECK_BEGIN();

	object = rtmm_kmalloc_deadline(100, GFP_KERNEL, 0);
	pages = rtmm_get_free_pages_deadline(GFP_KERNEL, 1, 0);
	frame = rtmm_alloc_pages_deadline(GFP_KERNEL, 1, 0);
	CHECK(object != NULL && pages != 0 && frame != 0);
	kfree(object);
	free_pages(pages, 1);
	__free_pages(pfn_to_page(frame), 1);
	CHECK(rtmm_kmalloc_deadline(0, GFP_KERNEL, 0) == ZERO_SIZE_PTR);
	CHECK(rtmm_kmalloc_deadline(SIZE_MAX, QUIET, UINT64_MAX) == NULL);
	CHECK(rtmm_kmalloc_deadline(8, (gfp_t)1 << 30, 0) == NULL);
	CHECK(rtmm_get_free_pages_deadline(QUIET, UINT32_MAX, UINT64_MAX) == 0);
	CHECK(rtmm_alloc_pages_deadline(QUIET, rtmm_max_order() + 1, UINT64_MAX) == 0);
	CHECK(rtmm_alloc_pages_deadline((gfp_t)1 << 30, 0, 0) == 0);
	keep_everything();
	CHECK(rtmm_get_free_pages_deadline(QUIET, 0, 0) == 0);
	CHECK(rtmm_alloc_pages_deadline(QUIET, 0, 0) == 0);
	give_kept(SIZE_MAX);
	CHECK_END();
}

void memory_that_ran_out_comes_back(void)
{
	void **list = NULL;
	void *block;
	CHECK_BEGIN();

	/* Each block's first word leads to the one before. */
	while ((block = kmalloc(PAGE_SIZE, GFP_NOWAIT | __GFP_NOWARN)) != NULL) {
		*(void **)block = (void *)list;
		list = (void **)block;
	}
	CHECK(list != NULL);
	CHECK(kmalloc(PAGE_SIZE, GFP_NOWAIT | __GFP_NOWARN) == NULL);
	CHECK(__get_free_pages(GFP_NOWAIT | __GFP_NOWARN, 1) == 0);
	CHECK(vmalloc(4 * PAGE_SIZE) == NULL);
	while (list != NULL) {
		block = (void *)list;
		list = (void **)*(void **)block;
		kfree(block);
	}
	CHECK_END();
}
