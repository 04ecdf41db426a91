/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* kmalloc and caches. */
#ifndef RTMM_LINUX_SLAB_H
#define RTMM_LINUX_SLAB_H

#include <linux/gfp.h>
#include <linux/types.h>

#define ZERO_SIZE_PTR ((void *)RTMM_ZERO_SIZE_PTR)
#define ZERO_OR_NULL_PTR(x) ((uintptr_t)(x) <= (uintptr_t)ZERO_SIZE_PTR)

#define SLAB_HWCACHE_ALIGN ((slab_flags_t)RTMM_SLAB_HWCACHE_ALIGN)
#define SLAB_CACHE_DMA ((slab_flags_t)RTMM_SLAB_CACHE_DMA)
/* Nobody is charged. */
#define SLAB_ACCOUNT ((slab_flags_t)0)
#define SLAB_RECLAIM_ACCOUNT ((slab_flags_t)0)

static inline void *kmalloc(size_t size, gfp_t flags)
{
	return rtmm_kmalloc(size, flags);
}

static inline void *kzalloc(size_t size, gfp_t flags)
{
	return rtmm_kzalloc(size, flags);
}

static inline void *kcalloc(size_t n, size_t size, gfp_t flags)
{
	return rtmm_kcalloc(n, size, flags);
}

static inline void *kmalloc_array(size_t n, size_t size, gfp_t flags)
{
	return rtmm_kmalloc_array(n, size, flags);
}

/* All memory is node 0's; -1 is any node. */
static inline void *kmalloc_node(size_t size, gfp_t flags, int node)
{
	return node == -1 || node == 0 ? kmalloc(size, flags) : NULL;
}

static inline void *kzalloc_node(size_t size, gfp_t flags, int node)
{
	return kmalloc_node(size, flags | __GFP_ZERO, node);
}

static inline void *kcalloc_node(size_t n, size_t size, gfp_t flags, int node)
{
	return node == -1 || node == 0 ? kcalloc(n, size, flags) : NULL;
}

static inline void *krealloc(const void *object, size_t size, gfp_t flags)
{
	return rtmm_krealloc((void *)(uintptr_t)object, size, flags);
}

static inline void *kmemdup(const void *src, size_t len, gfp_t flags)
{
	return rtmm_kmemdup(src, len, flags);
}

static inline char *kstrdup(const char *text, gfp_t flags)
{
	return rtmm_kstrdup(text, flags);
}

static inline void kfree(const void *object)
{
	rtmm_kfree(object);
}

static inline size_t ksize(const void *object)
{
	return rtmm_ksize(object);
}

static inline void *kvmalloc(size_t size, gfp_t flags)
{
	return rtmm_kvmalloc(size, flags);
}

static inline void *kvzalloc(size_t size, gfp_t flags)
{
	return rtmm_kvmalloc(size, flags | __GFP_ZERO);
}

static inline void *kvmalloc_node(size_t size, gfp_t flags, int node)
{
	return node == -1 || node == 0 ? kvmalloc(size, flags) : NULL;
}

static inline void *kvmalloc_array(size_t n, size_t size, gfp_t flags)
{
	return size != 0 && n > SIZE_MAX / size ? NULL : rtmm_kvmalloc(n * size, flags);
}

static inline void *kvcalloc(size_t n, size_t size, gfp_t flags)
{
	return rtmm_kvcalloc(n, size, flags);
}

static inline void kvfree(const void *object)
{
	rtmm_kvfree(object);
}

struct kmem_cache;

/* A constructor runs when a slab is made, as in Linux: objects are freed in the state they are to be found in. */
static inline struct kmem_cache *kmem_cache_create(const char *name, unsigned int size, unsigned int align,
						   slab_flags_t flags, void (*constructor)(void *))
{
	return (struct kmem_cache *)rtmm_kmem_cache_create(name, size, align, flags, constructor);
}

#if defined(__GNUC__)
/* A cache of structures of this name, which is the cache's too. */
#define KMEM_CACHE(type, flags)                                                                                        \
	kmem_cache_create(#type, sizeof(struct type), __alignof__(struct type), (flags), NULL)
#endif

static inline void *kmem_cache_alloc(struct kmem_cache *cache, gfp_t flags)
{
	return rtmm_kmem_cache_alloc((struct rtmm_cache *)cache, flags);
}

static inline void *kmem_cache_zalloc(struct kmem_cache *cache, gfp_t flags)
{
	return rtmm_kmem_cache_alloc((struct rtmm_cache *)cache, flags | __GFP_ZERO);
}

static inline void *kmem_cache_alloc_node(struct kmem_cache *cache, gfp_t flags, int node)
{
	return node == -1 || node == 0 ? kmem_cache_alloc(cache, flags) : NULL;
}

static inline void kmem_cache_free(struct kmem_cache *cache, void *object)
{
	rtmm_kmem_cache_free((struct rtmm_cache *)cache, object);
}

static inline int kmem_cache_alloc_bulk(struct kmem_cache *cache, gfp_t flags, size_t count, void **objects)
{
	return rtmm_kmem_cache_alloc_bulk((struct rtmm_cache *)cache, flags, count, objects);
}

static inline void kmem_cache_free_bulk(struct kmem_cache *cache, size_t count, void **objects)
{
	rtmm_kmem_cache_free_bulk((struct rtmm_cache *)cache, count, objects);
}

static inline int kmem_cache_shrink(struct kmem_cache *cache)
{
	return rtmm_kmem_cache_shrink((struct rtmm_cache *)cache);
}

static inline unsigned int kmem_cache_size(struct kmem_cache *cache)
{
	return rtmm_kmem_cache_size((struct rtmm_cache *)cache);
}

static inline void kmem_cache_destroy(struct kmem_cache *cache)
{
	rtmm_kmem_cache_destroy((struct rtmm_cache *)cache);
}

#endif
