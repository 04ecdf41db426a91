/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the calls for caches promise to C. */
#include "check.h"

#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>

static char in_the_image[64];

struct chair {
	char legs[9];
	uint32_t seat;
};

void a_cache_gives_objects_of_its_size_and_alignment(void)
{
	char name[] = "chairs";
	struct kmem_cache *cache, *lines;
	void *objects[40];
	size_t i;
	CHECK_BEGIN();

	cache = kmem_cache_create(name, 72, 32, 0, NULL);
	/* The name was copied. */
	memset(name, 'x', sizeof(name) - 1);
	lines = kmem_cache_create("lines", 10, 0, SLAB_HWCACHE_ALIGN, NULL);
	CHECK(cache != NULL && lines != NULL);
	CHECK(kmem_cache_size(cache) == 72 && kmem_cache_size(lines) == 10);
	for (i = 0; i < ARRAY_SIZE(objects); i++) {
		objects[i] = kmem_cache_zalloc(cache, GFP_KERNEL);
		CHECK(objects[i] != NULL && aligned(objects[i], 32) && all_bytes_are(objects[i], 0, 72));
		memset(objects[i], (int)i, 72);
	}
	for (i = 0; i < ARRAY_SIZE(objects); i++) {
		CHECK(all_bytes_are(objects[i], (int)i, 72));
		kmem_cache_free(cache, objects[i]);
	}
	kmem_cache_destroy(cache);
	cache = KMEM_CACHE(chair, SLAB_HWCACHE_ALIGN);
	CHECK(cache != NULL && kmem_cache_size(cache) == sizeof(struct chair));
	objects[0] = kmem_cache_alloc(lines, GFP_ATOMIC);
	CHECK(objects[0] != NULL && aligned(objects[0], 32));
	kmem_cache_free(lines, objects[0]);
	kmem_cache_destroy(cache);
	kmem_cache_destroy(lines);
	CHECK_END();
}

void caches_that_make_no_sense_are_not_made(void)
{
	struct kmem_cache *cache;
	CHECK_BEGIN();

	CHECK(kmem_cache_create(NULL, 8, 0, 0, NULL) == NULL);
	CHECK(kmem_cache_create("", 8, 0, 0, NULL) == NULL);
	CHECK(kmem_cache_create("\xff\xfe", 8, 0, 0, NULL) == NULL);
	CHECK(kmem_cache_create("none", 0, 0, 0, NULL) == NULL);
	CHECK(kmem_cache_create("odd", 8, 3, 0, NULL) == NULL);
	CHECK(kmem_cache_create("vast", UINT32_MAX, 0, 0, NULL) == NULL);
	CHECK(kmem_cache_create("far", 8, 1u << 31, 0, NULL) == NULL);
	CHECK(kmem_cache_create("flags", 8, 0, 1, NULL) == NULL);
	cache = kmem_cache_create("twice", 8, 0, 0, NULL);
	CHECK(cache != NULL && kmem_cache_create("twice", 8, 0, 0, NULL) == NULL);
	CHECK(kmem_cache_alloc(cache, GFP_DMA) == NULL);
	kmem_cache_destroy(cache);
	cache = kmem_cache_create("twice", 8, 0, 0, NULL);
	CHECK(cache != NULL);
	kmem_cache_destroy(cache);
	CHECK_END();
}

static size_t built;

static void build(void *object)
{
	/* It may allocate: no lock is held. */
	kfree(kmalloc(16, GFP_NOWAIT));
	*(uint32_t *)object = 0xc0ffeeu;
	built++;
}

void a_constructor_runs_once_for_each_object_not_for_each_allocation(void)
{
	struct kmem_cache *cache;
	uint32_t *object;
	size_t before;
	CHECK_BEGIN();

	built = 0;
	cache = kmem_cache_create("built", 24, 0, 0, build);
	CHECK(cache != NULL && built == 0);
	object = (uint32_t *)kmem_cache_alloc(cache, GFP_KERNEL);
	CHECK(object != NULL && *object == 0xc0ffeeu && built > 0);
	before = built;
	*object = 0xfeedu;
	kmem_cache_free(cache, object);
	object = (uint32_t *)kmem_cache_alloc(cache, GFP_KERNEL);
	/* As it was left, or another that was made ready with it. */
	CHECK(object != NULL && (*object == 0xfeedu || *object == 0xc0ffeeu) && built == before);
	/* Zeroing would undo the constructor. */
	CHECK(kmem_cache_zalloc(cache, GFP_KERNEL) == NULL);
	kmem_cache_free(cache, object);
	kmem_cache_destroy(cache);
	CHECK_END();
}

