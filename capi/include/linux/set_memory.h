/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What pages of an area allow. Each call sets all of it; Linux's set_memory_x and set_memory_nx, which change one
 * right of several, are not offered, since a page can never be written and executed.
 */
#ifndef RTMM_LINUX_SET_MEMORY_H
#define RTMM_LINUX_SET_MEMORY_H

#include <rtmm.h>

static inline int set_memory_ro(unsigned long addr, int pages)
{
	return rtmm_set_memory(addr, pages < 0 ? 0 : (size_t)pages, RTMM_PROT_READ);
}

static inline int set_memory_rw(unsigned long addr, int pages)
{
	return rtmm_set_memory(addr, pages < 0 ? 0 : (size_t)pages, RTMM_PROT_READ_WRITE);
}

static inline int set_memory_rox(unsigned long addr, int pages)
{
	return rtmm_set_memory(addr, pages < 0 ? 0 : (size_t)pages, RTMM_PROT_READ_EXECUTE);
}

#endif
