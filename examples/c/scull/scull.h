/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The scull family in C: memory-backed devices, alike but for where a quantum of memory comes from.
 *
 * The teaching drivers of Linux Device Drivers (third edition, chapters 3 and 8), written anew. A device is a list of
 * sets, a set is an array of quanta. What a kernel would register with its character devices is called directly.
 *
 *   scull    4000 bytes by kmalloc
 *   scullc   4000 bytes, an object of a cache
 *   scullp   PAGE_SIZE << order by __get_free_pages
 *   scullv   PAGE_SIZE << order by vmalloc
 */
#ifndef SCULL_H
#define SCULL_H

#include <linux/types.h>

struct kmem_cache;
struct scull_dev;

/* Where a device's quanta come from. */
struct scull_memory {
	const char *name;
	/* Quanta in a set. */
	size_t per_set;
	/* Gets ready; 0, or a negative errno value. */
	int (*prepare)(struct scull_dev *dev);
	/* A quantum, whatever is in it, or NULL. */
	void *(*take)(struct scull_dev *dev);
	void (*put)(struct scull_dev *dev, void *quantum);
	/* Ends what prepare began. May be NULL. */
	void (*finish)(struct scull_dev *dev);
};

/* A list node: one set of quanta, and the way to the next. */
struct scull_set {
	void **quanta;
	struct scull_set *next;
};

struct scull_dev {
	const struct scull_memory *memory;
	/* Bytes in a quantum. */
	size_t quantum;
	/* For those who count in pages. */
	unsigned int order;
	/* For scullc. */
	struct kmem_cache *cache;
	/* The others come from kmalloc. */
	struct scull_set first;
	/* One past the last byte ever written. */
	size_t size;
};

/* Makes one of the four; 0, -ENODEV for another name, or what its memory says. */
int scull_create(const char *name, struct scull_dev **made);
/* Empties a device and gives it back. */
void scull_destroy(struct scull_dev *dev);

/* Opening for writing empties the device. */
void scull_open_for_write(struct scull_dev *dev);
/* The bytes taken, at most to the end of a quantum; -ENOMEM when there is no memory, -EFBIG past the last address. */
ssize_t scull_write(struct scull_dev *dev, const char __user *from, size_t count, loff_t *position);
/* The bytes given, at most to the end of a quantum; 0 at the end, and in a hole. */
ssize_t scull_read(struct scull_dev *dev, char __user *to, size_t count, loff_t *position);

/* What a device's memory is made of. */
const struct scull_memory *scull_memory_named(const char *name);
/* log2 of the page size these files were compiled for. */
unsigned int scull_page_shift(void);

#endif
