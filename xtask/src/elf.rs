//! Reading what the linker wrote: tests, sections, symbols.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SectionFlags, SectionKind};
use serde::Deserialize;

/// One test of a suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Module path and name, without the crate.
    pub name: String,
    /// Its entry on the target; `None` on the host, where it is run by name.
    pub address: Option<u64>,
    /// Marked `#[ignore]`.
    pub ignored: bool,
    /// Marked `#[should_panic]`.
    pub should_panic: bool,
    /// Its own time limit in seconds, before scaling.
    pub timeout: Option<u64>,
}

/// What embedded-test puts into the name of a symbol, and on the host into its list.
#[derive(Deserialize)]
struct Meta {
    name: String,
    ignored: bool,
    should_panic: bool,
    timeout: Option<u64>,
}

impl Meta {
    fn case(self, module: Option<&str>, address: Option<u64>) -> Case {
        let name = match module {
            Some(module) => format!("{module}::{}", self.name),
            None => self.name,
        };
        Case { name, address, ignored: self.ignored, should_panic: self.should_panic, timeout: self.timeout }
    }
}

/// Lists the tests of a bare-metal suite.
///
/// embedded-test 0.7 leaves one data symbol per test in the section `.embedded_test`, which is not loaded: its name is
/// JSON, its data are the entry address and the module path as address and length.
pub fn cases(elf: &[u8]) -> Result<Vec<Case>> {
    let file = object::File::parse(elf).context("not an ELF file")?;
    let Some(section) = file.section_by_name(".embedded_test") else {
        bail!("no section .embedded_test: the suite was not linked with embedded-test.x")
    };
    let data = section.data()?;
    let word = if file.is_64() { 8 } else { 4 };
    let read = |offset: usize| -> Result<u64> {
        let bytes = data.get(offset..offset + word).context("a test's record lies outside its section")?;
        let mut wide = [0; 8];
        wide[..word].copy_from_slice(bytes);
        Ok(u64::from_le_bytes(wide))
    };
    let mut cases = Vec::new();
    for symbol in file.symbols().filter(|symbol| symbol.section_index() == Some(section.index())) {
        let name = symbol.name()?;
        if !name.starts_with('{') {
            continue;
        }
        let meta: Meta = serde_json::from_str(name).with_context(|| format!("a test named {name}"))?;
        let offset =
            symbol.address().checked_sub(section.address()).context("a test's symbol lies before its section")?;
        let offset = usize::try_from(offset)?;
        let module = loaded(&file, read(offset + word)?, read(offset + 2 * word)?)?;
        let module = std::str::from_utf8(module).context("a module path that is not text")?;
        let module = module.split_once("::").map(|(_, inner)| inner);
        cases.push(meta.case(module, Some(read(offset)?)));
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

/// The bytes the loader puts at an address.
fn loaded<'data>(file: &object::File<'data>, address: u64, length: u64) -> Result<&'data [u8]> {
    for segment in file.segments() {
        let Some(offset) = address.checked_sub(segment.address()) else { continue };
        let range = usize::try_from(offset)?..usize::try_from(offset.saturating_add(length))?;
        if let Some(bytes) = segment.data()?.get(range) {
            return Ok(bytes);
        }
    }
    bail!("{address:#x} is in no loaded segment: link with a static relocation model")
}

/// Reads the list a suite prints on the host; lines of other text around it are passed over.
pub fn cases_of_list(output: &str) -> Result<Vec<Case>> {
    #[derive(Deserialize)]
    struct List {
        tests: Vec<Meta>,
    }
    let line = output.lines().find(|line| line.starts_with('{')).context("the suite printed no list of tests")?;
    let list: List = serde_json::from_str(line).context("a list of tests that is not understood")?;
    let mut cases: Vec<Case> = list.tests.into_iter().map(|meta| meta.case(None, None)).collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

/// Bytes a program takes on its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Code.
    pub text: u64,
    /// Constants.
    pub rodata: u64,
    /// Data with a first value, which takes room twice: in the image and in RAM.
    pub data: u64,
    /// Zeroed data.
    pub bss: u64,
}

