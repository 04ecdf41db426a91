//! Writable and executable together cannot be said.
use mm_core::{AreaOptions, Prot};

fn main() {
    let _ = Prot::ReadWriteExecute;
    let _ = Prot::ReadWrite | Prot::ReadExecute;
    let _ = AreaOptions::new().prot(Prot::ReadWrite, Prot::ReadExecute);
    let _ = 7 as Prot;
}
