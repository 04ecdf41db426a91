/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the calls for areas and mappings promise to C. */
#include "check.h"

#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/set_memory.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

static char in_the_image[64];

void vmalloc_gives_whole_pages_and_takes_them_back(void)
{
	size_t size;
	CHECK_BEGIN();

	for (size = 1; size <= 7 * PAGE_SIZE; size += 3 * PAGE_SIZE + 1) {
		unsigned char *area = (unsigned char *)vmalloc(size);
		unsigned char *zeroed = (unsigned char *)vzalloc(size);

		CHECK(area != NULL && aligned(area, PAGE_SIZE));
		CHECK(zeroed != NULL && all_bytes_are(zeroed, 0, size));
		memset(area, 0x3c, size);
		memset(zeroed, 0xc3, size);
		CHECK(all_bytes_are(area, 0x3c, size) && all_bytes_are(zeroed, 0xc3, size));
		vfree(area);
		vfree(zeroed);
	}
	CHECK_END();
}

void vmalloc_of_nothing_or_of_everything_gives_null(void)
{
	CHECK_BEGIN();

	CHECK(vmalloc(0) == NULL);
	CHECK(vzalloc(0) == NULL);
	CHECK(vmalloc(SIZE_MAX) == NULL);
	CHECK(vmalloc((rtmm_nr_free_pages() + 1) * PAGE_SIZE) == NULL);
	CHECK_END();
}

void areas_are_freed_once_and_by_their_start(void)
{
	char *area;
	CHECK_BEGIN();

	area = (char *)vmalloc(2 * PAGE_SIZE);
	CHECK(area != NULL);
	CHECK_REFUSED(RTMM_FREE_INTERIOR, vfree(area + PAGE_SIZE));
	CHECK_REFUSED(RTMM_FREE_MISALIGNED, vfree(area + 1));
	if (rtmm_has_mmu()) {
		CHECK_REFUSED(RTMM_FREE_INTERIOR, vfree(area - PAGE_SIZE));
		/* No guard of another area, so nothing at all. */
		CHECK_REFUSED(RTMM_FREE_DOUBLE, vfree(area + 2 * PAGE_SIZE));
	}
	vfree(area);
	if (rtmm_has_mmu())
		CHECK_REFUSED(RTMM_FREE_DOUBLE, vfree(area));
	else
		/* Its pages are ordinary free ones again: they were never an area's, as far as anyone can tell. */
		CHECK_REFUSED(check_bug_reason(), vfree(area));
	CHECK_END();
}

void the_rest_of_the_vmalloc_family_gives_memory(void)
{
	void *areas[5];
	size_t i;
	CHECK_BEGIN();

	areas[0] = vmalloc_user(3 * PAGE_SIZE);
	/* Where no memory lies below 4 GiB there is none to give. */
	if (areas[0] != NULL && page_to_phys(vmalloc_to_page(areas[0])) >> 32 == 0)
		areas[1] = vmalloc_32(3 * PAGE_SIZE);
	else
		areas[1] = vmalloc(3 * PAGE_SIZE);
	areas[2] = vmalloc_node(3 * PAGE_SIZE, -1);
	areas[3] = vmalloc_node(3 * PAGE_SIZE, 0);
	areas[4] = kvcalloc(3, PAGE_SIZE, GFP_KERNEL);
	CHECK(areas[0] != NULL && all_bytes_are(areas[0], 0, 3 * PAGE_SIZE));
	CHECK(areas[4] != NULL && all_bytes_are(areas[4], 0, 3 * PAGE_SIZE));
	for (i = 0; i < ARRAY_SIZE(areas) - 1; i++) {
		CHECK(areas[i] != NULL && aligned(areas[i], PAGE_SIZE));
		memset(areas[i], 0x11, 3 * PAGE_SIZE);
		vfree(areas[i]);
	}
	kvfree(areas[4]);
	CHECK(vmalloc_node(PAGE_SIZE, 1) == NULL && vmalloc_node(PAGE_SIZE, -2) == NULL);
	CHECK(vmalloc_user(0) == NULL && vmalloc_32(0) == NULL && vmalloc_32(SIZE_MAX) == NULL);
	CHECK(kvcalloc(SIZE_MAX, 2, QUIET) == NULL);
	CHECK_END();
}

static size_t pages_seen[4];
static size_t pages_told;

