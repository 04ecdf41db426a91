/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What each call promises to C: return values, alignment, NULL, size zero, overflow, and every wrong free. */
#include "check.h"

#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/set_memory.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

/* The values are promised to objects that were compiled earlier: written out here, not taken from the header. */
#define FROZEN(name, value) typedef char name##_is_frozen[(name) == (value) ? 1 : -1]
FROZEN(GFP_KERNEL, 0x400);
FROZEN(GFP_ATOMIC, 0x20);
FROZEN(GFP_NOWAIT, 0);
FROZEN(GFP_USER, 0x100400);
FROZEN(GFP_HIGHUSER, 0x100402);
FROZEN(GFP_DMA, 0x1);
FROZEN(GFP_DMA32, 0x4);
FROZEN(__GFP_HIGHMEM, 0x2);
FROZEN(__GFP_HIGH, 0x20);
FROZEN(__GFP_ZERO, 0x100);
FROZEN(__GFP_DIRECT_RECLAIM, 0x400);
FROZEN(__GFP_NOWARN, 0x2000);
FROZEN(__GFP_NORETRY, 0x10000);
FROZEN(__GFP_COMP, 0x40000);
FROZEN(__GFP_HARDWALL, 0x100000);
FROZEN(SLAB_HWCACHE_ALIGN, 0x2000);
FROZEN(SLAB_CACHE_DMA, 0x4000);
FROZEN(RTMM_ZERO_SIZE_PTR, 16);
FROZEN(RTMM_AREA_GUARDS, 1);
FROZEN(RTMM_AREA_GUARDS_KEPT, 2);
FROZEN(RTMM_AREA_LONG, 4);
FROZEN(RTMM_AREA_SMALL_ENTRIES, 8);

static char in_the_image[64];

void kmalloc_gives_memory_aligned_to_the_size(void)
{
	size_t size;
	CHECK_BEGIN();

	for (size = 1; size <= 4 * PAGE_SIZE; size = size < 64 ? size + 1 : size + size / 3) {
		size_t natural = size & (~size + 1);
		unsigned char *object = (unsigned char *)kmalloc(size, GFP_KERNEL);

		CHECK(object != NULL);
		CHECK(aligned(object, max_t(size_t, 8, min_t(size_t, natural, PAGE_SIZE))));
		CHECK(ksize(object) >= size);
		memset(object, 0xa5, ksize(object));
		CHECK(all_bytes_are(object, 0xa5, ksize(object)));
		kfree(object);
	}
	CHECK_END();
}

void size_zero_gives_the_sentinel_which_every_free_accepts(void)
{
	size_t bugs = check_bugs();
	CHECK_BEGIN();

	CHECK(kmalloc(0, GFP_KERNEL) == ZERO_SIZE_PTR);
	CHECK(kzalloc(0, GFP_KERNEL) == ZERO_SIZE_PTR);
	CHECK(kcalloc(0, 8, GFP_KERNEL) == ZERO_SIZE_PTR);
	CHECK(kmalloc_array(8, 0, GFP_KERNEL) == ZERO_SIZE_PTR);
	CHECK(kvmalloc(0, GFP_KERNEL) == ZERO_SIZE_PTR);
	CHECK(ZERO_OR_NULL_PTR(ZERO_SIZE_PTR) && ZERO_OR_NULL_PTR(NULL) && !ZERO_OR_NULL_PTR(&bugs));
	CHECK(ksize(ZERO_SIZE_PTR) == 0);
	kfree(ZERO_SIZE_PTR);
	kvfree(ZERO_SIZE_PTR);
	CHECK(check_bugs() == bugs);
	CHECK_END();
}

void kzalloc_and_kcalloc_give_zeroes(void)
{
	int round;
	CHECK_BEGIN();

	for (round = 0; round < 2; round++) {
		unsigned char *one = (unsigned char *)kzalloc(200, GFP_KERNEL);
		unsigned char *many = (unsigned char *)kcalloc(25, 8, GFP_KERNEL);
		unsigned char *pages = (unsigned char *)kzalloc(2 * PAGE_SIZE + 1, GFP_KERNEL);

		CHECK(one != NULL && many != NULL && pages != NULL);
		CHECK(all_bytes_are(one, 0, ksize(one)));
		CHECK(all_bytes_are(many, 0, ksize(many)));
		CHECK(all_bytes_are(pages, 0, ksize(pages)));
		/* So that the second round finds memory that was used. */
		memset(one, 0xff, ksize(one));
		memset(many, 0xff, ksize(many));
		memset(pages, 0xff, ksize(pages));
		kfree(one);
		kfree(many);
		kfree(pages);
	}
	CHECK_END();
}

