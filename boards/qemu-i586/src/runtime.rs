//! What compiled code expects of every target and this one's libraries keep to themselves: the memory functions, and
//! names that only unwinding would use.
//!
//! Written in assembly, since a compiler turns loops that copy into calls of these functions. The direction flag is
//! clear, as the calling convention wants it.

use core::arch::naked_asm;

/// Copies `count` bytes between places that do not overlap.
///
/// # Safety
/// As C's `memcpy`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    naked_asm!(
        "push esi",
        "push edi",
        "mov edi, [esp + 12]",
        "mov esi, [esp + 16]",
        "mov ecx, [esp + 20]",
        "mov edx, ecx",
        "shr ecx, 2",
        "rep movsd",
        "mov ecx, edx",
        "and ecx, 3",
        "rep movsb",
        "mov eax, [esp + 12]",
        "pop edi",
        "pop esi",
        "ret",
    )
}

/// Copies `count` bytes between places that may overlap.
///
/// # Safety
/// As C's `memmove`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    naked_asm!(
        "mov eax, [esp + 4]",
        "mov ecx, [esp + 12]",
        "sub eax, [esp + 8]",
        // Upwards unless the target begins inside the source.
        "cmp eax, ecx",
        "jae {memcpy}",
        "push esi",
        "push edi",
        "mov edi, [esp + 12]",
        "mov esi, [esp + 16]",
        "lea edi, [edi + ecx - 1]",
        "lea esi, [esi + ecx - 1]",
        "mov edx, ecx",
        "and ecx, 3",
        "std",
        "rep movsb",
        "sub edi, 3",
        "sub esi, 3",
        "mov ecx, edx",
        "shr ecx, 2",
        "rep movsd",
        "cld",
        "mov eax, [esp + 12]",
        "pop edi",
        "pop esi",
        "ret",
        memcpy = sym memcpy,
    )
}

/// Fills `count` bytes.
///
/// # Safety
/// As C's `memset`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    naked_asm!(
        "push edi",
        "mov edi, [esp + 8]",
        "movzx eax, byte ptr [esp + 12]",
        "imul eax, eax, 0x01010101",
        "mov edx, [esp + 16]",
        "mov ecx, edx",
        "shr ecx, 2",
        "rep stosd",
        "mov ecx, edx",
        "and ecx, 3",
        "rep stosb",
        "mov eax, [esp + 8]",
        "pop edi",
        "ret",
    )
}

/// Compares `count` bytes as numbers: the difference of the first two that differ, or 0.
///
/// # Safety
/// As C's `memcmp`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memcmp(one: *const u8, two: *const u8, count: usize) -> i32 {
    naked_asm!(
        "push esi",
        "push edi",
        "mov esi, [esp + 12]",
        "mov edi, [esp + 16]",
        "mov ecx, [esp + 20]",
        "xor eax, eax",
        // With a count of 0 nothing is compared, and this makes the flags equal.
        "cmp eax, eax",
        "repe cmpsb",
        "je 2f",
        "movzx eax, byte ptr [esi - 1]",
        "movzx edx, byte ptr [edi - 1]",
        "sub eax, edx",
        "2:",
        "pop edi",
        "pop esi",
        "ret",
    )
}

/// Compares `count` bytes: 0 when all are equal.
///
/// # Safety
/// As C's `memcmp`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn bcmp(one: *const u8, two: *const u8, count: usize) -> i32 {
    naked_asm!("jmp {memcmp}", memcmp = sym memcmp)
}

/// The bytes of a string before its closing zero.
///
/// # Safety
/// As C's `strlen`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    naked_asm!(
        "push edi",
        "mov edi, [esp + 8]",
        "xor eax, eax",
        "mov ecx, -1",
        "repne scasb",
        // The count went down by one for each byte, the zero included.
        "not ecx",
        "lea eax, [ecx - 1]",
        "pop edi",
        "ret",
    )
}

/// Named by the unwind tables of the precompiled `core`; a panic ends the machine before anything is unwound.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() -> ! {
    panic!("nothing unwinds here")
}

/// As above.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    panic!("nothing unwinds here")
}
