//! A defmt logger that keeps the encoded frames.

use std::cell::RefCell;
use std::sync::Mutex;

#[defmt::global_logger]
struct Logger;

static FRAMES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

std::thread_local! {
    static ENCODER: RefCell<(defmt::Encoder, Vec<u8>)> = const { RefCell::new((defmt::Encoder::new(), Vec::new())) };
}

fn encode(f: impl FnOnce(&mut defmt::Encoder, &mut Vec<u8>)) {
    ENCODER.with_borrow_mut(|(encoder, bytes)| f(encoder, bytes));
}

// SAFETY: each thread encodes into its own buffer, so acquire needs no lock and cannot deadlock; whole frames are
// appended under the mutex.
unsafe impl defmt::Logger for Logger {
    fn acquire() {
        encode(|encoder, bytes| encoder.start_frame(|part| bytes.extend_from_slice(part)));
    }

    unsafe fn flush() {}

    unsafe fn release() {
        encode(|encoder, bytes| {
            encoder.end_frame(|part| bytes.extend_from_slice(part));
            FRAMES.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).append(bytes);
        });
    }

    unsafe fn write(part: &[u8]) {
        encode(|encoder, bytes| encoder.write(part, |part| bytes.extend_from_slice(part)));
    }
}

defmt::timestamp!("{=u8}", 0);

/// Everything logged by any thread since the last call, encoded.
pub fn take() -> Vec<u8> {
    core::mem::take(&mut FRAMES.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_logged_is_kept() {
        super::take();
        defmt::error!("number {=u8}", 0x5a);
        assert!(!super::take().is_empty());
    }
}