void there_is_one_node(void)
{
	static const int others[] = { 1, 2, -2, 0x7fffffff };
	struct kmem_cache *cache;
	void *objects[8];
	struct page *page;
	size_t i, node;
	CHECK_BEGIN();

	cache = kmem_cache_create("noded", 64, 0, SLAB_ACCOUNT, NULL);
	CHECK(cache != NULL);
	for (node = 0; node < 2; node++) {
		objects[4 * node] = kmalloc_node(100, GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL, -(int)node);
		objects[4 * node + 1] = kzalloc_node(100, GFP_NOIO, -(int)node);
		objects[4 * node + 2] = kcalloc_node(10, 10, GFP_NOFS, -(int)node);
		objects[4 * node + 3] = kvmalloc_node(100, GFP_KERNEL, -(int)node);
		page = alloc_pages_node(-(int)node, GFP_KERNEL, 1);
		CHECK(page != NULL);
		__free_pages(page, 1);
		kmem_cache_free(cache, kmem_cache_alloc_node(cache, GFP_KERNEL, -(int)node));
	}
	for (i = 0; i < ARRAY_SIZE(objects); i++) {
		CHECK(objects[i] != NULL && (i % 4 == 0 || i % 4 == 3 || all_bytes_are(objects[i], 0, 100)));
		kfree(objects[i]);
	}
	for (i = 0; i < ARRAY_SIZE(others); i++) {
		CHECK(kmalloc_node(100, GFP_KERNEL, others[i]) == NULL && kzalloc_node(8, GFP_KERNEL, others[i]) == NULL);
		CHECK(kcalloc_node(1, 8, GFP_KERNEL, others[i]) == NULL && kvmalloc_node(8, GFP_KERNEL, others[i]) == NULL);
		CHECK(alloc_pages_node(others[i], GFP_KERNEL, 0) == NULL);
		CHECK(kmem_cache_alloc_node(cache, GFP_KERNEL, others[i]) == NULL);
	}
	kmem_cache_destroy(cache);
	CHECK_END();
}

void products_that_overflow_give_null(void)
{
	CHECK_BEGIN();

	CHECK(kcalloc(SIZE_MAX, 2, QUIET) == NULL);
	CHECK(kcalloc(2, SIZE_MAX / 2 + 1, QUIET) == NULL);
	CHECK(kmalloc_array(SIZE_MAX / 4 + 2, 4, QUIET) == NULL);
	CHECK(kmalloc_array(SIZE_MAX, SIZE_MAX, QUIET) == NULL);
	CHECK_END();
}

void sizes_past_the_largest_block_give_null(void)
{
	size_t largest = PAGE_SIZE << rtmm_max_order();
	size_t i;
	const size_t absurd[] = { SIZE_MAX, SIZE_MAX - 1, SIZE_MAX - PAGE_SIZE, SIZE_MAX - PAGE_SIZE + 1, SIZE_MAX / 2 };
	CHECK_BEGIN();

	CHECK(kmalloc(largest + 1, QUIET) == NULL);
	CHECK(alloc_pages_exact(largest + 1, QUIET) == NULL);
	for (i = 0; i < ARRAY_SIZE(absurd); i++) {
		CHECK(kmalloc(absurd[i], QUIET) == NULL);
		CHECK(kzalloc(absurd[i], QUIET) == NULL);
		CHECK(kvmalloc(absurd[i], QUIET) == NULL);
		CHECK(vmalloc(absurd[i]) == NULL);
		CHECK(vzalloc(absurd[i]) == NULL);
		CHECK(alloc_pages_exact(absurd[i], QUIET) == NULL);
	}
	CHECK_END();
}

