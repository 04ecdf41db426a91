/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Where the quanta come from: four ways. */
#include <linux/errno.h>
#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "scull.h"

/* A bit under a page on purpose, so that it is no size an allocator likes. */
#define QUANTUM 4000

static int scull_prepare(struct scull_dev *dev)
{
	dev->quantum = QUANTUM;
	return 0;
}

static void *scull_take(struct scull_dev *dev)
{
	return kmalloc(dev->quantum, GFP_KERNEL);
}

static void scull_put(struct scull_dev *dev, void *quantum)
{
	(void)dev;
	kfree(quantum);
}

static int scullc_prepare(struct scull_dev *dev)
{
	dev->quantum = QUANTUM;
	dev->cache = kmem_cache_create("scullc", QUANTUM, 0, 0, NULL);
	return dev->cache == NULL ? -ENOMEM : 0;
}

static void *scullc_take(struct scull_dev *dev)
{
	return kmem_cache_alloc(dev->cache, GFP_KERNEL);
}

static void scullc_put(struct scull_dev *dev, void *quantum)
{
	kmem_cache_free(dev->cache, quantum);
}

static void scullc_finish(struct scull_dev *dev)
{
	kmem_cache_destroy(dev->cache);
}

static int scullp_prepare(struct scull_dev *dev)
{
	dev->order = 0;
	dev->quantum = PAGE_SIZE << dev->order;
	return 0;
}

static void *scullp_take(struct scull_dev *dev)
{
	return (void *)__get_free_pages(GFP_KERNEL, dev->order);
}

static void scullp_put(struct scull_dev *dev, void *quantum)
{
	free_pages((unsigned long)quantum, dev->order);
}

static int scullv_prepare(struct scull_dev *dev)
{
	dev->order = 4;
	dev->quantum = PAGE_SIZE << dev->order;
	return 0;
}

static void *scullv_take(struct scull_dev *dev)
{
	return vmalloc(dev->quantum);
}

static void scullv_put(struct scull_dev *dev, void *quantum)
{
	(void)dev;
	vfree(quantum);
}

static const struct scull_memory memories[] = {
	{ "scull", 1000, scull_prepare, scull_take, scull_put, NULL },
	{ "scullc", 500, scullc_prepare, scullc_take, scullc_put, scullc_finish },
	{ "scullp", 500, scullp_prepare, scullp_take, scullp_put, NULL },
	{ "scullv", 500, scullv_prepare, scullv_take, scullv_put, NULL },
};

static bool same(const char *left, const char *right)
{
	while (*left != 0 && *left == *right) {
		left++;
		right++;
	}
	return *left == *right;
}

const struct scull_memory *scull_memory_named(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(memories); i++)
		if (same(memories[i].name, name))
			return &memories[i];
	return NULL;
}