void objects_come_and_go_in_bulk(void)
{
	struct kmem_cache *cache = kmem_cache_create("bulk", 40, 0, 0, NULL);
	void *objects[50];
	size_t i, j, bugs;
	CHECK_BEGIN();

	CHECK(cache != NULL);
	CHECK(kmem_cache_alloc_bulk(cache, GFP_KERNEL, ARRAY_SIZE(objects), objects) == (int)ARRAY_SIZE(objects));
	for (i = 0; i < ARRAY_SIZE(objects); i++)
		for (j = 0; j < i; j++)
			CHECK(objects[i] != NULL && objects[i] != objects[j]);
	kmem_cache_free(cache, objects[7]);
	/* The one that is free is told, the others go. */
	bugs = check_bugs();
	kmem_cache_free_bulk(cache, ARRAY_SIZE(objects), objects);
	CHECK(check_bugs() == bugs + 1 && check_bug_reason() == RTMM_FREE_DOUBLE);
	CHECK(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 4, NULL) == 0);
	CHECK(kmem_cache_alloc_bulk(cache, (gfp_t)1 << 30, 4, objects) == 0);
	CHECK(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 0, objects) == 0);
	CHECK(kmem_cache_alloc_bulk(cache, GFP_KERNEL, SIZE_MAX, objects) == 0);
	CHECK(kmem_cache_alloc_bulk(cache, GFP_KERNEL, (size_t)INT32_MAX + 1, objects) == 0);
	CHECK(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 1, (void **)(void *)((char *)objects + 1)) == 0);
	kmem_cache_free_bulk(cache, SIZE_MAX, objects);
	kmem_cache_free_bulk(cache, 1, NULL);
	kmem_cache_free_bulk(cache, 0, objects);
	CHECK(kmem_cache_shrink(cache) == 0);
	CHECK_END();
	kmem_cache_destroy(cache);
}

void objects_of_another_cache_are_refused(void)
{
	struct kmem_cache *left, *right;
	void *object, *plain;
	CHECK_BEGIN();

	left = kmem_cache_create("left", 64, 0, 0, NULL);
	right = kmem_cache_create("right", 64, 0, 0, NULL);
	CHECK(left != NULL && right != NULL);
	object = kmem_cache_alloc(left, GFP_KERNEL);
	plain = kmalloc(64, GFP_KERNEL);
	CHECK(object != NULL && plain != NULL);
	CHECK_REFUSED(RTMM_FREE_WRONG_CACHE, kmem_cache_free(right, object));
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, kmem_cache_free(left, plain));
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, kfree(object));
	CHECK_REFUSED(RTMM_FREE_INTERIOR, kmem_cache_free(left, (char *)object + 1));
	kmem_cache_free(left, NULL);
	kmem_cache_free(left, object);
	CHECK_REFUSED(RTMM_FREE_DOUBLE, kmem_cache_free(left, object));
	kfree(plain);
	kmem_cache_destroy(left);
	kmem_cache_destroy(right);
	CHECK_END();
}

void a_busy_cache_stays(void)
{
	struct kmem_cache *cache;
	void *object;
	size_t bugs;
	CHECK_BEGIN();

	cache = kmem_cache_create("busy", 64, 0, 0, NULL);
	CHECK(cache != NULL);
	object = kmem_cache_alloc(cache, GFP_KERNEL);
	CHECK(object != NULL);
	/* No other call takes a cache for memory. */
	CHECK_REFUSED(RTMM_FREE_INTERIOR, kfree((void *)cache));
	CHECK_REFUSED(RTMM_FREE_INTERIOR, CHECK(krealloc((void *)cache, 10, GFP_KERNEL) == NULL));
	CHECK_REFUSED(RTMM_FREE_INTERIOR, kvfree((void *)cache));
	bugs = check_bugs();
	kmem_cache_destroy(cache);
	CHECK(check_bugs() == bugs + 1 && check_bug_kind() == RTMM_BUG_CACHE_BUSY);
	kmem_cache_free(cache, object);
	kmem_cache_destroy(cache);
	CHECK(check_bugs() == bugs + 1);
	CHECK_REFUSED(RTMM_FREE_WRONG_CACHE, kmem_cache_destroy(cache));
	CHECK_END();
}

void pointers_that_are_no_cache_are_refused(void)
{
	struct kmem_cache *garbage[5];
	char *object;
	size_t i;
	CHECK_BEGIN();

	object = (char *)kzalloc(256, GFP_KERNEL);
	CHECK(object != NULL);
	garbage[0] = NULL;
	garbage[1] = (struct kmem_cache *)(uintptr_t)1;
	garbage[2] = (struct kmem_cache *)UINTPTR_MAX;
	garbage[3] = (struct kmem_cache *)(void *)object;
	garbage[4] = (struct kmem_cache *)(void *)in_the_image;
	for (i = 0; i < ARRAY_SIZE(garbage); i++) {
		CHECK_REFUSED(RTMM_FREE_WRONG_CACHE, CHECK(kmem_cache_alloc(garbage[i], GFP_KERNEL) == NULL));
		CHECK_REFUSED(RTMM_FREE_WRONG_CACHE, kmem_cache_free(garbage[i], object));
		CHECK(kmem_cache_size(garbage[i]) == 0);
		if (garbage[i] != NULL)
			CHECK_REFUSED(RTMM_FREE_WRONG_CACHE, kmem_cache_destroy(garbage[i]));
	}
	kfree(object);
	CHECK_END();
}
