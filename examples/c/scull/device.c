/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A device that remembers what is written to it, in quanta. */
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "scull.h"

/* Where a byte of a device lies. */
struct place {
	size_t set;
	size_t quantum;
	size_t offset;
};

static struct place place_of(const struct scull_dev *dev, size_t at)
{
	struct place place;
	size_t quantum = at / dev->quantum;

	place.set = quantum / dev->memory->per_set;
	place.quantum = quantum % dev->memory->per_set;
	place.offset = at % dev->quantum;
	return place;
}

static void put_quanta(struct scull_dev *dev, struct scull_set *set)
{
	size_t i;

	if (set->quanta == NULL)
		return;
	for (i = 0; i < dev->memory->per_set; i++)
		if (set->quanta[i] != NULL)
			dev->memory->put(dev, set->quanta[i]);
	kfree(set->quanta);
	set->quanta = NULL;
}

/* Gives every quantum, array and list node but the first back. */
static void trim(struct scull_dev *dev)
{
	struct scull_set *set = dev->first.next;

	put_quanta(dev, &dev->first);
	while (set != NULL) {
		struct scull_set *next = set->next;

		put_quanta(dev, set);
		kfree(set);
		set = next;
	}
	dev->first.next = NULL;
	dev->size = 0;
}

/* The set with this number, or NULL. With `grow` the list is made long enough; one that cannot be stays as it was. */
static struct scull_set *find_set(struct scull_dev *dev, size_t number, bool grow)
{
	struct scull_set *set = &dev->first;
	struct scull_set *last = NULL;

	for (; number > 0; number--) {
		if (set->next == NULL) {
			if (!grow)
				return NULL;
			if (last == NULL)
				last = set;
			set->next = (struct scull_set *)kzalloc(sizeof(*set->next), GFP_KERNEL);
			if (set->next == NULL)
				goto undo;
		}
		set = set->next;
	}
	return set;

undo:
	while (last->next != NULL) {
		struct scull_set *extra = last->next;

		last->next = extra->next;
		kfree(extra);
	}
	return NULL;
}

/* The quantum of a place, taken when there is none yet. */
static void *quantum_for_write(struct scull_dev *dev, const struct place *place)
{
	struct scull_set *set = find_set(dev, place->set, true);

	if (set == NULL)
		return NULL;
	if (set->quanta == NULL) {
		set->quanta = (void **)kcalloc(dev->memory->per_set, sizeof(void *), GFP_KERNEL);
		if (set->quanta == NULL)
			return NULL;
	}
	if (set->quanta[place->quantum] == NULL) {
		void *quantum = dev->memory->take(dev);

		if (quantum == NULL)
			return NULL;
		/* What no write reaches must not tell what was there before. */
		memset(quantum, 0, dev->quantum);
		set->quanta[place->quantum] = quantum;
	}
	return set->quanta[place->quantum];
}

ssize_t scull_write(struct scull_dev *dev, const char __user *from, size_t count, loff_t *position)
{
	size_t at = (size_t)*position;
	struct place place;
	char *quantum;

	if (count == 0)
		return 0;
	if (*position < 0 || (uint64_t)*position > SIZE_MAX)
		return -EFBIG;
	place = place_of(dev, at);
	count = min_t(size_t, count, dev->quantum - place.offset);
	if (count > SIZE_MAX - at)
		return -EFBIG;
	quantum = (char *)quantum_for_write(dev, &place);
	if (quantum == NULL)
		return -ENOMEM;
	if (copy_from_user(quantum + place.offset, from, count) != 0)
		return -EFAULT;
	*position += (loff_t)count;
	dev->size = max_t(size_t, dev->size, at + count);
	return (ssize_t)count;
}

ssize_t scull_read(struct scull_dev *dev, char __user *to, size_t count, loff_t *position)
{
	size_t at = (size_t)*position;
	struct scull_set *set;
	struct place place;

	if (*position < 0 || (uint64_t)*position >= dev->size)
		return 0;
	place = place_of(dev, at);
	set = find_set(dev, place.set, false);
	if (set == NULL || set->quanta == NULL || set->quanta[place.quantum] == NULL)
		return 0;
	count = min_t(size_t, count, dev->quantum - place.offset);
	count = min_t(size_t, count, dev->size - at);
	if (copy_to_user(to, (char *)set->quanta[place.quantum] + place.offset, count) != 0)
		return -EFAULT;
	*position += (loff_t)count;
	return (ssize_t)count;
}

void scull_open_for_write(struct scull_dev *dev)
{
	trim(dev);
}

int scull_create(const char *name, struct scull_dev **made)
{
	struct scull_dev *dev;
	int error;
	const struct scull_memory *memory = scull_memory_named(name);

	if (memory == NULL) {
		pr_err("no scull is called %s\n", name);
		return -ENODEV;
	}
	dev = (struct scull_dev *)kzalloc(sizeof(*dev), GFP_KERNEL);
	if (dev == NULL)
		return -ENOMEM;
	dev->memory = memory;
	error = memory->prepare(dev);
	if (error != 0) {
		pr_err("%s: no memory of its kind, error %d\n", name, error);
		kfree(dev);
		return error;
	}
	BUG_ON(dev->quantum == 0);
	pr_info("%s: %zu quanta of %zu bytes in a set\n", name, memory->per_set, dev->quantum);
	*made = dev;
	return 0;
}

void scull_destroy(struct scull_dev *dev)
{
	if (dev == NULL)
		return;
	trim(dev);
	if (dev->memory->finish != NULL)
		dev->memory->finish(dev);
	kfree(dev);
}

unsigned int scull_page_shift(void)
{
	return PAGE_SHIFT;
}
