/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* rtmm on FreeRTOS: the callbacks of struct rtmm_config. */
#ifndef RTMM_PORT_H
#define RTMM_PORT_H

#include <stddef.h>
#include <stdint.h>

/* Brings the manager up on this RAM, before the scheduler runs; a request waits for `max_wait_ms` at most. 0, or what
 * rtmm_init says. */
int rtmm_port_init(uint64_t start, uint64_t length, uint32_t max_wait_ms);

/* How often a task slept for memory, was woken, and how many reports of mistakes there were. */
size_t rtmm_port_sleeps(void);
size_t rtmm_port_wakes(void);
size_t rtmm_port_bugs(void);

#endif
