/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What FreeRTOS is to be on mps2-an385. */
#ifndef FREERTOS_CONFIG_H
#define FREERTOS_CONFIG_H

/* The board's clock (AN385), and a tick of a millisecond. */
#define configCPU_CLOCK_HZ 25000000UL
#define configTICK_RATE_HZ 1000
#define configTICK_TYPE_WIDTH_IN_BITS TICK_TYPE_WIDTH_32_BITS

#define configUSE_PREEMPTION 1
#define configUSE_TIME_SLICING 1
#define configIDLE_SHOULD_YIELD 1
#define configMAX_PRIORITIES 5
#define configMINIMAL_STACK_SIZE 256
#define configMAX_TASK_NAME_LEN 12
#define configCHECK_FOR_STACK_OVERFLOW 2

/* The second notification of each task is the memory manager's: see rtmm_port.c. */
#define configUSE_TASK_NOTIFICATIONS 1
#define configTASK_NOTIFICATION_ARRAY_ENTRIES 2

#define configUSE_TIMERS 1
#define configTIMER_TASK_PRIORITY 4
#define configTIMER_QUEUE_LENGTH 8
#define configTIMER_TASK_STACK_DEPTH 512

/* Everything comes from pvPortMalloc, which is in heap.c. */
#define configSUPPORT_DYNAMIC_ALLOCATION 1
#define configSUPPORT_STATIC_ALLOCATION 0

#define configUSE_IDLE_HOOK 0
#define configUSE_TICK_HOOK 0
#define configUSE_MALLOC_FAILED_HOOK 0
#define configUSE_MUTEXES 1

#define INCLUDE_vTaskDelete 1
#define INCLUDE_vTaskDelay 1
#define INCLUDE_xTaskGetSchedulerState 1
#define INCLUDE_xTaskGetCurrentTaskHandle 1

/* The kernel's interrupts have the lowest priority; those above 0x40 may not call it. */
#define configKERNEL_INTERRUPT_PRIORITY 0xff
#define configMAX_SYSCALL_INTERRUPT_PRIORITY 0x40

/* What the start code calls the handlers. */
#define vPortSVCHandler SVCall
#define xPortPendSVHandler PendSV
#define xPortSysTickHandler SysTick

void demo_failed(const char *file, int line, const char *text);
#define configASSERT(what)                                                                                             \
	do {                                                                                                           \
		if (!(what))                                                                                           \
			demo_failed(__FILE__, __LINE__, #what);                                                        \
	} while (0)

/* A task that ends has no name for the memory manager any more. */
void rtmm_port_task_ends(const void *task);
#define traceTASK_DELETE(task) rtmm_port_task_ends(task)

#endif
