/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The page, in Linux's words. RTMM_PAGE_SHIFT is 12 unless the compiler is told otherwise; rtmm_init refuses a
 * library of another page size.
 */
#ifndef RTMM_ASM_PAGE_H
#define RTMM_ASM_PAGE_H

#include <rtmm.h>

#define PAGE_SHIFT RTMM_PAGE_SHIFT
#define PAGE_SIZE (1UL << PAGE_SHIFT)
#define PAGE_MASK (~(PAGE_SIZE - 1))
#define PAGE_ALIGN(x) (((x) + (PAGE_SIZE - 1)) & PAGE_MASK)
#define PAGE_ALIGNED(x) (((unsigned long)(x) & (PAGE_SIZE - 1)) == 0)
#define offset_in_page(p) ((unsigned long)(p) & (PAGE_SIZE - 1))

#endif
