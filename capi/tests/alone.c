/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Compiled with one header before it, to see that each can stand alone. */
extern int there_is_something_in_this_file;
