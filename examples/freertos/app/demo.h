/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Between the application in C and the board. */
#ifndef DEMO_H
#define DEMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The application: never returns. The RAM is the memory manager's. */
void demo_main(uint64_t ram_start, uint64_t ram_length);
/* What the board's timer runs. */
void demo_interrupt(void);

/* The board: a line of text, and one with a number. */
void demo_say(const char *text);
void demo_tell(const char *what, size_t number);
/* Raises the timer's interrupt after every so many instructions; 0 stops it. */
void demo_every(uint32_t instructions);
/* Remembers what callers hold of the manager; and whether they hold the same again. */
void demo_open_account(void);
bool demo_account_is_even(void);
/* Ends the program. */
void demo_exit(bool good);

#define CHECK(what)                                                                                                    \
	do {                                                                                                           \
		if (!(what))                                                                                           \
			demo_failed(__FILE__, __LINE__, #what);                                                        \
	} while (0)

#endif
