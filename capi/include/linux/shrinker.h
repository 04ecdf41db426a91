/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Shrinkers: whoever keeps memory he could do without. There may be eight. They run only for requests that may wait.
 *
 * Unlike Linux's, shrinker_free does not wait for one that runs: it stays, mute, and its memory with it.
 */
#ifndef RTMM_LINUX_SHRINKER_H
#define RTMM_LINUX_SHRINKER_H

#include <linux/gfp.h>
#include <linux/slab.h>

/* scan_objects: there is no use in asking again. count_objects: there is nothing. */
#define SHRINK_STOP (~0UL)
#define SHRINK_EMPTY (~0UL - 1)
#define DEFAULT_SEEKS 2

struct shrink_control {
	gfp_t gfp_mask;
	int nid;
	unsigned long nr_to_scan;
	unsigned long nr_scanned;
};

struct shrinker {
	unsigned long (*count_objects)(struct shrinker *shrinker, struct shrink_control *control);
	unsigned long (*scan_objects)(struct shrinker *shrinker, struct shrink_control *control);
	long batch;
	int seeks;
	unsigned int flags;
	void *private_data;
	/* Ours. */
	struct rtmm_shrinker *rtmm;
	bool registered;
};

static inline struct shrink_control rtmm_shrink_control(const struct rtmm_shrink_request *request)
{
	struct shrink_control control = { 0, 0, 0, 0 };

	control.gfp_mask = request->flags;
	control.nr_to_scan = (unsigned long)request->scan;
	control.nr_scanned = control.nr_to_scan;
	return control;
}

static inline size_t rtmm_shrinker_count(void *arg, const struct rtmm_shrink_request *request)
{
	struct shrinker *shrinker = (struct shrinker *)arg;
	struct shrink_control control = rtmm_shrink_control(request);
	unsigned long count;

	if (!shrinker->registered || shrinker->count_objects == NULL || shrinker->scan_objects == NULL)
		return 0;
	count = shrinker->count_objects(shrinker, &control);
	return count == SHRINK_EMPTY ? 0 : count;
}

static inline size_t rtmm_shrinker_scan(void *arg, const struct rtmm_shrink_request *request)
{
	struct shrinker *shrinker = (struct shrinker *)arg;
	struct shrink_control control = rtmm_shrink_control(request);
	unsigned long freed;

	if (!shrinker->registered || shrinker->scan_objects == NULL)
		return 0;
	freed = shrinker->scan_objects(shrinker, &control);
	return freed == SHRINK_STOP ? 0 : freed;
}

/* NULL also when there are eight. The name, a format with its values, is for people: nothing here prints it. */
static inline struct shrinker *shrinker_alloc(unsigned int flags, const char *name, ...)
{
	struct shrinker *shrinker = (struct shrinker *)kzalloc(sizeof(*shrinker), GFP_KERNEL);

	(void)name;
	if (shrinker == NULL)
		return NULL;
	shrinker->flags = flags;
	shrinker->seeks = DEFAULT_SEEKS;
	shrinker->rtmm = rtmm_shrinker_create(rtmm_shrinker_count, rtmm_shrinker_scan, shrinker);
	if (shrinker->rtmm == NULL) {
		kfree(shrinker);
		return NULL;
	}
	return shrinker;
}

static inline void shrinker_register(struct shrinker *shrinker)
{
	if (shrinker != NULL)
		shrinker->registered = true;
}

static inline void shrinker_free(struct shrinker *shrinker)
{
	if (shrinker == NULL)
		return;
	shrinker->registered = false;
	if (rtmm_shrinker_destroy(shrinker->rtmm) == 0)
		kfree(shrinker);
}

#endif
