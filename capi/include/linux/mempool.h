/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Pools of elements set aside: of kmalloc, of a cache, of pages, or of functions of the caller's. A pool sets 1 to 64
 * aside. Of the last kind frees are checked only as far as those functions do.
 */
#ifndef RTMM_LINUX_MEMPOOL_H
#define RTMM_LINUX_MEMPOOL_H

#include <linux/gfp.h>
#include <linux/slab.h>

typedef struct mempool_s mempool_t;
typedef void *(mempool_alloc_t)(gfp_t flags, void *pool_data);
typedef void (mempool_free_t)(void *element, void *pool_data);

static inline mempool_t *mempool_create(int min, mempool_alloc_t *alloc, mempool_free_t *release, void *pool_data)
{
	/* Where uint32_t is no unsigned int it is as long. */
	return (mempool_t *)rtmm_mempool_create(min, (void *(*)(uint32_t, void *))alloc, release, pool_data);
}

/* Linux's own functions for mempool_create: objects of a cache, of kmalloc, and pages. */
static inline void *mempool_alloc_slab(gfp_t flags, void *cache)
{
	return kmem_cache_alloc((struct kmem_cache *)cache, flags);
}

static inline void mempool_free_slab(void *element, void *cache)
{
	kmem_cache_free((struct kmem_cache *)cache, element);
}

static inline void *mempool_kmalloc(gfp_t flags, void *size)
{
	return kmalloc((size_t)(uintptr_t)size, flags);
}

static inline void mempool_kfree(void *element, void *size)
{
	(void)size;
	kfree(element);
}

static inline void *mempool_alloc_pages(gfp_t flags, void *order)
{
	return alloc_pages(flags, (unsigned int)(uintptr_t)order);
}

static inline void mempool_free_pages(void *element, void *order)
{
	__free_pages((struct page *)element, (unsigned int)(uintptr_t)order);
}

static inline mempool_t *mempool_create_kmalloc_pool(int min, size_t size)
{
	return (mempool_t *)rtmm_mempool_create_kmalloc_pool(min, size);
}

static inline mempool_t *mempool_create_slab_pool(int min, struct kmem_cache *cache)
{
	return (mempool_t *)rtmm_mempool_create_slab_pool(min, (struct rtmm_cache *)cache);
}

/* Its elements are struct page *. */
static inline mempool_t *mempool_create_page_pool(int min, int order)
{
	return (mempool_t *)rtmm_mempool_create_page_pool(min, order);
}

static inline void *mempool_alloc(mempool_t *pool, gfp_t flags)
{
	return rtmm_mempool_alloc((struct rtmm_mempool *)pool, flags);
}

static inline void mempool_free(void *element, mempool_t *pool)
{
	rtmm_mempool_free(element, (struct rtmm_mempool *)pool);
}

static inline int mempool_resize(mempool_t *pool, int min)
{
	return rtmm_mempool_resize((struct rtmm_mempool *)pool, min);
}

static inline void mempool_destroy(mempool_t *pool)
{
	rtmm_mempool_destroy((struct rtmm_mempool *)pool);
}

#endif
