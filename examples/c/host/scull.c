/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The job of the demo scull-c as a plain C program over librtmm.a: stores the file named by its argument in each of the
 * four devices, reads it back, and prints its length and CRC-32.
 */
#include <stdarg.h>
#include <string.h>

#define RTMM_PROCESS_RAM (32ul << 20)
#include <rtmm_process.h>

#include <linux/kernel.h>

#include "scull.h"

int rtmm_host_printk(const char *format, ...)
{
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vprintf(format[0] == KERN_SOH[0] ? format + 2 : format, arguments);
	va_end(arguments);
	return length;
}

void rtmm_host_panic(const char *file, int line)
{
	fprintf(stderr, "BUG() at %s:%d\n", file, line);
	abort();
}

/* CRC-32 of IEEE 802.3, bit by bit. */
static uint32_t crc32_of(uint32_t crc, const char *bytes, size_t count)
{
	size_t i;
	int bit;

	for (i = 0; i < count; i++) {
		crc ^= (unsigned char)bytes[i];
		for (bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (0xedb88320u & (0u - (crc & 1u)));
	}
	return crc;
}

static void fail(const char *what)
{
	fprintf(stderr, "FAILED: %s\n", what);
	exit(1);
}

static void store(const char *name, FILE *file, size_t length)
{
	/* No divisor of any quantum, so that short counts happen. */
	static char bounce[1536];
	struct scull_dev *dev;
	uint32_t crc = 0xffffffffu;
	loff_t at = 0;
	ssize_t count;

	if (scull_create(name, &dev) != 0)
		fail("a device could not be made");
	scull_open_for_write(dev);
	while ((size_t)at < length) {
		size_t got;

		if (fseek(file, (long)at, SEEK_SET) != 0)
			fail("the file cannot be read");
		got = fread(bounce, 1, min_t(size_t, sizeof(bounce), length - (size_t)at), file);
		if (got == 0 || scull_write(dev, bounce, got, &at) <= 0)
			fail("no memory for the whole file");
	}
	at = 0;
	while ((count = scull_read(dev, bounce, sizeof(bounce), &at)) > 0)
		crc = crc32_of(crc, bounce, (size_t)count);
	printf("LENGTH %s %lu\n", name, (unsigned long)at);
	printf("CRC32 %s %08lx\n", name, (unsigned long)(crc ^ 0xffffffffu));
	scull_destroy(dev);
}

int main(int argc, char **argv)
{
	static const char *const names[] = { "scull", "scullc", "scullp", "scullv" };
	size_t i, pages, length, room;
	FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;

	if (file == NULL || fseek(file, 0, SEEK_END) != 0)
		fail("give the name of a file");
	length = (size_t)ftell(file);
	if (rtmm_process_init() != 0 || scull_page_shift() != rtmm_page_shift())
		fail("the manager is not for this program");
	rtmm_drain();
	pages = rtmm_nr_free_pages();
	room = pages / 4 * 3 << rtmm_page_shift();
	if (length > room) {
		length = room;
		printf("FILE-CUT %lu\n", (unsigned long)length);
	}
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		store(names[i], file, length);
		rtmm_drain();
		if (rtmm_nr_free_pages() != pages || rtmm_check() != 0)
			fail("pages were lost");
	}
	printf("NOTHING LOST\n");
	fclose(file);
	return 0;
}