static int32_t see(void *arg, size_t page, size_t pfn)
{
	CHECK(arg == in_the_image && page == pages_told && pages_told < ARRAY_SIZE(pages_seen));
	/* No lock is held. */
	kfree(kmalloc(16, GFP_KERNEL));
	pages_seen[pages_told++] = pfn;
	return 0;
}

static int32_t see_one(void *arg, size_t page, size_t pfn)
{
	(void)see(arg, page, pfn);
	return pages_told == 2 ? -77 : 0;
}

void areas_for_users_hand_out_their_frames(void)
{
	char *areas[2];
	void *plain;
	size_t i, page;
	CHECK_BEGIN();

	areas[0] = (char *)vmalloc_user(4 * PAGE_SIZE);
	/* Where no memory lies below 4 GiB there is none to give. */
	areas[1] = (char *)vmalloc_32_user(4 * PAGE_SIZE);
	CHECK(areas[0] != NULL);
	CHECK(areas[1] != NULL || page_to_phys(vmalloc_to_page(areas[0])) >> 32 != 0);
	for (i = 0; i < ARRAY_SIZE(areas) && areas[i] != NULL; i++) {
		CHECK(all_bytes_are(areas[i], 0, 4 * PAGE_SIZE));
		pages_told = 0;
		CHECK(rtmm_remap_vmalloc_range(areas[i], 1, 2 * PAGE_SIZE + 1, see, in_the_image) == 0 && pages_told == 3);
		for (page = 0; page < 3; page++)
			CHECK(pages_seen[page] == vmalloc_to_pfn(areas[i] + (page + 1) * PAGE_SIZE));
		/* Where all memory lies above, as an arena of a process does, the board may call it low. */
		CHECK(i == 0 || !rtmm_has_mmu() || page_to_phys(pfn_to_page(pages_seen[0])) >> 32 == 0);
		/* What the function says ends it. */
		pages_told = 0;
		CHECK(rtmm_remap_vmalloc_range(areas[i], 0, 4 * PAGE_SIZE, see_one, in_the_image) == -77 && pages_told == 2);
	}
	pages_told = 0;
	plain = vmalloc(PAGE_SIZE);
	CHECK(plain != NULL);
	CHECK(rtmm_remap_vmalloc_range(plain, 0, 1, see, in_the_image) == -RTMM_EINVAL);
	CHECK(rtmm_remap_vmalloc_range(areas[0], 0, 1, NULL, in_the_image) == -RTMM_EINVAL);
	CHECK(rtmm_remap_vmalloc_range(areas[0], 0, 0, see, in_the_image) == -RTMM_EINVAL);
	CHECK(rtmm_remap_vmalloc_range(areas[0], 4, 1, see, in_the_image) == -RTMM_EINVAL);
	CHECK(rtmm_remap_vmalloc_range(areas[0], SIZE_MAX, 1, see, in_the_image) == -RTMM_EINVAL);
	CHECK(rtmm_remap_vmalloc_range(areas[0], 0, SIZE_MAX, see, in_the_image) == -RTMM_EINVAL);
	CHECK(rtmm_remap_vmalloc_range(areas[0] + 1, 0, 1, see, in_the_image) == -RTMM_EINVAL);
	CHECK(rtmm_remap_vmalloc_range(NULL, 0, 1, see, in_the_image) == -RTMM_EINVAL);
	CHECK(rtmm_remap_vmalloc_range((void *)UINTPTR_MAX, 0, 1, see, in_the_image) == -RTMM_EINVAL);
	CHECK(pages_told == 0 && vmalloc_32_user(0) == NULL && vmalloc_32_user(SIZE_MAX) == NULL);
	vfree(plain);
	vfree(areas[0]);
	vfree(areas[1]);
	CHECK_END();
}

