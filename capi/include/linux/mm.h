/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Frames and their addresses. */
#ifndef RTMM_LINUX_MM_H
#define RTMM_LINUX_MM_H

#include <linux/errno.h>
#include <linux/gfp.h>
#include <linux/slab.h>

/* NULL for HIGHMEM, and for what is no RAM. */
static inline void *page_address(const struct page *page)
{
	return rtmm_page_address(page_to_pfn(page));
}

/* NULL for an address outside the direct map: of an area ask vmalloc_to_page. */
static inline struct page *virt_to_page(const void *addr)
{
	return pfn_to_page((unsigned long)rtmm_virt_to_pfn(addr));
}

static inline phys_addr_t page_to_phys(const struct page *page)
{
	return (phys_addr_t)page_to_pfn(page) << PAGE_SHIFT;
}

static inline struct page *nth_page(struct page *page, unsigned long n)
{
	return pfn_to_page(page_to_pfn(page) + n);
}

static inline bool is_vmalloc_addr(const void *addr)
{
	return rtmm_is_vmalloc_addr(addr);
}

static inline struct page *vmalloc_to_page(const void *addr)
{
	return pfn_to_page((unsigned long)rtmm_vmalloc_to_pfn(addr));
}

static inline unsigned long vmalloc_to_pfn(const void *addr)
{
	return (unsigned long)rtmm_vmalloc_to_pfn(addr);
}

/* False for what is no page in use, and for the 256th reference. */
static inline bool try_get_page(struct page *page)
{
	return rtmm_get_page(page_to_pfn(page));
}

static inline bool get_page_unless_zero(struct page *page)
{
	return rtmm_get_page(page_to_pfn(page));
}

/* For a page that is known to be in use. */
static inline void get_page(struct page *page)
{
	(void)rtmm_get_page(page_to_pfn(page));
}

/* With the last reference, the owner's too, the memory goes back. */
static inline void put_page(struct page *page)
{
	rtmm_put_page(page_to_pfn(page));
}

static inline int page_count(struct page *page)
{
	return rtmm_page_count(page_to_pfn(page));
}

static inline void split_page(struct page *page, unsigned int order)
{
	(void)rtmm_split_page(page_to_pfn(page), order);
}

/* The order whose block holds `size` bytes. */
static inline unsigned int get_order(unsigned long size)
{
	unsigned int order = 0;
	unsigned long pages = size == 0 ? 0 : (size - 1) >> PAGE_SHIFT;

	while (pages != 0) {
		pages >>= 1;
		order++;
	}
	return order;
}

#endif
