/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * An application of FreeRTOS whose heap is rtmm.
 *
 * Tasks are made and deleted all the time, send each other messages in memory of the heap, and in the end ask for memory
 * when there is none: they sleep until a timer's interrupt has freed some, and give up when nobody frees any.
 */
#include "demo.h"

#include "FreeRTOS.h"
#include "queue.h"
#include "task.h"
#include "timers.h"

#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "rtmm_port.h"

#define PRODUCERS 2
#define MESSAGES 500
#define SHORT_LIVES 100
#define WAITERS 3
#define ROUNDS 60
/* Instructions from one interrupt to the next. */
#define PERIOD 100000
/* Milliseconds for which the hoarder looks away. */
#define AT_EASE 100
/* Milliseconds that a request for memory waits. */
#define MAX_WAIT 2000
/* Line 9, the board's second timer (AN385): it may call the kernel. */
#define TIMER_PRIORITY ((volatile uint8_t *)(0xe000e400u + 9))

struct message {
	uint32_t length;
	uint32_t sum;
	unsigned char bytes[];
};

static TaskHandle_t supervisor;
static QueueHandle_t queue;
static uint32_t taken, ticked;

void demo_failed(const char *file, int line, const char *text)
{
	demo_tell(file, (size_t)line);
	demo_say(text);
	demo_exit(false);
}

void vApplicationStackOverflowHook(TaskHandle_t task, char *name)
{
	(void)task;
	demo_say(name);
	demo_failed(__FILE__, __LINE__, "a task's stack overflowed");
}

/* A task is done: tells the supervisor, and ends. */
static void done(void)
{
	xTaskNotifyGive(supervisor);
	vTaskDelete(NULL);
}

static void wait_for(unsigned int count)
{
	while (count > 0)
		count -= ulTaskNotifyTake(pdFALSE, portMAX_DELAY) != 0;
	/* The idle task takes back the stacks of those that ended. */
	vTaskDelay(3);
}

static void produce(void *number)
{
	uint32_t i, k, seed = (uint32_t)(uintptr_t)number + 1;

	for (i = 0; i < MESSAGES; i++) {
		struct message *message;

		seed = seed * 1664525u + 1013904223u;
		message = (struct message *)kmalloc(sizeof(*message) + seed % 900, GFP_KERNEL);
		CHECK(message != NULL);
		message->length = seed % 900;
		message->sum = 0;
		for (k = 0; k < message->length; k++) {
			message->bytes[k] = (unsigned char)(seed >> (k % 24));
			message->sum += message->bytes[k];
		}
		CHECK(xQueueSend(queue, &message, portMAX_DELAY) == pdTRUE);
	}
	done();
}

static void consume(void *unused)
{
	uint32_t i, k;

	(void)unused;
	for (i = 0; i < MESSAGES * PRODUCERS; i++) {
		struct message *message = NULL;
		uint32_t sum = 0;

		CHECK(xQueueReceive(queue, &message, portMAX_DELAY) == pdTRUE);
		for (k = 0; k < message->length; k++)
			sum += message->bytes[k];
		CHECK(sum == message->sum);
		kfree(message);
		taken++;
	}
	done();
}

static void live_shortly(void *unused)
{
	void *own = pvPortMalloc(300);

	(void)unused;
	CHECK(own != NULL);
	taskYIELD();
	vPortFree(own);
	done();
}

static void tick(TimerHandle_t timer)
{
	void *own = kmalloc(40, GFP_ATOMIC);

	(void)timer;
	CHECK(own != NULL);
	kfree(own);
	ticked++;
}

/* Tasks, queues, timers and messages, all of them on the heap. */
static void work_with_plenty(void)
{
	TimerHandle_t timer = xTimerCreate("tick", 1, pdTRUE, NULL, tick);
	uintptr_t i;

	queue = xQueueCreate(8, sizeof(struct message *));
	CHECK(timer != NULL && queue != NULL && xTimerStart(timer, portMAX_DELAY) == pdPASS);
	for (i = 0; i < PRODUCERS; i++)
		CHECK(xTaskCreate(produce, "produce", 512, (void *)i, 2, NULL) == pdPASS);
	CHECK(xTaskCreate(consume, "consume", 512, NULL, 2, NULL) == pdPASS);
	wait_for(PRODUCERS + 1);
	for (i = 0; i < SHORT_LIVES; i++) {
		CHECK(xTaskCreate(live_shortly, "short", 256, NULL, 1, NULL) == pdPASS);
		wait_for(1);
	}
	CHECK(taken == MESSAGES * PRODUCERS && ticked > 0);
	CHECK(xTimerDelete(timer, portMAX_DELAY) == pdPASS);
	vQueueDelete(queue);
	vTaskDelay(3);
	demo_tell("MESSAGES", taken);
	demo_tell("SHORT-LIVES", SHORT_LIVES);
	demo_tell("TIMER-CALLBACKS", ticked);
}

/* Pages that nobody uses; each begins with the address of the next. */
static void **hoard;
static volatile uint32_t waiting;
static uint32_t freed_by_interrupt, served;