void arrays_by_vmalloc_do_not_overflow(void)
{
	unsigned char *area;
	CHECK_BEGIN();

	area = (unsigned char *)vcalloc(3, PAGE_SIZE - 1);
	CHECK(area != NULL && aligned(area, PAGE_SIZE) && all_bytes_are(area, 0, 3 * (PAGE_SIZE - 1)));
	vfree(area);
	area = (unsigned char *)vmalloc_array(2, PAGE_SIZE);
	CHECK(area != NULL);
	memset(area, 1, 2 * PAGE_SIZE);
	vfree(area);
	area = (unsigned char *)vzalloc_node(PAGE_SIZE, 0);
	CHECK(area != NULL && all_bytes_are(area, 0, PAGE_SIZE));
	vfree(area);
	area = (unsigned char *)vmalloc_huge(PAGE_SIZE, GFP_KERNEL);
	CHECK(area != NULL);
	vfree(area);
	area = (unsigned char *)kvmalloc_array(10, 7, GFP_KERNEL);
	CHECK(area != NULL);
	memset(area, 1, 70);
	kvfree(area);
	CHECK(vzalloc_node(PAGE_SIZE, 1) == NULL && vzalloc_node(PAGE_SIZE, -2) == NULL);
	CHECK(vmalloc_array(SIZE_MAX, 2) == NULL && vcalloc(SIZE_MAX / 2 + 1, 2) == NULL);
	CHECK(vmalloc_array(0, 5) == NULL && vcalloc(5, 0) == NULL);
	CHECK(kvmalloc_array(SIZE_MAX / 2 + 1, 2, QUIET) == NULL);
	CHECK(kvmalloc_array(5, 0, GFP_KERNEL) == ZERO_SIZE_PTR);
	CHECK_END();
}

void vrealloc_keeps_the_contents(void)
{
	unsigned char *area;
	CHECK_BEGIN();

	area = (unsigned char *)vrealloc(NULL, 100, GFP_KERNEL);
	CHECK(area != NULL);
	memset(area, 0x42, 100);
	area = (unsigned char *)vrealloc(area, 5 * PAGE_SIZE, GFP_KERNEL);
	CHECK(area != NULL && all_bytes_are(area, 0x42, 100));
	memset(area, 0x43, 5 * PAGE_SIZE);
	CHECK(vrealloc(area, SIZE_MAX, QUIET) == NULL && all_bytes_are(area, 0x43, 5 * PAGE_SIZE));
	area = (unsigned char *)vrealloc(area, PAGE_SIZE, GFP_KERNEL);
	CHECK(area != NULL && all_bytes_are(area, 0x43, PAGE_SIZE));
	CHECK_REFUSED(RTMM_FREE_INTERIOR, CHECK(vrealloc(area + PAGE_SIZE / 2, 10, GFP_KERNEL) == NULL));
	CHECK(vrealloc(area, 0, GFP_KERNEL) == NULL);
	CHECK_REFUSED(RTMM_FREE_DOUBLE, CHECK(vrealloc(area, 10, GFP_KERNEL) == NULL));
	area = (unsigned char *)kmalloc(100, GFP_KERNEL);
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, CHECK(vrealloc(area, 10, GFP_KERNEL) == NULL));
	kfree(area);
	CHECK(vrealloc(NULL, 0, GFP_KERNEL) == NULL);
	/* Where the image lies in RAM its pages are reserved; elsewhere they are nobody's. */
	CHECK_REFUSED(check_bug_reason() == RTMM_FREE_RESERVED ? RTMM_FREE_RESERVED : RTMM_FREE_FOREIGN,
		      CHECK(vrealloc(in_the_image, 10, GFP_KERNEL) == NULL));
	CHECK_END();
}

void vread_and_vwrite_pass_over_what_is_no_area(void)
{
	char *area;
	char buffer[64];
	CHECK_BEGIN();

	area = (char *)vzalloc(100);
	CHECK(area != NULL);
	memset(buffer, 7, sizeof(buffer));
	CHECK(vwrite(buffer, area + 80, sizeof(buffer)) == 20);
	CHECK(all_bytes_are(area, 0, 80) && all_bytes_are(area + 80, 7, 20));
	CHECK(vread(buffer, area + 60, sizeof(buffer)) == 40);
	CHECK(all_bytes_are(buffer, 0, 20) && all_bytes_are(buffer + 20, 7, 20) && all_bytes_are(buffer + 40, 0, 24));
	CHECK(vread(NULL, area, 10) == 0 && vwrite(NULL, area, 10) == 0);
	CHECK(vread(buffer, NULL, 10) == 0 && vread(buffer, (char *)UINTPTR_MAX, 10) == 0);
	vfree(area);
	CHECK(vread(buffer, area, 10) == 0);
	CHECK_END();
}