void unknown_flags_give_null(void)
{
	gfp_t known = GFP_KERNEL | GFP_HIGHUSER | GFP_ATOMIC | GFP_DMA | GFP_DMA32 | __GFP_ZERO | __GFP_NOWARN |
		      __GFP_NORETRY | __GFP_COMP;
	struct kmem_cache *cache = kmem_cache_create("flags", 64, 0, 0, NULL);
	unsigned int bit;
	CHECK_BEGIN();

	CHECK(cache != NULL);
	for (bit = 0; bit < 32; bit++) {
		gfp_t flags = (gfp_t)1 << bit;

		if (known & flags)
			continue;
		CHECK(kmalloc(64, flags) == NULL);
		CHECK(kzalloc(64, flags) == NULL);
		CHECK(kvmalloc(64, flags) == NULL);
		CHECK(krealloc(NULL, 64, flags) == NULL);
		CHECK(__get_free_pages(flags, 0) == 0);
		CHECK(alloc_pages(flags, 0) == NULL);
		CHECK(alloc_pages_exact(64, flags) == NULL);
		CHECK(kmem_cache_alloc(cache, flags) == NULL);
	}
	CHECK(kmalloc(64, GFP_DMA | __GFP_HIGHMEM) == NULL);
	CHECK(alloc_pages(GFP_DMA | __GFP_HIGHMEM, 0) == NULL);
	CHECK_END();
	kmem_cache_destroy(cache);
}

void krealloc_grows_shrinks_frees_and_keeps_the_old_block_on_failure(void)
{
	unsigned char *object, *moved;
	size_t bugs = check_bugs();
	CHECK_BEGIN();

	object = (unsigned char *)krealloc(NULL, 40, GFP_KERNEL);
	CHECK(object != NULL);
	memset(object, 0x5a, 40);
	CHECK(krealloc(object, ksize(object), GFP_KERNEL) == object);
	CHECK(krealloc(object, 1, GFP_KERNEL) == object);
	moved = (unsigned char *)krealloc(object, 3 * PAGE_SIZE, GFP_KERNEL);
	CHECK(moved != NULL && all_bytes_are(moved, 0x5a, 40));
	CHECK(krealloc(moved, SIZE_MAX, QUIET) == NULL);
	CHECK(all_bytes_are(moved, 0x5a, 40) && ksize(moved) >= 3 * PAGE_SIZE);
	CHECK(krealloc(moved, 0, GFP_KERNEL) == ZERO_SIZE_PTR);
	object = (unsigned char *)krealloc(ZERO_SIZE_PTR, 8, GFP_KERNEL);
	CHECK(object != NULL && object != ZERO_SIZE_PTR);
	CHECK(check_bugs() == bugs);
	CHECK_REFUSED(RTMM_FREE_INTERIOR, CHECK(krealloc(object + 1, 100, GFP_KERNEL) == NULL));
	kfree(object);
	CHECK_REFUSED(RTMM_FREE_DOUBLE, CHECK(krealloc(object, 100, GFP_KERNEL) == NULL));
	CHECK_END();
}

void copies_equal_their_source(void)
{
	static const char text[] = "seventeen letters";
	char *copy, *string;
	CHECK_BEGIN();

	copy = (char *)kmemdup(text, sizeof(text), GFP_KERNEL);
	string = kstrdup(text, GFP_KERNEL);
	CHECK(copy != NULL && memcmp(copy, text, sizeof(text)) == 0);
	CHECK(string != NULL && memcmp(string, text, sizeof(text)) == 0);
	CHECK(kstrdup(NULL, GFP_KERNEL) == NULL);
	CHECK(kmemdup(NULL, 4, GFP_KERNEL) == NULL);
	CHECK(kmemdup(text, 0, GFP_KERNEL) == ZERO_SIZE_PTR);
	kfree(copy);
	kfree(string);
	string = kstrdup("", GFP_KERNEL);
	CHECK(string != NULL && string[0] == 0);
	kfree(string);
	CHECK_END();
}

void frees_of_null_do_nothing(void)
{
	size_t bugs = check_bugs();
	CHECK_BEGIN();

	kfree(NULL);
	kvfree(NULL);
	vfree(NULL);
	iounmap(NULL);
	free_page(0);
	free_pages(0, 3);
	__free_pages(NULL, 0);
	free_pages_exact(NULL, 100);
	kmem_cache_destroy(NULL);
	CHECK(ksize(NULL) == 0);
	CHECK(check_bugs() == bugs);
	CHECK_END();
}

