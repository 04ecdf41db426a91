//! Accesses that the hardware must stop, and whose report must name what was hit.
//!
//! Where there is no hardware for it the board's capability constant says so, which `bad_input` asserts, and the test
//! only shows that the calls around the access work.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 30)]
mod tests {
    use core::fmt::{Arguments, Write};
    use heapless::String;
    use rtmm::{Backend, Place, Prot, VmArea};
    use rtmm_tests::board::{self, MM};
    use rtmm_tests::{Bytes, HAS_MMU, NothingLost, PAGE};

    const HAS_GUARD: bool = <board::Backend as Backend>::HAS_GUARD;

    #[init]
    fn init() -> NothingLost {
        NothingLost::watch()
    }

    fn expect(report: Arguments<'_>) {
        let mut text: String<160> = String::new();
        text.write_fmt(report).unwrap();
        board::expect_fault(&text);
    }

    fn survived(addr: usize) -> ! {
        panic!("nothing stopped the access to {addr:#x}")
    }

    /// A store that the compiler can neither drop nor find fault with, and that must not succeed.
    fn poke(addr: usize) -> ! {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        // SAFETY: every caller expects a fault, which does not return; nothing is stored.
        unsafe {
            core::arch::asm!("mov byte ptr [{addr}], 1", addr = in(reg) addr, options(nostack))
        };
        survived(addr)
    }

    /// A load of the same kind.
    fn peek(addr: usize) -> ! {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        // SAFETY: every caller expects a fault; a load changes nothing but a register.
        unsafe {
            core::arch::asm!("mov al, byte ptr [{addr}]", addr = in(reg) addr, out("al") _, options(nostack))
        };
        survived(addr)
    }

    /// The instruction `ret`: executed as data, it comes back and the test sees that nothing stopped it.
    const RETURN: u8 = 0xc3;

    /// A call of the same kind.
    fn execute(addr: usize) -> ! {
        // SAFETY: every caller expects a fault; were there none, the bytes there return at once.
        let function = unsafe { core::mem::transmute::<usize, extern "C" fn()>(addr) };
        function();
        survived(addr)
    }

    #[test]
    fn fault_guard_after_an_area() {
        let area = Bytes::vmalloc(16 * PAGE).unwrap();
        if HAS_GUARD {
            let end = area.addr() + 16 * PAGE;
            expect(format_args!("page fault at {end:#x} (write, not present) in guard after area {:#x}", area.addr()));
            poke(end);
        }
        area.free().unwrap();
    }

    #[test]
    fn fault_guard_before_an_area() {
        let area = Bytes::vmalloc(16 * PAGE).unwrap();
        if HAS_GUARD {
            let before = area.addr() - 1;
            expect(format_args!(
                "page fault at {before:#x} (read, not present) in guard before area {:#x}",
                area.addr()
            ));
            peek(before);
        }
        area.free().unwrap();
    }

    #[test]
    fn fault_guard_between_two_areas_names_both_sides() {
        // With its guard each fills a unit of address space, so that one guard stands between them.
        let areas = [(); 2].map(|()| Bytes::vmalloc(15 * PAGE).unwrap());
        if HAS_GUARD {
            let [lower, upper] =
                if areas[0].addr() < areas[1].addr() { [0, 1] } else { [1, 0] }.map(|i| areas[i].addr());
            let end = lower + 15 * PAGE;
            assert_eq!(upper, end + PAGE);
            let hit = MM.find_area(end).unwrap();
            assert_eq!((hit.place, hit.area.addr), (Place::GuardBefore, upper));
            expect(format_args!(", guard after area {lower:#x}"));
            poke(end);
        }
        for area in areas {
            area.free().unwrap();
        }
    }

    #[test]
    fn fault_write_after_vfree() {
        let mut area = Bytes::vmalloc(4 * PAGE).unwrap();
        // The translation is in the TLB now; only a flush makes the next access look at the tables.
        area.fill(1);
        let addr = area.addr() + PAGE;
        area.free().unwrap();
        if HAS_MMU {
            expect(format_args!("page fault at {addr:#x} (write, not present) in freed area {:#x}", addr - PAGE));
            poke(addr);
        }
    }