void pages_of_the_caller_are_mapped_and_stay_the_callers(void)
{
	struct page *pages[4];
	struct page *block;
	char *area;
	unsigned int i;
	CHECK_BEGIN();

	block = alloc_pages(GFP_KERNEL, 2);
	CHECK(block != NULL);
	/* With page tables in any order; without, neighbours as they come. */
	for (i = 0; i < 4; i++)
		pages[i] = rtmm_has_mmu() ? block + 3 - i : block + i;
	area = (char *)vmap(pages, 4, VM_MAP, PAGE_KERNEL);
	CHECK(area != NULL && aligned(area, PAGE_SIZE));
	for (i = 0; i < 4; i++)
		area[i * PAGE_SIZE] = (char)(i + 1);
	for (i = 0; i < 4; i++)
		CHECK(*(char *)page_address(pages[i]) == (char)(i + 1));
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, vfree(area));
	vunmap(area);
	vunmap(NULL);
	area = (char *)vm_map_ram(pages, 4, -1);
	CHECK(area != NULL);
	CHECK_REFUSED(RTMM_FREE_WRONG_ORDER, vm_unmap_ram(area, 3));
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, vunmap(area));
	vm_unmap_ram(area, 4);
	__free_pages(block, 2);
	CHECK_END();
}

void pages_that_make_no_sense_are_not_mapped(void)
{
	struct page *pages[2];
	CHECK_BEGIN();

	pages[0] = pages[1] = alloc_page(GFP_KERNEL);
	CHECK(pages[0] != NULL);
	CHECK(vmap(pages, 2, VM_MAP, PAGE_KERNEL) == NULL);
	CHECK(vmap(pages, 0, VM_MAP, PAGE_KERNEL) == NULL);
	CHECK(vmap(pages, 1, 1, PAGE_KERNEL) == NULL);
	CHECK(vmap(pages, 1, VM_MAP, rtmm_pgprot(3)) == NULL);
	CHECK(vmap(NULL, 1, VM_MAP, PAGE_KERNEL) == NULL);
	CHECK(rtmm_vmap((const uintptr_t *)(const void *)pages, SIZE_MAX, RTMM_PROT_READ_WRITE) == NULL);
	CHECK(rtmm_vmap((const uintptr_t *)(const void *)((char *)pages + 1), 1, RTMM_PROT_READ_WRITE) == NULL);
	CHECK(vm_map_ram(pages, 0, -1) == NULL && vm_map_ram(pages, 1, 1) == NULL);
	pages[1] = NULL;
	CHECK(vmap(pages, 2, VM_MAP, PAGE_KERNEL) == NULL);
	pages[1] = pfn_to_page(UINT32_MAX);
	CHECK(vmap(pages, 2, VM_MAP, PAGE_KERNEL) == NULL);
	__free_page(pages[0]);
	CHECK_END();
}

void protections_are_set_where_there_are_page_tables(void)
{
	char *area;
	CHECK_BEGIN();

	area = (char *)vmalloc(2 * PAGE_SIZE);
	CHECK(area != NULL);
	memset(area, 5, 2 * PAGE_SIZE);
	if (rtmm_has_mmu()) {
		CHECK(set_memory_ro((unsigned long)area, 2) == 0);
		CHECK(all_bytes_are(area, 5, 2 * PAGE_SIZE));
		CHECK(set_memory_rw((unsigned long)area, 1) == 0);
		area[0] = 6;
		CHECK(set_memory_ro((unsigned long)area, 0) == -RTMM_EINVAL);
		CHECK(set_memory_ro((unsigned long)area, -1) == -RTMM_EINVAL);
		CHECK(set_memory_ro((unsigned long)area + 1, 1) == -RTMM_EINVAL);
		CHECK(set_memory_ro((unsigned long)area, 3) == -RTMM_EINVAL);
		CHECK(set_memory_rw((unsigned long)area, 2) == 0);
	} else {
		CHECK(set_memory_ro((unsigned long)area, 1) == -RTMM_EOPNOTSUPP);
	}
	CHECK(rtmm_set_memory((uintptr_t)area, 1, 3) == -RTMM_EINVAL);
	CHECK(rtmm_set_memory((uintptr_t)area, 1, UINT32_MAX) == -RTMM_EINVAL);
	CHECK(rtmm_set_memory((uintptr_t)area, SIZE_MAX, RTMM_PROT_READ) < 0);
	CHECK(rtmm_set_memory((uintptr_t)area, SIZE_MAX / PAGE_SIZE + 2, RTMM_PROT_READ) < 0);
	CHECK(rtmm_set_memory(UINTPTR_MAX - PAGE_SIZE + 1, 2, RTMM_PROT_READ) < 0);
	memset(area, 7, 2 * PAGE_SIZE);
	vfree(area);
	CHECK_END();
}