void an_object_freed_twice_is_told(void)
{
	void *first, *second, *large, *exact;
	unsigned long page;
	CHECK_BEGIN();

	first = kmalloc(100, GFP_KERNEL);
	second = kmalloc(100, GFP_KERNEL);
	large = kmalloc(3 * PAGE_SIZE, GFP_KERNEL);
	page = __get_free_page(GFP_KERNEL);
	exact = alloc_pages_exact(3 * PAGE_SIZE, GFP_KERNEL);
	CHECK(first != NULL && second != NULL && large != NULL && page != 0 && exact != NULL);
	kfree(first);
	CHECK_REFUSED(RTMM_FREE_DOUBLE, kfree(first));
	kfree(second);
	CHECK_REFUSED(RTMM_FREE_DOUBLE, kfree(first));
	kfree(large);
	CHECK_REFUSED(RTMM_FREE_DOUBLE, kfree(large));
	free_page(page);
	CHECK_REFUSED(RTMM_FREE_DOUBLE, free_page(page));
	free_pages_exact(exact, 3 * PAGE_SIZE);
	CHECK_REFUSED(RTMM_FREE_DOUBLE, free_pages_exact(exact, 3 * PAGE_SIZE));
	CHECK_END();
}

void interior_pointers_are_refused(void)
{
	char *small, *large;
	unsigned long pages;
	CHECK_BEGIN();

	small = (char *)kmalloc(100, GFP_KERNEL);
	large = (char *)kmalloc(3 * PAGE_SIZE, GFP_KERNEL);
	pages = __get_free_pages(GFP_KERNEL, 2);
	CHECK(small != NULL && large != NULL && pages != 0);
	CHECK_REFUSED(RTMM_FREE_INTERIOR, kfree(small + 1));
	CHECK_REFUSED(RTMM_FREE_INTERIOR, kfree(small + 8));
	CHECK_REFUSED(RTMM_FREE_INTERIOR, kfree(large + 1));
	CHECK_REFUSED(RTMM_FREE_INTERIOR, kfree(large + PAGE_SIZE));
	CHECK_REFUSED(RTMM_FREE_INTERIOR, CHECK(ksize(small + 1) == 0));
	CHECK_REFUSED(RTMM_FREE_INTERIOR, free_pages(pages + PAGE_SIZE, 1));
	CHECK_REFUSED(RTMM_FREE_MISALIGNED, free_pages(pages + 8, 2));
	kfree(small);
	kfree(large);
	free_pages(pages, 2);
	CHECK_END();
}

/* Where the image lies in RAM its pages are reserved; elsewhere they are nobody's. */
static void refuse_as_outside(void *pointer)
{
	size_t bugs = check_bugs();

	kfree(pointer);
	CHECK(check_bugs() == bugs + 1 && check_bug_kind() == RTMM_BUG_BAD_FREE);
	CHECK(check_bug_reason() == RTMM_FREE_FOREIGN || check_bug_reason() == RTMM_FREE_RESERVED);
}

void foreign_pointers_are_refused(void)
{
	char on_the_stack[64];
	size_t i;
	/* What is left of a pointer that was written over. */
	const uintptr_t garbage[] = { 1, 15, 17, 4095, UINTPTR_MAX, UINTPTR_MAX - 15, (uintptr_t)0xdeadbeefu };
	CHECK_BEGIN();

	refuse_as_outside(on_the_stack);
	refuse_as_outside(in_the_image);
	refuse_as_outside((void *)(uintptr_t)foreign_pointers_are_refused);
	for (i = 0; i < ARRAY_SIZE(garbage); i++) {
		size_t bugs = check_bugs();

		kfree((void *)garbage[i]);
		vfree((void *)garbage[i]);
		iounmap((void *)garbage[i]);
		free_pages(garbage[i], 0);
		free_pages_exact((void *)garbage[i], 1);
		__free_pages(pfn_to_page(garbage[i]), 40);
		kvfree((void *)garbage[i]);
		vunmap((void *)garbage[i]);
		vm_unmap_ram((void *)garbage[i], 1);
		CHECK(ksize((void *)garbage[i]) == 0);
		CHECK(krealloc((void *)garbage[i], 10, GFP_KERNEL) == NULL);
		CHECK(vrealloc((void *)garbage[i], 10, GFP_KERNEL) == NULL);
		CHECK(check_bugs() == bugs + 12);
		CHECK(vmalloc_to_page((void *)garbage[i]) == NULL && rtmm_page_count(garbage[i]) == 0);
		CHECK(rtmm_shrinker_destroy((struct rtmm_shrinker *)garbage[i]) == -RTMM_EINVAL);
	}
	CHECK_END();
}

