/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * FreeRTOS's heap is rtmm: this file stands where heap_4.c does.
 *
 * A heap call of FreeRTOS never blocks, so the flags are GFP_NOWAIT. What kmalloc gives is aligned to 8 bytes at least,
 * as portBYTE_ALIGNMENT asks, and a wrong free is told to the callback `bug` and changes nothing.
 */
#include "FreeRTOS.h"

#include <linux/gfp.h>
#include <linux/slab.h>

void *pvPortMalloc(size_t size)
{
	/* heap_4 gives nothing for nothing. */
	return size == 0 ? NULL : kmalloc(size, GFP_NOWAIT | __GFP_NOWARN);
}

void *pvPortCalloc(size_t count, size_t size)
{
	return count == 0 || size == 0 ? NULL : kcalloc(count, size, GFP_NOWAIT | __GFP_NOWARN);
}

void vPortFree(void *memory)
{
	kfree(memory);
}

size_t xPortGetFreeHeapSize(void)
{
	return rtmm_nr_free_pages() << rtmm_page_shift();
}