void kvmalloc_serves_small_and_large(void)
{
	size_t sizes[3];
	size_t i;
	CHECK_BEGIN();

	sizes[0] = 10;
	sizes[1] = PAGE_SIZE;
	sizes[2] = 6 * PAGE_SIZE + 5;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		unsigned char *memory = (unsigned char *)kvzalloc(sizes[i], GFP_KERNEL);

		CHECK(memory != NULL && all_bytes_are(memory, 0, sizes[i]));
		kvfree(memory);
		memory = (unsigned char *)kvmalloc(sizes[i], GFP_ATOMIC);
		CHECK(memory != NULL);
		kvfree(memory);
	}
	CHECK_END();
}

void device_registers_are_mapped_and_unmapped_once(void)
{
	char *registers;
	CHECK_BEGIN();

	registers = (char *)ioremap(check_mmio_start(), check_mmio_length());
	CHECK(registers != NULL);
	if (!rtmm_has_mmu())
		CHECK((uintptr_t)registers == check_mmio_start());
	CHECK_REFUSED(RTMM_FREE_WRONG_ALLOCATOR, vfree(registers));
	iounmap(registers);
	{
		size_t bugs = check_bugs();

		iounmap(registers);
		CHECK(check_bugs() == bugs + 1 && check_bug_kind() == RTMM_BUG_BAD_FREE);
	}
	CHECK_END();
}

void ram_and_wrapping_ranges_are_not_mapped_as_registers(void)
{
	struct page *page;
	CHECK_BEGIN();

	CHECK(ioremap(check_mmio_start(), 0) == NULL);
	CHECK(ioremap_wc(UINT64_MAX, 2) == NULL && ioremap_wt(UINT64_MAX, 2) == NULL && ioremap_cache(0, 0) == NULL);
	{
		void *uncached = ioremap(check_mmio_start(), check_mmio_length());

		/* One range, one cache mode. */
		CHECK(uncached != NULL && ioremap_wc(check_mmio_start(), 4) == NULL);
		iounmap(uncached);
	}
	CHECK(ioremap(UINT64_MAX, 2) == NULL);
	CHECK(ioremap(UINT64_MAX - 4095, 4096) == NULL);
	CHECK(ioremap((uint64_t)1 << 60, 4096) == NULL);
	page = alloc_page(GFP_KERNEL);
	CHECK(page != NULL && ioremap(page_to_phys(page), 4) == NULL);
	__free_page(page);
	CHECK_END();
}