void frees_by_the_wrong_call_are_refused(void)
{
	void *object, *large, *area, *whole;
	unsigned long page;
	CHECK_BEGIN();

	object = kmalloc(100, GFP_KERNEL);
	whole = kmalloc(PAGE_SIZE, GFP_KERNEL);
	CHECK(whole != NULL);
	large = kmalloc(2 * PAGE_SIZE, GFP_KERNEL);
	area = vmalloc(2 * PAGE_SIZE);
	page = __get_free_pages(GFP_KERNEL, 1);
	CHECK(object != NULL && large != NULL && area != NULL && page != 0);
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, kfree(area));
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, kfree((void *)page));
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, vfree(large));
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, vfree((void *)page));
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, free_pages((unsigned long)large, 1));
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, free_page((unsigned long)whole));
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, free_pages((unsigned long)area, 1));
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, iounmap(area));
	CHECK_REFUSED(RTMM_FREE_WRONG_ORDER, free_pages(page, 0));
	CHECK_REFUSED(RTMM_FREE_WRONG_ORDER, free_pages(page, 2));
	CHECK_REFUSED(RTMM_FREE_WRONG_ORDER, free_pages(page, UINT32_MAX));
	CHECK_REFUSED(RTMM_FREE_WRONG_ORDER, free_pages_exact((void *)page, PAGE_SIZE));
	kfree(object);
	kfree(whole);
	kfree(large);
	vfree(area);
	free_pages(page, 1);
	CHECK_END();
}

void pages_are_aligned_to_their_order_and_freed_with_it(void)
{
	unsigned int order;
	unsigned long zeroed;
	CHECK_BEGIN();

	for (order = 0; order <= 3; order++) {
		unsigned long pages = __get_free_pages(GFP_KERNEL | __GFP_ZERO, order);

		CHECK(pages != 0 && (pages & ((PAGE_SIZE << order) - 1)) == 0);
		CHECK(all_bytes_are((void *)pages, 0, PAGE_SIZE << order));
		memset((void *)pages, 0x77, PAGE_SIZE << order);
		free_pages(pages, order);
	}
	zeroed = get_zeroed_page(GFP_KERNEL);
	CHECK(zeroed != 0 && all_bytes_are((void *)zeroed, 0, PAGE_SIZE));
	free_page(zeroed);
	CHECK(get_order(0) == 0 && get_order(1) == 0 && get_order(PAGE_SIZE) == 0);
	CHECK(get_order(PAGE_SIZE + 1) == 1 && get_order(4 * PAGE_SIZE) == 2);
	CHECK_END();
}

void orders_past_the_largest_give_zero(void)
{
	CHECK_BEGIN();

	CHECK(__get_free_pages(QUIET, rtmm_max_order() + 1) == 0);
	CHECK(__get_free_pages(QUIET, 63) == 0);
	CHECK(__get_free_pages(QUIET, UINT32_MAX) == 0);
	CHECK(alloc_pages(QUIET, UINT32_MAX) == NULL);
	CHECK_END();
}

void exact_pages_give_their_tail_back(void)
{
	size_t free_before;
	char *pages;
	CHECK_BEGIN();

	free_before = rtmm_nr_free_pages();
	pages = (char *)alloc_pages_exact(2 * PAGE_SIZE + 1, GFP_KERNEL);
	CHECK(pages != NULL && aligned(pages, 4 * PAGE_SIZE));
	CHECK(rtmm_nr_free_pages() == free_before - 3);
	free_pages_exact(pages, 3 * PAGE_SIZE);
	CHECK(alloc_pages_exact(0, GFP_KERNEL) == NULL);
	CHECK_END();
}