    #[test]
    fn fault_read_after_vfree() {
        let mut area = Bytes::vmalloc(4 * PAGE).unwrap();
        area.fill(1);
        let addr = area.addr() + 3 * PAGE;
        area.free().unwrap();
        if HAS_MMU {
            expect(format_args!("page fault at {addr:#x} (read, not present) in freed area {:#x}", addr - 3 * PAGE));
            peek(addr);
        }
    }

    #[test]
    fn fault_read_after_iounmap() {
        let (device, len) = board::mmio();
        let mapping = MM.ioremap(device, len).unwrap();
        let addr = mapping.addr().get();
        // SAFETY: the board says that the range is a device's registers; reading the first has no effect.
        unsafe { mapping.cast::<u32>().read_volatile() };
        MM.iounmap(mapping.as_ptr()).unwrap();
        if HAS_MMU {
            expect(format_args!("page fault at {addr:#x} (read, not present)"));
            peek(addr);
        }
    }

    #[test]
    fn fault_write_to_a_read_only_area() {
        let mut area = VmArea::new_in(2 * PAGE, &MM).unwrap();
        // SAFETY: the area is live and two pages long. The store puts a writable translation into the TLB.
        unsafe { area.as_ptr().add(PAGE).write_volatile(1) };
        if HAS_MMU {
            area.protect(Prot::Read).unwrap();
            let addr = area.as_ptr().addr() + PAGE;
            expect(format_args!("page fault at {addr:#x} (write, present) in area {:#x}", addr - PAGE));
            poke(addr);
        }
    }

    #[test]
    fn fault_execution_of_an_area() {
        let mut area = Bytes::vmalloc(PAGE).unwrap();
        area.fill(RETURN);
        if HAS_MMU {
            let addr = area.addr();
            expect(format_args!("page fault at {addr:#x} (execute, present) in area {addr:#x}"));
            execute(addr);
        }
        area.free().unwrap();
    }

    #[test]
    fn fault_execution_of_an_object() {
        let mut object = Bytes::kmalloc(64, rtmm::GFP_KERNEL).unwrap();
        object.fill(RETURN);
        if HAS_MMU {
            let addr = object.addr();
            expect(format_args!("page fault at {addr:#x} (execute, present)"));
            execute(addr);
        }
        object.free().unwrap();
    }

    #[test]
    #[cfg(feature = "mmu")]
    fn fault_null_read() {
        expect(format_args!("page fault at 0x0 (read, not present) in the null page"));
        peek(0);
    }

    #[test]
    #[cfg(feature = "mmu")]
    fn fault_null_write() {
        expect(format_args!("page fault at 0x0 (write, not present) in the null page"));
        poke(0);
    }

    #[test]
    #[cfg(feature = "mmu")]
    fn fault_field_of_a_null_structure() {
        expect(format_args!("page fault at 0xff8 (write, not present) in the null page"));
        poke(0xff8);
    }

    #[test]
    #[cfg(feature = "mmu")]
    fn fault_null_call() {
        expect(format_args!("page fault at 0x0 (execute, not present) in the null page"));
        execute(core::hint::black_box(0));
    }

    /// What only a kernel of its own has: an image with protections, and a stack with a guard.
    #[cfg(any(feature = "board-qemu-i586", feature = "board-qemu-x86_64"))]
    mod image {
        use rtmm::{Backend, PageTable, VirtAddr, Walk};
        use rtmm_tests::board::MM;

        /// In read-only data.
        pub static CONSTANT: [u64; 4] = [1, 2, 3, 4];

        /// The address at which the direct map shows the frame behind `addr`.
        pub fn alias(addr: usize) -> usize {
            let backend = MM.backend();
            let Walk::Mapped(mapping) = backend.walk_kernel(VirtAddr(addr)) else { panic!("{addr:#x} is not mapped") };
            let frame = (mapping.pfn.0 as usize) << <super::board::Backend as Backend>::PAGE_SHIFT;
            backend.direct_ptr(frame).addr() + addr % super::PAGE
        }

