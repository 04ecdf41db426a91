//! What the snapshots in the manner of `/proc` say.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 30)]
mod tests {
    use core::fmt::{Display, Write};
    use heapless::String;
    use rtmm::{AreaKind, CacheFlags, GFP_KERNEL};
    use rtmm_tests::board::{self, MM};
    use rtmm_tests::{Bytes, NothingLost, PAGE};

    #[init]
    fn init() -> NothingLost {
        NothingLost::watch()
    }

    fn text(report: impl Display) -> String<8192> {
        let mut text = String::new();
        write!(text, "{report}").expect("the report fits");
        text
    }

    /// The line that begins with `name`, in words.
    fn line<'a>(report: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
        let line = report.lines().find(|line| line.trim_start().starts_with(name));
        line.unwrap_or_else(|| panic!("no line `{name}` in\n{report}")).split_ascii_whitespace()
    }

    #[test]
    fn meminfo_accounts_for_every_page() {
        let block = Bytes::pages(GFP_KERNEL, 3).unwrap();
        let area = Bytes::vmalloc(5 * PAGE).unwrap();
        let object = Bytes::kmalloc(100, GFP_KERNEL).unwrap();
        let info = MM.meminfo();
        let used = info.reserved + info.slab + info.descriptors + info.page_tables + info.vmalloc + info.pages;
        assert_eq!(info.total, used + info.free);
        assert_eq!(info.free, (MM.free_page_count() * PAGE) as u64);
        assert!(info.pages >= 8 * PAGE as u64 && info.vmalloc >= 5 * PAGE as u64 && info.slab > 0);
        let text = text(info);
        let free: u64 = line(&text, "MemFree:").nth(1).unwrap().parse().unwrap();
        assert_eq!(free, info.free / 1024);
        object.free().unwrap();
        area.free().unwrap();
        block.free().unwrap();
    }

    /// Everything the manager keeps for itself while nothing is allocated: its static, and the tables beside the RAM.
    #[test]
    fn the_managers_own_memory_is_small() {
        MM.drain();
        let info = MM.meminfo();
        let tables = (info.reserved + info.descriptors) as usize;
        let own = size_of_val(&MM) + tables;
        board::say!("OVERHEAD {} bytes: static {}, tables {}, of {} of RAM", own, own - tables, tables, info.total);
        if PAGE < 4096 {
            assert!(own < 3 << 10, "{own} bytes");
        } else {
            // 1 in 64 is a byte of table for every 64 of RAM; the direct map's tables are counted with an MMU.
            assert!(own < info.total as usize / 64, "{own} bytes of {}", info.total);
        }
    }

    #[test]
    fn buddyinfo_adds_up_to_the_free_pages() {
        let info = MM.buddyinfo();
        let pages = |blocks: &[usize]| blocks.iter().enumerate().map(|(order, count)| count << order).sum::<usize>();
        let sum: usize = info.zones().iter().map(|zone| pages(&zone.blocks)).sum();
        assert_eq!(sum, MM.free_page_count());
        assert!(text(info).contains("zone"));
    }

    #[test]
    fn zoneinfo_lists_every_zone_with_its_pages() {
        let info = MM.zoneinfo();
        assert!(!info.zones().is_empty());
        for zone in info.zones() {
            assert!(zone.free <= zone.managed && zone.managed <= zone.present, "{zone:?}");
            assert!(zone.present <= (zone.span.1 - zone.span.0) as usize, "{zone:?}");
        }
        let free: usize = info.zones().iter().map(|zone| zone.free).sum();
        assert_eq!(free, MM.free_page_count());
        assert!(text(info).contains("present"));
    }

    #[test]
    fn slabinfo_counts_live_objects() {
        let (_, before) = MM.slabinfo().class(100).unwrap();
        let objects = [(); 5].map(|()| Bytes::kmalloc(100, GFP_KERNEL).unwrap());
        let (size, now) = MM.slabinfo().class(100).unwrap();
        assert_eq!(now.active, before.active + 5);
        assert!(size >= 100 && now.objects >= now.active);

        let cache = MM.kmem_cache_create("listed", 56, 8, CacheFlags::empty(), None).unwrap();
        let object = cache.alloc(GFP_KERNEL).unwrap();
        let text = text(MM.slabinfo());
        assert_eq!(line(&text, "listed").nth(1), Some("1"), "{text}");
        cache.free(object.as_ptr()).unwrap();
        cache.destroy().map_err(|(_, error)| error).unwrap();
        for object in objects {
            object.free().unwrap();
        }
    }

    #[test]
    fn vmallocinfo_lists_live_areas_by_address() {
        let before = MM.vmallocinfo().count();
        let mut areas = [1, 2, 3].map(|pages| Bytes::vmalloc(pages * PAGE).unwrap());
        let (device, len) = board::mmio();
        let mapping = MM.ioremap(device, len).unwrap();
        assert_eq!(MM.vmallocinfo().count(), before + 4);
        areas.sort_unstable_by_key(Bytes::addr);
        let mut from = 0;
        let (mut found, mut devices) = (0, 0);
        for area in MM.vmallocinfo().areas() {
            assert!(area.addr >= from);
            found += areas.iter().filter(|own| own.addr() == area.addr && own.len() == area.size).count();
            devices += usize::from(area.kind == AreaKind::Ioremap && area.phys == device.0);
            from = area.addr + area.size;
        }
        assert_eq!((found, devices), (3, 1));
        let text = text(MM.vmallocinfo());
        assert!(text.contains("tests/reports.rs") && text.contains("ioremap"), "{text}");
        MM.iounmap(mapping.as_ptr()).unwrap();
        for area in areas {
            area.free().unwrap();
        }
        assert_eq!(MM.vmallocinfo().count(), before);
    }
}
