/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Device registers: mapping them, and reading and writing them.
 *
 * readl and its kin are ordered against memory and each other; the _relaxed forms only against accesses to the same
 * device. Registers are little-endian, as Linux has it, and so are the machines this runs on.
 */
#ifndef RTMM_LINUX_IO_H
#define RTMM_LINUX_IO_H

#include <linux/types.h>
#include <rtmm.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "linux/io.h reads registers as the machine does, and this one is big-endian"
#endif

static inline void __iomem *ioremap(phys_addr_t phys, size_t size)
{
	return rtmm_ioremap(phys, size);
}

static inline void __iomem *ioremap_wc(phys_addr_t phys, size_t size)
{
	return rtmm_ioremap_wc(phys, size);
}

static inline void __iomem *ioremap_wt(phys_addr_t phys, size_t size)
{
	return rtmm_ioremap_wt(phys, size);
}

static inline void __iomem *ioremap_cache(phys_addr_t phys, size_t size)
{
	return rtmm_ioremap_cache(phys, size);
}

static inline void iounmap(volatile void __iomem *addr)
{
	rtmm_iounmap((const void *)(uintptr_t)addr);
}

#define mb() __sync_synchronize()
#define rmb() __sync_synchronize()
#define wmb() __sync_synchronize()

#define RTMM_IO_ACCESS(letter, type)                                                                                   \
	static inline type read##letter##_relaxed(const volatile void __iomem *addr)                                   \
	{                                                                                                              \
		return *(const volatile type *)addr;                                                                   \
	}                                                                                                              \
	static inline void write##letter##_relaxed(type value, volatile void __iomem *addr)                            \
	{                                                                                                              \
		*(volatile type *)addr = value;                                                                        \
	}                                                                                                              \
	static inline type read##letter(const volatile void __iomem *addr)                                             \
	{                                                                                                              \
		type value = read##letter##_relaxed(addr);                                                             \
		rmb();                                                                                                 \
		return value;                                                                                          \
	}                                                                                                              \
	static inline void write##letter(type value, volatile void __iomem *addr)                                      \
	{                                                                                                              \
		wmb();                                                                                                 \
		write##letter##_relaxed(value, addr);                                                                  \
	}

RTMM_IO_ACCESS(b, u8)
RTMM_IO_ACCESS(w, u16)
RTMM_IO_ACCESS(l, u32)
#if UINTPTR_MAX > 0xffffffffu
RTMM_IO_ACCESS(q, u64)
#endif
#undef RTMM_IO_ACCESS

#define ioread8(addr) readb(addr)
#define ioread16(addr) readw(addr)
#define ioread32(addr) readl(addr)
#define iowrite8(value, addr) writeb((value), (addr))
#define iowrite16(value, addr) writew((value), (addr))
#define iowrite32(value, addr) writel((value), (addr))

#endif
