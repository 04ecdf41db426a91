/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What driver code leans on everywhere: sizes, container_of, messages, BUG and WARN.
 *
 * Two functions are the kernel's that uses this header: rtmm_host_printk and rtmm_host_panic.
 */
#ifndef RTMM_LINUX_KERNEL_H
#define RTMM_LINUX_KERNEL_H

#include <asm/page.h>
#include <linux/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Prints a message, as printf does, and returns its length. The text may begin with one of KERN_*. */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
int rtmm_host_printk(const char *format, ...);

/* Stops the kernel: a BUG() at this place. Does not return. */
#if defined(__GNUC__)
__attribute__((noreturn))
#endif
void rtmm_host_panic(const char *file, int line);

#ifdef __cplusplus
}
#endif

#define KERN_SOH "\001"
#define KERN_EMERG KERN_SOH "0"
#define KERN_ALERT KERN_SOH "1"
#define KERN_CRIT KERN_SOH "2"
#define KERN_ERR KERN_SOH "3"
#define KERN_WARNING KERN_SOH "4"
#define KERN_NOTICE KERN_SOH "5"
#define KERN_INFO KERN_SOH "6"
#define KERN_DEBUG KERN_SOH "7"

#define printk rtmm_host_printk
/* C99 wants an argument for the dots, so the format is one. */
#define pr_emerg(...) printk(KERN_EMERG __VA_ARGS__)
#define pr_alert(...) printk(KERN_ALERT __VA_ARGS__)
#define pr_crit(...) printk(KERN_CRIT __VA_ARGS__)
#define pr_err(...) printk(KERN_ERR __VA_ARGS__)
#define pr_warn(...) printk(KERN_WARNING __VA_ARGS__)
#define pr_notice(...) printk(KERN_NOTICE __VA_ARGS__)
#define pr_info(...) printk(KERN_INFO __VA_ARGS__)

/* The message of a WARN whose condition holds; gives the condition. */
static inline bool rtmm_warn(bool condition, const char *what, const char *file, int line)
{
	if (condition)
		rtmm_host_printk(KERN_WARNING "WARNING: %s at %s:%d\n", what, file, line);
	return condition;
}

/* A condition as the value of a WARN, which nobody need look at. */
static inline bool rtmm_condition(bool condition)
{
	return condition;
}

#define BUG() rtmm_host_panic(__FILE__, __LINE__)
#define BUG_ON(condition)                                                                                              \
	do {                                                                                                           \
		if (condition)                                                                                         \
			BUG();                                                                                         \
	} while (0)
#define WARN_ON(condition) rtmm_warn(!!(condition), #condition, __FILE__, __LINE__)
/* The same with a message, as of printk. */
#define WARN(condition, ...) rtmm_condition((condition) && (printk(KERN_WARNING __VA_ARGS__), true))
#if defined(__GNUC__)
/* Said the first time that it holds. */
#define WARN_ON_ONCE(condition)                                                                                        \
	__extension__({                                                                                                \
		static bool rtmm_said;                                                                                 \
		bool rtmm_holds = !!(condition);                                                                       \
		if (rtmm_holds && !rtmm_said) {                                                                        \
			rtmm_said = true;                                                                              \
			rtmm_warn(true, #condition, __FILE__, __LINE__);                                               \
		}                                                                                                      \
		rtmm_holds;                                                                                            \
	})
#endif

#if defined(__GNUC__)
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define __init
#define __exit
#define __must_check __attribute__((warn_unused_result))
#define __maybe_unused __attribute__((unused))
#define __aligned(x) __attribute__((aligned(x)))
#define __packed __attribute__((packed))
#endif

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define DIV_ROUND_UP(n, d) (((n) + (d) - 1) / (d))
#define roundup(x, y) (DIV_ROUND_UP(x, y) * (y))
/* To and down to a power of two. */
#define ALIGN(x, a) (((x) + ((a) - 1)) & ~((a) - 1))
#define ALIGN_DOWN(x, a) ((x) & ~((a) - 1))
#define IS_ALIGNED(x, a) (((x) & ((a) - 1)) == 0)
#define BIT(n) (1UL << (n))

/* The structure that holds a member. Unlike Linux's it does not compare types. */
#define container_of(pointer, type, member) ((type *)(void *)((char *)(pointer) - offsetof(type, member)))

/* Each argument is evaluated once. C++ has its own. */
#if defined(__GNUC__) && !defined(__cplusplus)
#define min(a, b)                                                                                                      \
	__extension__({                                                                                                \
		__typeof__(a) rtmm_a = (a);                                                                            \
		__typeof__(b) rtmm_b = (b);                                                                            \
		rtmm_a < rtmm_b ? rtmm_a : rtmm_b;                                                                     \
	})
#define max(a, b)                                                                                                      \
	__extension__({                                                                                                \
		__typeof__(a) rtmm_a = (a);                                                                            \
		__typeof__(b) rtmm_b = (b);                                                                            \
		rtmm_a > rtmm_b ? rtmm_a : rtmm_b;                                                                     \
	})
#define min_t(type, a, b)                                                                                              \
	__extension__({                                                                                                \
		type rtmm_a = (a);                                                                                     \
		type rtmm_b = (b);                                                                                     \
		rtmm_a < rtmm_b ? rtmm_a : rtmm_b;                                                                     \
	})
#define max_t(type, a, b)                                                                                              \
	__extension__({                                                                                                \
		type rtmm_a = (a);                                                                                     \
		type rtmm_b = (b);                                                                                     \
		rtmm_a > rtmm_b ? rtmm_a : rtmm_b;                                                                     \
	})
#endif

#endif
