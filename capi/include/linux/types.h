/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Types of driver code: sized integers, addresses, and the marks that only a checker reads. */
#ifndef RTMM_LINUX_TYPES_H
#define RTMM_LINUX_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ssize_t comes from the C library where there is one. */
#if defined(__has_include) && __STDC_HOSTED__
#if __has_include(<sys/types.h>)
#include <sys/types.h>
#define RTMM_HAS_SYS_TYPES 1
#endif
#endif
#ifndef RTMM_HAS_SYS_TYPES
typedef ptrdiff_t ssize_t;
#endif
/* glibc has it already when it shows what is not of the C standard. */
#if !defined(__GLIBC__) || !defined(__USE_MISC)
typedef int64_t loff_t;
#endif

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef uint8_t __u8;
typedef uint16_t __u16;
typedef uint32_t __u32;
typedef uint64_t __u64;
typedef int8_t __s8;
typedef int16_t __s16;
typedef int32_t __s32;
typedef int64_t __s64;

/* Allocation flags, see linux/gfp.h; flags of a cache, see linux/slab.h. */
typedef unsigned int gfp_t;
typedef unsigned int slab_flags_t;
/* A physical address has 64 bits on every machine, for the sake of PAE. */
typedef uint64_t phys_addr_t;
typedef uint64_t resource_size_t;
typedef uint64_t dma_addr_t;

#define __user
#define __iomem
#define __force
#define __percpu
#define __rcu

#endif
