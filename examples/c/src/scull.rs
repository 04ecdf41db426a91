//! The drivers, as Rust sees them.

use core::ffi::{CStr, c_char, c_int, c_uint};
use core::marker::{PhantomData, PhantomPinned};
use core::ptr;

/// `struct scull_dev`, which only C looks into.
#[repr(C)]
struct RawDevice {
    _opaque: [u8; 0],
    _pinned: PhantomData<(*mut u8, PhantomPinned)>,
}

unsafe extern "C" {
    fn scull_create(name: *const c_char, made: *mut *mut RawDevice) -> c_int;
    fn scull_destroy(device: *mut RawDevice);
    fn scull_open_for_write(device: *mut RawDevice);
    fn scull_write(device: *mut RawDevice, from: *const c_char, count: usize, position: *mut i64) -> isize;
    fn scull_read(device: *mut RawDevice, to: *mut c_char, count: usize, position: *mut i64) -> isize;
    fn scull_page_shift() -> c_uint;
}

/// log2 of the page size the drivers were compiled for.
pub fn page_shift() -> u32 {
    // SAFETY: it only gives a number.
    unsafe { scull_page_shift() }
}

/// One of the four devices.
pub struct Device(*mut RawDevice);

impl Device {
    /// Makes the device of this name.
    ///
    /// # Errors
    /// The driver's negative errno value.
    pub fn new(name: &CStr) -> Result<Device, i32> {
        let mut made = ptr::null_mut();
        // SAFETY: the name is a string, and the result has room for a pointer.
        match unsafe { scull_create(name.as_ptr(), &mut made) } {
            0 => Ok(Device(made)),
            errno => Err(errno),
        }
    }

    /// Empties it.
    pub fn open_for_write(&mut self) {
        // SAFETY: the device lives.
        unsafe { scull_open_for_write(self.0) }
    }

    /// Writes at `at`; the bytes taken.
    ///
    /// # Errors
    /// The driver's negative errno value.
    pub fn write(&mut self, at: usize, data: &[u8]) -> Result<usize, i32> {
        let mut position = at as i64;
        // SAFETY: the device lives, and the data are as long as told.
        let taken = unsafe { scull_write(self.0, data.as_ptr().cast(), data.len(), &mut position) };
        usize::try_from(taken).map_err(|_| taken as i32)
    }

    /// Reads at `at`; the bytes given.
    pub fn read(&self, at: usize, data: &mut [u8]) -> usize {
        let mut position = at as i64;
        // SAFETY: the device lives, and the buffer is as long as told.
        let given = unsafe { scull_read(self.0, data.as_mut_ptr().cast(), data.len(), &mut position) };
        usize::try_from(given).unwrap_or(0)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: made by the driver, and used for the last time.
        unsafe { scull_destroy(self.0) }
    }
}
