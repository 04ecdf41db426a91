/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* rtmm on FreeRTOS, on one Cortex-M. */
#include "rtmm_port.h"

#include "FreeRTOS.h"
#include "task.h"

#include <rtmm.h>

#include "demo.h"

/* The notification that is the manager's; the first is the application's. */
#define MEMORY_NOTIFICATION 1
#define NANOSECONDS_PER_TICK (1000000000ull / configTICK_RATE_HZ)
/* Tasks that can wait for memory at the same time; one more sleeps to its deadline, since nobody can name it. */
#define TASKS 16

static size_t sleeps, wakes, bugs;
/* The tasks that ever waited and did not end. A task's name is its place here, plus 1. */
static TaskHandle_t tasks[TASKS];

static uint32_t mask(void)
{
	uint32_t state;

	__asm volatile("mrs %0, primask\n\tcpsid i" : "=r"(state) : : "memory");
	return state;
}

static void unmask(uint32_t state)
{
	__asm volatile("msr primask, %0" : : "r"(state) : "memory");
}

static bool in_interrupt(void)
{
	return xPortIsInsideInterrupt() == pdTRUE;
}

/* Not the kernel's critical section: that one leaves interrupts on which may allocate too. */
static uintptr_t lock(void *arg, uintptr_t *word)
{
	(void)arg;
	(void)word;
	return mask();
}

static void unlock(void *arg, uintptr_t *word, uintptr_t state)
{
	(void)arg;
	(void)word;
	unmask((uint32_t)state);
}

static uint32_t context(void *arg)
{
	uint32_t primask, basepri;

	(void)arg;
	__asm volatile("mrs %0, primask" : "=r"(primask));
	__asm volatile("mrs %0, basepri" : "=r"(basepri));
	if (in_interrupt() || primask != 0 || basepri != 0)
		return RTMM_CONTEXT_ATOMIC;
	switch (xTaskGetSchedulerState()) {
	case taskSCHEDULER_NOT_STARTED:
		return RTMM_CONTEXT_BOOT;
	case taskSCHEDULER_RUNNING:
		return RTMM_CONTEXT_TASK;
	default:
		/* Suspended: nobody else would run. */
		return RTMM_CONTEXT_ATOMIC;
	}
}

static void bug(void *arg, const struct rtmm_bug *report)
{
	(void)arg;
	bugs++;
	demo_say(report->text);
}

static uint64_t ticks(void)
{
	TimeOut_t since_start;

	vTaskSetTimeOutState(&since_start);
	return ((uint64_t)(uint32_t)since_start.xOverflowCount << 32) | since_start.xTimeOnEntering;
}

static uint64_t now(void *arg)
{
	(void)arg;
	return ticks() * NANOSECONDS_PER_TICK;
}

static uintptr_t current(void *arg)
{
	TaskHandle_t me = xTaskGetCurrentTaskHandle();
	uintptr_t place, empty = TASKS;
	uint32_t state = mask();

	(void)arg;
	for (place = 0; place < TASKS && tasks[place] != me; place++)
		if (tasks[place] == NULL && empty == TASKS)
			empty = place;
	if (place == TASKS && empty != TASKS) {
		place = empty;
		tasks[place] = me;
	}
	unmask(state);
	return place == TASKS ? 0 : place + 1;
}

/* A wake that came since the last sleep is in the notification's count, and ends this one at once. */
static void wait_until(void *arg, uint64_t until)
{
	uint64_t start = ticks(), end = (until + NANOSECONDS_PER_TICK - 1) / NANOSECONDS_PER_TICK;
	uint64_t most = end > start ? end - start : 0;

	(void)arg;
	sleeps++;
	ulTaskNotifyTakeIndexed(MEMORY_NOTIFICATION, pdTRUE, most < portMAX_DELAY ? (TickType_t)most : portMAX_DELAY - 1);
}

static void wake(void *arg, uintptr_t name)
{
	BaseType_t switches = pdFALSE;
	bool interrupted = in_interrupt();
	/* The task must not end between here and the notification. */
	UBaseType_t state = interrupted ? taskENTER_CRITICAL_FROM_ISR() : 0;

	(void)arg;
	if (!interrupted)
		taskENTER_CRITICAL();
	if (name != 0 && name <= TASKS && tasks[name - 1] != NULL) {
		wakes++;
		if (interrupted)
			vTaskNotifyGiveIndexedFromISR(tasks[name - 1], MEMORY_NOTIFICATION, &switches);
		else
			xTaskNotifyGiveIndexed(tasks[name - 1], MEMORY_NOTIFICATION);
	}
	if (interrupted)
		taskEXIT_CRITICAL_FROM_ISR(state);
	else
		taskEXIT_CRITICAL();
	portYIELD_FROM_ISR(switches);
}

/* The kernel calls this in a critical section. */
void rtmm_port_task_ends(const void *task)
{
	size_t place;

	for (place = 0; place < TASKS; place++)
		if ((const void *)tasks[place] == task)
			tasks[place] = NULL;
}

int rtmm_port_init(uint64_t start, uint64_t length, uint32_t max_wait_ms)
{
	struct rtmm_config config = RTMM_CONFIG_INIT;
	struct rtmm_range ram;

	ram.start = start;
	ram.length = length;
	config.lock = lock;
	config.unlock = unlock;
	config.context = context;
	config.bug = bug;
	config.now = now;
	config.current = current;
	config.wait = wait_until;
	config.wake = wake;
	config.max_wait = (uint64_t)max_wait_ms * 1000000u;
	config.ram = &ram;
	config.ram_count = 1;
	return rtmm_init(&config);
}

size_t rtmm_port_sleeps(void)
{
	return sleeps;
}

size_t rtmm_port_wakes(void)
{
	return wakes;
}

size_t rtmm_port_bugs(void)
{
	return bugs;
}