void frames_and_addresses_lead_to_each_other(void)
{
	struct page *page;
	char *address;
	void *area;
	CHECK_BEGIN();

	page = alloc_pages(GFP_KERNEL, 1);
	CHECK(page != NULL);
	address = (char *)page_address(page);
	CHECK(address != NULL && virt_to_page(address) == page && virt_to_page(address + 5) == page);
	CHECK(virt_to_page(address + PAGE_SIZE) == page + 1 && nth_page(page, 1) == page + 1);
	CHECK(pfn_to_page(page_to_pfn(page)) == page);
	CHECK(page_to_phys(page) == (phys_addr_t)page_to_pfn(page) * PAGE_SIZE);
	CHECK(page_address(pfn_to_page(UINT32_MAX)) == NULL && page_address(NULL) == NULL);
	CHECK(virt_to_page((void *)UINTPTR_MAX) == NULL);
	CHECK_REFUSED(RTMM_FREE_INTERIOR, __free_pages(page + 1, 0));
	__free_pages(page, 1);
	CHECK_REFUSED(RTMM_FREE_DOUBLE, __free_pages(page, 1));

	area = vmalloc(3 * PAGE_SIZE);
	CHECK(area != NULL && is_vmalloc_addr(area) && vmalloc_to_page(area) != NULL);
	CHECK(vmalloc_to_page((char *)area + PAGE_SIZE) != vmalloc_to_page(area));
	vfree(area);
	CHECK(vmalloc_to_page(area) == NULL);
	CHECK_END();
}

void pages_come_in_bulk_into_the_empty_entries(void)
{
	struct page *pages[40] = { NULL };
	struct page *mine = alloc_page(GFP_KERNEL);
	/* More than a batch of the manager's, where there is room for so many. */
	size_t i, j, n = min_t(size_t, ARRAY_SIZE(pages), ((size_t)1 << rtmm_max_order()) / 2);
	CHECK_BEGIN();

	CHECK(mine != NULL);
	pages[3] = mine;
	CHECK(alloc_pages_bulk_array(GFP_KERNEL, n, pages) == n);
	CHECK(pages[3] == mine);
	for (i = 0; i < n; i++)
		for (j = 0; j < i; j++)
			CHECK(pages[i] != NULL && pages[i] != pages[j]);
	for (i = 0; i < n; i++)
		if (i != 3)
			__free_page(pages[i]);
	CHECK(alloc_pages_bulk_array(GFP_KERNEL, 5, NULL) == 0);
	CHECK(alloc_pages_bulk_array(GFP_KERNEL, 0, pages) == 0);
	CHECK(rtmm_alloc_pages_bulk(GFP_KERNEL, SIZE_MAX, (uintptr_t *)(void *)pages) == 0);
	CHECK(rtmm_alloc_pages_bulk(GFP_KERNEL, 1, (uintptr_t *)(void *)((char *)pages + 1)) == 0);
	CHECK(alloc_pages_bulk_array((gfp_t)1 << 30, 1, pages) == 0);
	CHECK_END();
	__free_page(mine);
}

void a_split_block_is_freed_page_by_page(void)
{
	struct page *block;
	unsigned int i;
	CHECK_BEGIN();

	block = alloc_pages(GFP_KERNEL, 2);
	CHECK(block != NULL);
	CHECK(rtmm_split_page(page_to_pfn(block), 1) == -RTMM_EINVAL);
	CHECK(rtmm_split_page(page_to_pfn(block), UINT32_MAX) == -RTMM_EINVAL);
	split_page(block, 2);
	CHECK_REFUSED(RTMM_FREE_WRONG_ORDER, __free_pages(block, 2));
	for (i = 0; i < 4; i++)
		__free_page(block + i);
	CHECK(rtmm_split_page(page_to_pfn(block), 2) == -RTMM_EINVAL);
	CHECK_END();
}

