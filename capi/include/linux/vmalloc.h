/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Virtually contiguous memory: scattered pages with an MMU, contiguous ones without. */
#ifndef RTMM_LINUX_VMALLOC_H
#define RTMM_LINUX_VMALLOC_H

#include <linux/mm.h>
#include <linux/types.h>

static inline void *vmalloc(unsigned long size)
{
	return rtmm_vmalloc(size);
}

static inline void *vzalloc(unsigned long size)
{
	return rtmm_vzalloc(size);
}

/* HIGHMEM will do, as in Linux, unless the flags ask for a device's limit. */
static inline void *__vmalloc(unsigned long size, gfp_t flags)
{
	if ((flags & (__GFP_DMA | __GFP_DMA32)) == 0)
		flags |= __GFP_HIGHMEM;
	return rtmm_vmalloc_with(size, flags, RTMM_PROT_READ_WRITE, 0, 0);
}

static inline void *vmalloc_user(unsigned long size)
{
	return rtmm_vmalloc_user(size);
}

static inline void *vmalloc_32(unsigned long size)
{
	return rtmm_vmalloc_32(size);
}

static inline void *vmalloc_32_user(unsigned long size)
{
	return rtmm_vmalloc_32_user(size);
}

/* There is one node: -1 or 0. */
static inline void *vmalloc_node(unsigned long size, int node)
{
	return rtmm_vmalloc_node(size, node);
}

static inline void *vzalloc_node(unsigned long size, int node)
{
	return node == -1 || node == 0 ? rtmm_vzalloc(size) : NULL;
}

/* Large entries are used wherever they fit, with or without this. */
static inline void *vmalloc_huge(unsigned long size, gfp_t flags)
{
	return __vmalloc(size, flags);
}

static inline void *__vmalloc_array(size_t n, size_t size, gfp_t flags)
{
	return size != 0 && n > SIZE_MAX / size ? NULL : __vmalloc(n * size, flags);
}

static inline void *vmalloc_array(size_t n, size_t size)
{
	return __vmalloc_array(n, size, GFP_KERNEL);
}

static inline void *__vcalloc(size_t n, size_t size, gfp_t flags)
{
	return __vmalloc_array(n, size, flags | __GFP_ZERO);
}

static inline void *vcalloc(size_t n, size_t size)
{
	return __vcalloc(n, size, GFP_KERNEL);
}

static inline void *vrealloc(const void *area, size_t size, gfp_t flags)
{
	return rtmm_vrealloc((void *)(uintptr_t)area, size, flags);
}

static inline void vfree(const void *addr)
{
	rtmm_vfree(addr);
}

static inline long vread(char *into, const char *addr, unsigned long count)
{
	return (long)rtmm_vread(into, addr, count);
}

static inline long vwrite(const char *from, char *addr, unsigned long count)
{
	return (long)rtmm_vwrite(from, addr, count);
}

/* What a mapping allows. Writing and executing together cannot be said. */
typedef struct {
	uint32_t rtmm_prot;
} pgprot_t;

static inline pgprot_t rtmm_pgprot(uint32_t prot)
{
	pgprot_t made;

	made.rtmm_prot = prot;
	return made;
}

#define PAGE_KERNEL rtmm_pgprot(RTMM_PROT_READ_WRITE)
#define PAGE_KERNEL_RO rtmm_pgprot(RTMM_PROT_READ)
#define PAGE_KERNEL_ROX rtmm_pgprot(RTMM_PROT_READ_EXECUTE)

/* The only flag of vmap. */
#define VM_MAP 0x4ul

static inline void *vmap(struct page **pages, unsigned int count, unsigned long flags, pgprot_t prot)
{
	if ((flags & ~VM_MAP) != 0)
		return NULL;
	return rtmm_vmap((const uintptr_t *)(const void *)pages, count, prot.rtmm_prot);
}

static inline void vunmap(const void *addr)
{
	rtmm_vunmap(addr);
}

/* There is one node: -1 or 0. */
static inline void *vm_map_ram(struct page **pages, unsigned int count, int node)
{
	if (node != -1 && node != 0)
		return NULL;
	return rtmm_vm_map_ram((const uintptr_t *)(const void *)pages, count);
}

static inline void vm_unmap_ram(const void *addr, unsigned int count)
{
	rtmm_vm_unmap_ram(addr, count);
}

#endif
