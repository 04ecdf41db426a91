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

static inline void vfree(const void *addr)
{
	rtmm_vfree(addr);
}

#endif
