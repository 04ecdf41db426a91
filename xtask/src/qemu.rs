//! The command that boots a program on a board.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::boards::{Board, Door, Qemu, Ram};
use crate::cargo;

/// What a single run wants beside its program.
#[derive(Debug, Clone, Default)]
pub struct Boot {
    /// Words for the guest.
    pub args: Vec<String>,
    /// A file for the guest.
    pub file: Option<PathBuf>,
    /// `-M`, when not the board's default.
    pub machine: Option<String>,
    /// `-cpu`, when not the board's.
    pub cpu: Option<String>,
    /// CPUs, when not one.
    pub cpus: Option<u32>,
    /// RAM, when not the board's default.
    pub ram: Option<String>,
    /// A file to be the RAM.
    pub ram_file: Option<PathBuf>,
    /// A display, and the socket of a monitor that can look at it.
    pub screen: Option<(&'static str, PathBuf)>,
    /// Count instructions exactly.
    pub icount: bool,
    /// The program's text comes as defmt frames.
    pub defmt: bool,
}

/// The command that runs `program` on `board`.
///
/// Whatever the board, the program's text or frames come on standard output and plain text about trouble on standard
/// error.
pub fn command(board: &Board, program: &Path, boot: &Boot) -> Result<Command> {
    match &board.qemu {
        Some(qemu) => emulator(board, qemu, program, boot),
        None => process(board, program, boot),
    }
}

/// A program of the host: the arguments are its own.
fn process(board: &Board, program: &Path, boot: &Boot) -> Result<Command> {
    if boot.machine.is_some() || boot.cpu.is_some() || boot.cpus.is_some() || boot.ram.is_some() {
        bail!("{} is a process: it has no machine, CPUs or RAM to choose", board.name);
    }
    let mut command = Command::new(program);
    command.args(&boot.args).args(file_word(boot)?);
    Ok(command)
}

fn emulator(board: &Board, qemu: &Qemu, program: &Path, boot: &Boot) -> Result<Command> {
    let mut command = Command::new(qemu.program);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot"]);
    let (mut machine, ram) =
        (qemu.machine(boot.machine.as_deref())?.to_owned(), ram(board, qemu, boot.ram.as_deref())?);
    if let Some(file) = &boot.ram_file {
        machine.push_str(",memory-backend=ram");
        let backend = format!("memory-backend-file,id=ram,size={ram},share=on,mem-path={}", file.display());
        command.args(["-object", &backend]);
    }
    command.args(["-M", &machine]);
    command.args(qemu.args);
    if let Some(cpu) = &boot.cpu {
        // Of two, QEMU takes the last.
        command.args(["-cpu", cpu]);
    }
    command.args(["-m", ram]);
    if let Some(cpus) = boot.cpus {
        if !(1..=qemu.max_cpus).contains(&cpus) {
            bail!("{} starts at most {} CPU(s), not {cpus}", board.name, qemu.max_cpus);
        }
        command.args(["-smp", &cpus.to_string()]);
    }
    if boot.icount {
        command.args(qemu.icount);
    }
    match qemu.door {
        Door::Pvh => {
            // Frames need the debug port to themselves; text then goes beside them, on standard error.
            let ports = match boot.defmt {
                true => ["-serial", "file:/dev/stderr", "-debugcon", "stdio"].as_slice(),
                false => &["-serial", "stdio"],
            };
            command.args(ports);
            if let Some(file) = &boot.file {
                command.arg("-initrd").arg(file);
            }
            command.arg("-append").arg(boot.args.join(" "));
        }
        Door::Semihosting => {
            let mut config = "enable=on,target=native".to_owned();
            for word in boot.args.iter().cloned().chain(file_word(boot)?) {
                // QEMU parts options at commas; a doubled one is itself.
                config.push_str(&format!(",arg={}", word.replace(',', ",,")));
            }
            command.args(["-serial", "none", "-semihosting-config", &config]);
        }
    }
    if let Some((device, monitor)) = &boot.screen {
        let socket = format!("socket,id=screen,path={},server=on,wait=off", monitor.display());
        command.args(["-device", device, "-chardev", &socket, "-mon", "chardev=screen"]);
    }
    command.arg("-kernel").arg(program);
    Ok(command)
}

/// RAM as asked for, where the machine allows it.
fn ram<'a>(board: &Board, qemu: &Qemu, wanted: Option<&'a str>) -> Result<&'a str> {
    match (qemu.ram, wanted) {
        (Ram::Default(ram) | Ram::Fixed(ram), None) => Ok(ram),
        (Ram::Default(_), Some(wanted)) => Ok(wanted),
        (Ram::Fixed(ram), Some(wanted)) if ram == wanted => Ok(ram),
        (Ram::Fixed(ram), Some(wanted)) => bail!("{} has {ram} of RAM, no more and no less: not {wanted}", board.name),
    }
}