static void *pop(void)
{
	void **page;

	taskENTER_CRITICAL();
	page = hoard;
	if (page != NULL)
		hoard = (void **)*page;
	taskEXIT_CRITICAL();
	return (void *)page;
}

static void push(void *page)
{
	taskENTER_CRITICAL();
	*(void **)page = (void *)hoard;
	hoard = (void **)page;
	taskEXIT_CRITICAL();
}

static void take_everything(void)
{
	unsigned long page;

	while ((page = __get_free_page(GFP_NOWAIT | __GFP_NOWARN)) != 0)
		push((void *)page);
}

/* In an interrupt: frees a page, for which somebody may have waited. */
void demo_interrupt(void)
{
	UBaseType_t state = taskENTER_CRITICAL_FROM_ISR();
	void **page = hoard;

	if (page != NULL)
		hoard = (void **)*page;
	taskEXIT_CRITICAL_FROM_ISR(state);
	if (page != NULL) {
		free_page((unsigned long)page);
		freed_by_interrupt++;
	}
}

static void want(void *number)
{
	unsigned int order = (unsigned int)(uintptr_t)number % 2, i;
	size_t size = PAGE_SIZE << order, k;

	/* Not before there is none. */
	ulTaskNotifyTake(pdTRUE, portMAX_DELAY);
	for (i = 0; i < ROUNDS; i++) {
		unsigned long pages = __get_free_pages(GFP_KERNEL, order);
		unsigned char *object = (unsigned char *)kmalloc(1500, GFP_KERNEL), *bytes = (unsigned char *)pages;

		CHECK(pages != 0 && object != NULL);
		for (k = 0; k < size; k++)
			bytes[k] = (unsigned char)i;
		taskYIELD();
		for (k = 0; k < size; k++)
			CHECK(bytes[k] == (unsigned char)i);
		kfree(object);
		/* Nobody else gets them before the interrupt frees them. */
		split_page(virt_to_page(bytes), order);
		for (k = 0; k < size; k += PAGE_SIZE)
			push(bytes + k);
	}
	taskENTER_CRITICAL();
	served += ROUNDS;
	waiting--;
	taskEXIT_CRITICAL();
	done();
}

/* Tasks that sleep for memory, which comes from an interrupt; and one for whom none comes. */
static void work_with_nothing(void)
{
	TaskHandle_t waiters[WAITERS];
	TickType_t start;
	uintptr_t i;
	void *page;

	waiting = WAITERS;
	for (i = 0; i < WAITERS; i++)
		CHECK(xTaskCreate(want, "want", 512, (void *)i, 2, &waiters[i]) == pdPASS);
	take_everything();
	/* Nothing is left for a new task either. */
	CHECK(xTaskCreate(live_shortly, "none", 4096, NULL, 1, NULL) != pdPASS);
	*TIMER_PRIORITY = 0xc0;
	demo_every(PERIOD);
	for (i = 0; i < WAITERS; i++)
		xTaskNotifyGive(waiters[i]);
	while (waiting != 0) {
		/* What is taken at once is never two neighbours, and those who want a larger block would get none. */
		vTaskDelay(AT_EASE);
		take_everything();
	}
	demo_every(0);
	wait_for(WAITERS);
	take_everything();
	start = xTaskGetTickCount();
	CHECK(__get_free_page(GFP_KERNEL | __GFP_NOWARN) == 0);
	CHECK(xTaskGetTickCount() - start >= MAX_WAIT);
	while ((page = pop()) != NULL)
		free_page((unsigned long)page);
	demo_tell("SERVED", served);
	demo_tell("FREED-BY-INTERRUPT", freed_by_interrupt);
	demo_tell("SLEEPS", rtmm_port_sleeps());
	demo_tell("WAKES", rtmm_port_wakes());
	CHECK(served == WAITERS * ROUNDS && freed_by_interrupt > 0);
	CHECK(rtmm_port_sleeps() > ROUNDS && rtmm_port_wakes() > ROUNDS);
}

static void supervise(void *unused)
{
	(void)unused;
	/* The idle task and the timers' are there already, and stay. */
	vTaskDelay(3);
	demo_open_account();
	demo_tell("free bytes of FreeRTOS's heap", xPortGetFreeHeapSize());
	work_with_plenty();
	work_with_nothing();
	CHECK(rtmm_port_bugs() == 0 && rtmm_check() == 0);
	CHECK(demo_account_is_even());
	demo_say("NOTHING LOST");
	demo_exit(true);
}

void demo_main(uint64_t ram_start, uint64_t ram_length)
{
	/* The heap is the manager's, so the manager comes before everything else. */
	CHECK(rtmm_port_init(ram_start, ram_length, MAX_WAIT) == 0);
	CHECK(xTaskCreate(supervise, "supervise", 512, NULL, 1, &supervisor) == pdPASS);
	vTaskStartScheduler();
	demo_failed(__FILE__, __LINE__, "the scheduler did not start");
}
