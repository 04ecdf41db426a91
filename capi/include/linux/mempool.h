/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Pools of elements set aside: of kmalloc, of a cache, of pages. A pool sets 1 to 64 aside. Pools over functions of the
 * caller's (mempool_create) are not offered: their frees could not be checked.
 */
#ifndef RTMM_LINUX_MEMPOOL_H
#define RTMM_LINUX_MEMPOOL_H

#include <linux/gfp.h>
#include <linux/slab.h>

typedef struct mempool_s mempool_t;

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