void areas_are_made_in_the_callers_way(void)
{
	unsigned char *area;
	void *moved;
	size_t align;
	uint32_t bit;
	CHECK_BEGIN();

	area = (unsigned char *)rtmm_vmalloc_with(3 * PAGE_SIZE, GFP_KERNEL | __GFP_ZERO, RTMM_PROT_READ_WRITE, 4 * PAGE_SIZE,
						  RTMM_AREA_SMALL_ENTRIES | RTMM_AREA_LONG);
	CHECK(area != NULL && aligned(area, 4 * PAGE_SIZE) && all_bytes_are(area, 0, 3 * PAGE_SIZE));
	memset(area, 1, 3 * PAGE_SIZE);
	vfree(area);
	/* All that can be said, and a page that is zeroed before nobody may write to it. */
	area = (unsigned char *)rtmm_vmalloc_with(1, QUIET | __GFP_ZERO, RTMM_PROT_READ, 2 * PAGE_SIZE, 15);
	CHECK(area != NULL || !rtmm_has_mmu());
	if (area != NULL) {
		CHECK(aligned(area, 2 * PAGE_SIZE) && all_bytes_are(area, 0, PAGE_SIZE));
		CHECK(vmalloc_to_page(area - 1) == NULL && vmalloc_to_page(area + PAGE_SIZE) == NULL);
	}
	/* Where guards stay until reset there is no such area, for it could not be made writable again. */
	vfree(area);
	area = (unsigned char *)rtmm_vmalloc_with(PAGE_SIZE, QUIET | __GFP_ZERO, RTMM_PROT_READ_EXECUTE, 1, 0);
	CHECK(area != NULL || !rtmm_has_mmu());
	if (area != NULL) {
		CHECK(all_bytes_are(area, 0, PAGE_SIZE));
		CHECK(rtmm_set_memory((uintptr_t)area, 1, RTMM_PROT_READ_WRITE) == 0);
		memset(area, 9, PAGE_SIZE);
	}
	vfree(area);
	/* Alignments to the largest block, with an MMU or without; where there is no such block, nothing. */
	for (align = PAGE_SIZE; align <= PAGE_SIZE << rtmm_max_order(); align *= 2) {
		area = (unsigned char *)rtmm_vmalloc_with(PAGE_SIZE + 1, GFP_NOWAIT | __GFP_NOWARN, RTMM_PROT_READ_WRITE,
							  align, 0);
		CHECK(area == NULL || aligned(area, align));
		CHECK(area != NULL || align > 4 * PAGE_SIZE);
		vfree(area);
	}
	CHECK(rtmm_vmalloc_with(PAGE_SIZE, QUIET, RTMM_PROT_READ_WRITE, align, 0) == NULL);
	area = (unsigned char *)__vmalloc(2 * PAGE_SIZE, GFP_KERNEL | __GFP_ZERO);
	CHECK(area != NULL && aligned(area, PAGE_SIZE) && all_bytes_are(area, 0, 2 * PAGE_SIZE));
	vfree(area);
	/* With an MMU every area has guards; without one only where the machine has regions for them. */
	area = (unsigned char *)rtmm_vmalloc_with(2 * PAGE_SIZE, QUIET, RTMM_PROT_READ_WRITE, 0, RTMM_AREA_GUARDS);
	CHECK(area != NULL || !rtmm_has_mmu());
	if (area != NULL) {
		CHECK(vmalloc_to_page(area) != NULL);
		CHECK(vmalloc_to_page(area - 1) == NULL && vmalloc_to_page(area + 2 * PAGE_SIZE) == NULL);
		memset(area, 3, 2 * PAGE_SIZE);
		/* It keeps them where it goes. */
		moved = vrealloc(area, 5 * PAGE_SIZE, QUIET);
		CHECK(moved != NULL && all_bytes_are(moved, 3, 2 * PAGE_SIZE));
		CHECK(vmalloc_to_page((char *)moved - 1) == NULL);
		vfree(moved);
	}
	area = (unsigned char *)rtmm_vmalloc_with(PAGE_SIZE, QUIET, RTMM_PROT_READ, 0, 0);
	CHECK(area != NULL || !rtmm_has_mmu());
	vfree(area);

	CHECK(rtmm_vmalloc_with(0, QUIET, RTMM_PROT_READ_WRITE, 0, 0) == NULL);
	CHECK(rtmm_vmalloc_with(SIZE_MAX, QUIET, RTMM_PROT_READ_WRITE, 0, 0) == NULL);
	CHECK(rtmm_vmalloc_with(PAGE_SIZE, QUIET, 3, 0, 0) == NULL);
	CHECK(rtmm_vmalloc_with(PAGE_SIZE, QUIET, UINT32_MAX, 0, 0) == NULL);
	CHECK(rtmm_vmalloc_with(PAGE_SIZE, GFP_DMA | __GFP_HIGHMEM, RTMM_PROT_READ_WRITE, 0, 0) == NULL);
	CHECK(rtmm_vmalloc_with(PAGE_SIZE, QUIET, RTMM_PROT_READ_WRITE, 0, UINT32_MAX) == NULL);
	CHECK(rtmm_vmalloc_with(SIZE_MAX - PAGE_SIZE + 2, QUIET, RTMM_PROT_READ, SIZE_MAX / 2 + 1, 15) == NULL);
	CHECK(rtmm_vmalloc_with(PAGE_SIZE, 0x80000000u, RTMM_PROT_READ_WRITE, 0, 0) == NULL);
	CHECK(rtmm_vmalloc_with(PAGE_SIZE, QUIET, RTMM_PROT_READ_WRITE, 3 * PAGE_SIZE, 0) == NULL);
	CHECK(rtmm_vmalloc_with(PAGE_SIZE, QUIET, RTMM_PROT_READ_WRITE, SIZE_MAX, 0) == NULL);
	for (bit = 16; bit != 0; bit <<= 1)
		CHECK(rtmm_vmalloc_with(PAGE_SIZE, QUIET, RTMM_PROT_READ_WRITE, 0, bit) == NULL);
	CHECK_END();
}