/// `file=PATH`, which a guest opens itself.
fn file_word(boot: &Boot) -> Result<Option<String>> {
    let Some(file) = &boot.file else { return Ok(None) };
    let path = std::path::absolute(file)?;
    Ok(Some(format!("file={}", without_blanks(&path)?)))
}

/// The path itself, or that of a link to it: a guest's arguments are parted at blanks.
fn without_blanks(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not a name a guest can read", path.display()))?;
    if !text.contains(char::is_whitespace) {
        return Ok(text.to_owned());
    }
    let folder = cargo::root().join("target/xtask");
    std::fs::create_dir_all(&folder)?;
    let link = folder.join(format!("file-{}", std::process::id()));
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(path, &link).with_context(|| format!("cannot link {}", link.display()))?;
    match link.to_str() {
        Some(text) if !text.contains(char::is_whitespace) => Ok(text.to_owned()),
        _ => bail!("neither {} nor {} is free of blanks", path.display(), link.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::shown;

    fn line(board: &str, boot: &Boot) -> String {
        shown(&command(Board::named(board).unwrap(), Path::new("/t/suite"), boot).unwrap())
    }

    fn refusal(board: &str, boot: &Boot) -> String {
        command(Board::named(board).unwrap(), Path::new("/t/suite"), boot).unwrap_err().to_string()
    }

    #[test]
    fn x86_takes_arguments_and_files_through_the_pvh_start_info() {
        let args = vec!["run_addr".to_owned(), "4096".to_owned()];
        let boot = Boot { args, file: Some("/tmp/a b".into()), machine: Some("q35".into()), ..Boot::default() };
        let line = line("qemu-x86_64", &boot);
        for part in ["-M q35", "-append 'run_addr 4096'", "-initrd '/tmp/a b'", "-serial stdio", "-kernel /t/suite"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!line.contains("-icount"));
    }

    #[test]
    fn semihosting_takes_each_argument_and_doubles_commas() {
        let boot = Boot { args: vec!["a,b".to_owned()], file: Some("/tmp/x".into()), icount: true, ..Boot::default() };
        let line = line("mps2-an385", &boot);
        assert!(line.contains("arg=a,,b,arg=file=/tmp/x"), "{line}");
        assert!(line.contains("-icount shift=6,sleep=off"), "{line}");
    }

    #[test]
    fn frames_and_text_of_x86_come_apart() {
        let line = line("qemu-x86_64", &Boot { defmt: true, ..Boot::default() });
        assert!(line.contains("-serial file:/dev/stderr -debugcon stdio"), "{line}");
    }

    #[test]
    fn what_a_machine_has_not_is_refused() {
        let ram = |ram: &str| Boot { ram: Some(ram.to_owned()), ..Boot::default() };
        assert!(refusal("mps2-an385", &ram("64M")).contains("16M"));
        assert!(line("mps2-an385", &ram("16M")).contains("-m 16M"));
        assert!(line("qemu-x86_64", &ram("5G")).contains("-m 5G"));
        assert!(refusal("virt-aarch64", &Boot { cpus: Some(0), ..Boot::default() }).contains("CPU"));
        assert!(refusal("host", &ram("1G")).contains("process"));
    }

    #[test]
    fn a_host_program_gets_its_arguments_directly() {
        let boot = Boot { args: vec!["run".to_owned(), "tests::a".to_owned()], ..Boot::default() };
        assert_eq!(line("host-mmu", &boot), "/t/suite run tests::a");
    }
}