void a_referenced_page_outlives_its_owner_and_its_tail_does_not(void)
{
	struct page *block;
	size_t before;
	CHECK_BEGIN();

	before = rtmm_nr_free_pages();
	block = alloc_pages(GFP_KERNEL, 2);
	CHECK(block != NULL && page_count(block) == 1);
	CHECK(try_get_page(block) && page_count(block) == 2);
	__free_pages(block, 2);
	/* The first page is held; the other three are back. */
	CHECK(page_count(block) == 1 && rtmm_nr_free_pages() == before - 1);
	put_page(block);
	CHECK(page_count(block) == 0 && rtmm_nr_free_pages() == before);

	block = alloc_pages(GFP_KERNEL | __GFP_COMP, 2);
	CHECK(block != NULL && try_get_page(block + 3));
	__free_pages(block, 2);
	CHECK(rtmm_nr_free_pages() == before - 4);
	put_page(block + 3);
	CHECK(rtmm_nr_free_pages() == before);
	CHECK_END();
}

void the_last_one_to_put_a_page_frees_it(void)
{
	struct page *page;
	size_t before;
	CHECK_BEGIN();

	before = rtmm_nr_free_pages();
	page = alloc_page(GFP_KERNEL);
	CHECK(page != NULL);
	get_page(page);
	put_page(page);
	CHECK(rtmm_nr_free_pages() == before - 1);
	put_page(page);
	CHECK(rtmm_nr_free_pages() == before);
	CHECK_REFUSED(RTMM_FREE_DOUBLE, put_page(page));

	page = alloc_pages(GFP_KERNEL | __GFP_COMP, 3);
	CHECK(page != NULL);
	put_page(page);
	CHECK(rtmm_nr_free_pages() == before);
	CHECK_END();
}

void references_to_what_is_no_page_are_refused(void)
{
	struct page *page;
	void *object;
	int i;
	CHECK_BEGIN();

	object = kmalloc(3 * PAGE_SIZE, GFP_KERNEL);
	page = alloc_page(GFP_KERNEL);
	CHECK(object != NULL && page != NULL);
	CHECK(!try_get_page(NULL) && page_count(NULL) == 0);
	CHECK(!try_get_page(pfn_to_page(UINT32_MAX)) && !get_page_unless_zero(virt_to_page(object)));
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, put_page(virt_to_page(object)));
	CHECK_REFUSED(RTMM_FREE_FOREIGN, put_page(pfn_to_page(UINT32_MAX)));
	for (i = 0; i < 255; i++)
		CHECK(try_get_page(page));
	CHECK(!try_get_page(page) && page_count(page) == 256);
	for (i = 0; i < 256; i++)
		put_page(page);
	CHECK(!try_get_page(page));
	kfree(object);
	CHECK_END();
}

void warnings_give_their_condition(void)
{
	int times, value = 0;
	CHECK_BEGIN();

	CHECK(!WARN_ON(value) && !WARN(value, "%d\n", value));
	CHECK(WARN_ON(value == 0) && WARN(++value == 1, "%d is one\n", value));
	CHECK(value == 1);
	WARN(value == 1, "nobody looks\n");
	for (times = 0; times < 3; times++)
		CHECK(WARN_ON_ONCE(value++ < 3) == (times < 2));
	WARN_ON_ONCE(value == 0);
	BUG_ON(value != 4);
	CHECK_END();
}

static void *from_interrupt;

static void allocate_atomic(void)
{
	from_interrupt = kmalloc(48, GFP_ATOMIC);
}

static void allocate_as_a_task(void)
{
	from_interrupt = kmalloc(48, GFP_KERNEL);
}

void gfp_atomic_works_where_nothing_may_wait(void)
{
	size_t bugs = check_bugs();
	CHECK_BEGIN();

	check_in_interrupt(allocate_atomic);
	CHECK(from_interrupt != NULL && check_bugs() == bugs);
	kfree(from_interrupt);
	check_in_interrupt(allocate_as_a_task);
	/* Told once, and served all the same. */
	CHECK(from_interrupt != NULL && check_bugs() == bugs + 1);
	CHECK(check_bug_kind() == RTMM_BUG_MAY_WAIT_IN_ATOMIC);
	kfree(from_interrupt);
	check_in_interrupt(allocate_as_a_task);
	CHECK(from_interrupt != NULL && check_bugs() == bugs + 1);
	kfree(from_interrupt);
	CHECK_END();
}
