// The linker arguments of every board, for the build scripts of the packages that link programs (tests, examples).
// A library's build script cannot pass them on, so both include this file.

/// Prints the linker arguments of the chosen target. `kind` is cargo's name for the programs: `tests`, `examples` or
/// `bins`; `defmt` says that frames are to be decoded from the program's symbols.
fn link_args(kind: &str, defmt: bool) {
    println!("cargo::rerun-if-changed=build.rs");
    let env = |name: &str| std::env::var(name).unwrap_or_default();
    // Its target is named after an operating system; the board has none.
    let bare_i586 = std::env::var_os("CARGO_FEATURE_BOARD_QEMU_I586").is_some();
    let mut scripts = match (env("CARGO_CFG_TARGET_OS").as_str(), env("CARGO_CFG_TARGET_ARCH").as_str()) {
        ("none", "arm") => vec!["link.x"],
        ("none", "riscv32") => vec!["memory.x", "link.x"],
        _ if bare_i586 => vec!["board.x"],
        ("none", _) => vec!["board.x"],
        _ => {
            if defmt {
                // The host's own script (boards/host); a message's number is an address, so it must be final.
                println!("cargo::rustc-link-arg-{kind}=-Tdefmt-host.x");
                println!("cargo::rustc-link-arg-{kind}=-no-pie");
            }
            return;
        }
    };
    if kind == "tests" {
        scripts.push("embedded-test.x");
    }
    if defmt {
        scripts.push("defmt.x");
    }
    for script in scripts {
        println!("cargo::rustc-link-arg-{kind}=-T{script}");
    }
}
