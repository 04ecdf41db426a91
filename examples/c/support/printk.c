/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * rtmm_host_printk for a program without a C library: %s %c %d %i %u %x %p %%, with h, l, ll, z, a width and leading
 * zeroes. Anything else is printed as it stands.
 */
#include <stdarg.h>

#include <linux/kernel.h>

/* The program's console; the text is one line, without its end. */
void console_write_line(const char *text, size_t length);

struct line {
	char text[160];
	size_t length;
	int total;
};

static void add(struct line *line, char letter)
{
	line->total++;
	if (letter == '\n') {
		console_write_line(line->text, line->length);
		line->length = 0;
	} else if (line->length < sizeof(line->text)) {
		line->text[line->length++] = letter;
	}
}

static void add_number(struct line *line, uint64_t number, unsigned int base, bool negative, int width, char fill)
{
	char digits[24];
	int count = 0;

	do {
		digits[count++] = "0123456789abcdef"[number % base];
		number /= base;
	} while (number != 0);
	if (negative && fill == '0')
		add(line, '-');
	for (width -= count + (negative ? 1 : 0); width > 0; width--)
		add(line, fill);
	if (negative && fill != '0')
		add(line, '-');
	while (count > 0)
		add(line, digits[--count]);
}

int rtmm_host_printk(const char *format, ...)
{
	struct line line = { { 0 }, 0, 0 };
	va_list arguments;

	va_start(arguments, format);
	/* The level is for a log, which there is not. */
	if (format[0] == KERN_SOH[0] && format[1] != 0)
		format += 2;
	for (; *format != 0; format++) {
		const char *text;
		char fill = ' ';
		int width = 0, longs = 0;
		uint64_t number;
		bool negative = false;

		if (*format != '%') {
			add(&line, *format);
			continue;
		}
		format++;
		if (*format == '0')
			fill = '0';
		for (; *format >= '0' && *format <= '9'; format++)
			width = width * 10 + (*format - '0');
		for (; *format == 'l' || *format == 'z' || *format == 'h'; format++)
			longs += *format == 'l' ? 1 : *format == 'z' ? 3 : 0;
		switch (*format) {
		case 's':
			for (text = va_arg(arguments, const char *); *text != 0; text++)
				add(&line, *text);
			break;
		case 'c':
			add(&line, (char)va_arg(arguments, int));
			break;
		case 'd':
		case 'i': {
			int64_t value = longs == 0   ? va_arg(arguments, int)
					: longs == 1 ? va_arg(arguments, long)
					: longs == 2 ? va_arg(arguments, long long)
						     : va_arg(arguments, ptrdiff_t);

			negative = value < 0;
			add_number(&line, negative ? 0 - (uint64_t)value : (uint64_t)value, 10, negative, width, fill);
			break;
		}
		case 'u':
		case 'x':
			number = longs == 0   ? va_arg(arguments, unsigned int)
				 : longs == 1 ? va_arg(arguments, unsigned long)
				 : longs == 2 ? va_arg(arguments, unsigned long long)
					      : va_arg(arguments, size_t);
			add_number(&line, number, *format == 'x' ? 16 : 10, false, width, fill);
			break;
		case 'p':
			add_number(&line, (uintptr_t)va_arg(arguments, void *), 16, false, 2 * (int)sizeof(void *), '0');
			break;
		case '%':
			add(&line, '%');
			break;
		case 0:
			format--;
			break;
		default:
			add(&line, '%');
			add(&line, *format);
		}
	}
	va_end(arguments);
	if (line.length != 0)
		add(&line, '\n');
	return line.total;
}