        /// How a report names an address of the direct map: where the image lies in it there is no other one.
        pub fn words(alias: usize, addr: usize) -> &'static str {
            if alias == addr { "" } else { "the direct map of " }
        }
    }

    #[test]
    #[cfg(any(feature = "board-qemu-i586", feature = "board-qemu-x86_64"))]
    fn fault_write_to_read_only_data() {
        let addr = (&raw const image::CONSTANT).addr();
        expect(format_args!("page fault at {addr:#x} (write, present) in kernel rodata"));
        poke(addr);
    }

    #[test]
    #[cfg(any(feature = "board-qemu-i586", feature = "board-qemu-x86_64"))]
    fn fault_write_to_text() {
        let addr = poke as fn(usize) -> ! as usize;
        expect(format_args!("page fault at {addr:#x} (write, present) in kernel text"));
        poke(addr);
    }

    #[test]
    #[cfg(any(feature = "board-qemu-i586", feature = "board-qemu-x86_64"))]
    fn fault_write_to_the_direct_map_of_text() {
        let text = poke as fn(usize) -> ! as usize;
        let addr = image::alias(text);
        let words = image::words(addr, text);
        expect(format_args!("page fault at {addr:#x} (write, present) in {words}kernel text"));
        poke(addr);
    }

    #[test]
    #[cfg(any(feature = "board-qemu-i586", feature = "board-qemu-x86_64"))]
    fn fault_write_to_the_direct_map_of_read_only_data() {
        let constant = (&raw const image::CONSTANT).addr();
        let addr = image::alias(constant);
        let words = image::words(addr, constant);
        expect(format_args!("page fault at {addr:#x} (write, present) in {words}kernel rodata"));
        poke(addr);
    }

    #[test]
    #[cfg(any(feature = "board-qemu-i586", feature = "board-qemu-x86_64"))]
    fn fault_execution_of_the_direct_map_of_text() {
        let text = poke as fn(usize) -> ! as usize;
        let addr = image::alias(text);
        if addr != text {
            expect(format_args!("page fault at {addr:#x} (execute, present) in the direct map of kernel text"));
            execute(addr);
        }
    }

    #[test]
    #[cfg(any(feature = "board-qemu-i586", feature = "board-qemu-x86_64"))]
    fn fault_execution_of_a_static() {
        static CODE: core::sync::atomic::AtomicU8 = core::sync::atomic::AtomicU8::new(RETURN);
        let addr = CODE.as_ptr().addr();
        expect(format_args!("page fault at {addr:#x} (execute, present) in kernel data"));
        execute(addr);
    }

    #[test]
    #[cfg(any(feature = "board-qemu-i586", feature = "board-qemu-x86_64"))]
    fn fault_execution_of_the_stack() {
        let code = core::hint::black_box([RETURN; 16]);
        let addr = (&raw const code).addr();
        expect(format_args!("page fault at {addr:#x} (execute, present) in the kernel stack"));
        execute(addr);
    }

    #[test]
    #[cfg(any(feature = "board-qemu-i586", feature = "board-qemu-x86_64"))]
    fn fault_overflow_of_the_stack() {
        #[allow(unconditional_recursion, reason = "the overflow is what is tested")]
        fn deeper(depth: u64) -> u64 {
            let frame = core::hint::black_box([depth; 64]);
            deeper(depth + 1) + frame[3]
        }
        expect(format_args!("in the guard page below the kernel stack"));
        core::hint::black_box(deeper(0));
    }

    #[test]
    #[cfg(any(feature = "board-qemu-i586", feature = "board-qemu-x86_64"))]
    fn no_frame_is_writable_and_executable_by_any_route() {
        use rtmm::PageTable;
        use rtmm::backend::{Hw, kernel};
        let mut areas = [(); 4].map(|()| Bytes::vmalloc(3 * PAGE).unwrap());
        areas.iter_mut().for_each(|area| area.fill(1));
        let root = MM.backend().kernel_root();
        // SAFETY: the root is the live one, and one CPU runs, here.
        let found = unsafe { kernel::writable_and_executable(&Hw, root) };
        assert_eq!(found, None, "frame {found:x?}");
        for area in areas {
            area.free().unwrap();
        }
    }
}
