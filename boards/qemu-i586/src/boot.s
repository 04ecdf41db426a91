# From the loader to Rust: 32 bits, from paging off to PAE.
#
# The loader follows the PVH protocol of Xen (docs/misc/pvh.pandoc): EBX holds the physical address of
# hvm_start_info, segments are flat, paging and interrupts are off, and memory past the file's bytes is zeroed.
# EAX says nothing: some loaders leave a multiboot number there.

# The ELF note that names the entry: name "Xen", type 18 = XEN_ELFNOTE_PHYS32_ENTRY. The address has 8 bytes because
# QEMU reads a size_t.
.section .note.pvh, "a", @note
.balign 4
    .long 4, 8, 18
    .asciz "Xen"
    .long pvh_start, 0

.section .boot, "awx", @progbits
.global pvh_start
pvh_start:
    cli
    cld
    # The boot tables: the first GiB in 2 MiB entries, present, writable (0x83), where it is and at 3 GiB. Not global:
    # the final tables replace them by loading CR3, which keeps global entries in the TLB.
    mov $boot_pd, %edi
    xor %ecx, %ecx
1:  mov %ecx, %eax
    shl $21, %eax
    or $0x83, %eax
    mov %eax, (%edi,%ecx,8)
    movl $0, 4(%edi,%ecx,8)
    inc %ecx
    cmp $512, %ecx
    jb 1b
    # Links of the root have no protection bits, only present.
    movl $(boot_pd + 1), boot_pdpt + 0                   # where this code runs
    movl $(boot_pd + 1), boot_pdpt + 3*8                 # the direct map and the kernel, 0xc000_0000

    mov $0xa0, %eax                                      # CR4: PAE | PGE
    mov %eax, %cr4
    mov $boot_pdpt, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx                                # EFER |= NXE
    rdmsr
    or $0x800, %eax
    wrmsr
    mov $0x80010033, %eax                                # CR0: PG | WP | NE | ET | MP | PE
    mov %eax, %cr0
    lgdt boot_gdtr
    ljmp $0x08, $paged_entry
paged_entry:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    fninit
    mov $stack_top, %esp
    xor %ebp, %ebp
    # Arguments lie at a multiple of 16.
    sub $12, %esp
    push %ebx                                            # the start info's address
    mov ${start}, %eax
    call *%eax
    ud2

.balign 8
boot_gdt:
    .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff      # null, 32-bit code, data
boot_gdtr:
    .word 23
    .long boot_gdt

.section .boot.bss, "aw", @nobits
.balign 4096
boot_pdpt:        .skip 4096
boot_pd:          .skip 4096

# The guard page, then the stack.
.section .stack, "aw", @nobits
.balign 4096
    .skip 4096
    .skip {stack_size}
.global stack_top
stack_top:
.text
