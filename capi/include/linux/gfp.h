/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Allocation flags and whole pages.
 *
 * A `struct page *` is a frame's number in the shape of a pointer: it is compared, added to (page + 1 is the next
 * frame) and handed back, and never followed. NULL is no frame.
 */
#ifndef RTMM_LINUX_GFP_H
#define RTMM_LINUX_GFP_H

#include <asm/page.h>
#include <linux/types.h>

/* The values are rtmm's own and do not change; Linux's differ from release to release. */
#define __GFP_DMA ((gfp_t)RTMM___GFP_DMA)
#define __GFP_HIGHMEM ((gfp_t)RTMM___GFP_HIGHMEM)
#define __GFP_DMA32 ((gfp_t)RTMM___GFP_DMA32)
#define __GFP_HIGH ((gfp_t)RTMM___GFP_HIGH)
#define __GFP_ZERO ((gfp_t)RTMM___GFP_ZERO)
#define __GFP_DIRECT_RECLAIM ((gfp_t)RTMM___GFP_DIRECT_RECLAIM)
#define __GFP_NOWARN ((gfp_t)RTMM___GFP_NOWARN)
#define __GFP_NORETRY ((gfp_t)RTMM___GFP_NORETRY)
#define __GFP_COMP ((gfp_t)RTMM___GFP_COMP)
#define __GFP_HARDWALL ((gfp_t)RTMM___GFP_HARDWALL)

#define GFP_KERNEL ((gfp_t)RTMM_GFP_KERNEL)
#define GFP_USER ((gfp_t)RTMM_GFP_USER)
#define GFP_HIGHUSER ((gfp_t)RTMM_GFP_HIGHUSER)
#define GFP_ATOMIC ((gfp_t)RTMM_GFP_ATOMIC)
#define GFP_NOWAIT ((gfp_t)RTMM_GFP_NOWAIT)
#define GFP_DMA __GFP_DMA
#define GFP_DMA32 __GFP_DMA32
/* What a shrinker does is not known here, so who must not start I/O calls none. */
#define GFP_NOIO GFP_NOWAIT
#define GFP_NOFS GFP_NOWAIT
/* Nobody is charged, and every request tries for a bounded time and may fail: these ask for what is so anyway. */
#define __GFP_ACCOUNT ((gfp_t)0)
#define __GFP_RETRY_MAYFAIL ((gfp_t)0)
#define GFP_KERNEL_ACCOUNT GFP_KERNEL

struct page {
	unsigned char opaque;
};

static inline struct page *pfn_to_page(unsigned long pfn)
{
	return (struct page *)(uintptr_t)pfn;
}

static inline unsigned long page_to_pfn(const struct page *page)
{
	return (unsigned long)(uintptr_t)page;
}

static inline unsigned long __get_free_pages(gfp_t flags, unsigned int order)
{
	return (unsigned long)rtmm_get_free_pages(flags, order);
}

#define __get_free_page(flags) __get_free_pages((flags), 0)

static inline unsigned long get_zeroed_page(gfp_t flags)
{
	return (unsigned long)rtmm_get_zeroed_page(flags);
}

static inline void free_pages(unsigned long addr, unsigned int order)
{
	rtmm_free_pages(addr, order);
}

#define free_page(addr) free_pages((addr), 0)

static inline struct page *alloc_pages(gfp_t flags, unsigned int order)
{
	return (struct page *)(uintptr_t)rtmm_alloc_pages(flags, order);
}

#define alloc_page(flags) alloc_pages((flags), 0)

/* All memory is node 0's; -1 is any node. */
static inline struct page *alloc_pages_node(int node, gfp_t flags, unsigned int order)
{
	return node == -1 || node == 0 ? alloc_pages(flags, order) : NULL;
}

static inline void __free_pages(struct page *page, unsigned int order)
{
	rtmm_free_pages_frame(page_to_pfn(page), order);
}

#define __free_page(page) __free_pages((page), 0)

/* Fills the entries that are NULL; how many entries from the start on are filled then. */
static inline unsigned long alloc_pages_bulk_array(gfp_t flags, unsigned long count, struct page **pages)
{
	return (unsigned long)rtmm_alloc_pages_bulk(flags, count, (uintptr_t *)(void *)pages);
}

static inline void *alloc_pages_exact(size_t size, gfp_t flags)
{
	return rtmm_alloc_pages_exact(size, flags);
}

static inline void free_pages_exact(void *start, size_t size)
{
	rtmm_free_pages_exact(start, size);
}

#endif
