/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* FreeRTOS includes it where a C library has it, and uses nothing of it. */
#ifndef RTOS_STDLIB_H
#define RTOS_STDLIB_H
#include <stddef.h>
#endif