/// Adds up a program's sections by what they are.
pub fn size(elf: &[u8]) -> Result<Size> {
    let file = object::File::parse(elf).context("not an ELF file")?;
    let mut size = Size::default();
    for section in file.sections() {
        // SHF_ALLOC; debug information, the tests' records and defmt's strings do not reach the target.
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        if sh_flags & u64::from(object::elf::SHF_ALLOC) == 0 {
            continue;
        }
        let total = match section.kind() {
            SectionKind::Text => &mut size.text,
            SectionKind::UninitializedData => &mut size.bss,
            SectionKind::Data => &mut size.data,
            _ => &mut size.rodata,
        };
        *total += section.size();
    }
    Ok(size)
}

/// How many symbols of a program name each of `crates`, in the path or in a type they were made for.
pub fn symbols_naming(elf: &[u8], crates: &[&'static str]) -> Result<BTreeMap<&'static str, Vec<String>>> {
    let file = object::File::parse(elf).context("not an ELF file")?;
    let mut found: BTreeMap<&'static str, Vec<String>> = crates.iter().map(|name| (*name, Vec::new())).collect();
    for symbol in file.symbols() {
        // A name that is not text is not Rust's.
        let Ok(name) = symbol.name() else { continue };
        let name = format!("{:#}", rustc_demangle::demangle(name));
        for (wanted, names) in &mut found {
            if name.contains(&format!("{wanted}::")) {
                names.push(name.clone());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use object::write::{Object as Writer, StandardSection, Symbol, SymbolSection};
    use object::{Architecture, BinaryFormat, Endianness, SymbolFlags, SymbolKind, SymbolScope};

    use super::*;

    /// A relocatable file with one function of `code` bytes called `symbol` and `bss` zeroed bytes.
    fn program(symbol: &str, code: usize, bss: u64) -> Vec<u8> {
        let mut writer = Writer::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let text = writer.section_id(StandardSection::Text);
        writer.append_section_data(text, &vec![0x90; code], 1);
        let zeroed = writer.section_id(StandardSection::UninitializedData);
        writer.append_section_bss(zeroed, bss, 1);
        writer.add_symbol(Symbol {
            name: symbol.into(),
            value: 0,
            size: code as u64,
            kind: SymbolKind::Text,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(text),
            flags: SymbolFlags::None,
        });
        writer.write().unwrap()
    }

    #[test]
    fn host_list_is_read_between_other_lines() {
        let output = "booting\n{\"version\":0,\"tests\":[{\"name\":\"tests::b\",\"should_panic\":true,\"ignored\":false,\
            \"timeout\":5},{\"name\":\"tests::a\",\"should_panic\":false,\"ignored\":true,\"timeout\":null}]}\n";
        let cases = cases_of_list(output).unwrap();
        assert_eq!(
            cases[0],
            Case { name: "tests::a".into(), address: None, ignored: true, should_panic: false, timeout: None }
        );
        assert_eq!((cases[1].name.as_str(), cases[1].should_panic, cases[1].timeout), ("tests::b", true, Some(5)));
        assert!(cases_of_list("nothing\n").is_err());
    }

    #[test]
    fn a_program_without_tests_is_refused() {
        let error = cases(&program("main", 4, 0)).unwrap_err().to_string();
        assert!(error.contains("embedded-test.x"), "{error}");
        assert!(cases(b"#!/bin/sh").is_err());
    }

    #[test]
    fn sections_are_added_up_by_kind() {
        let size = size(&program("main", 48, 4096)).unwrap();
        assert_eq!((size.text, size.bss, size.data), (48, 4096, 0));
    }

    #[test]
    fn symbols_are_found_by_the_crate_in_their_path() {
        let elf = program("_ZN13backend_nommu7vmalloc17h0123456789abcdefE", 4, 0);
        let found = symbols_naming(&elf, &["backend_nommu", "backend_mmu_x86"]).unwrap();
        assert_eq!(found["backend_nommu"], ["backend_nommu::vmalloc"]);
        assert!(found["backend_mmu_x86"].is_empty());
    }
}
