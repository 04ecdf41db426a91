//! The scull family: four memory-backed devices, alike but for where a quantum of memory comes from.
//!
//! They are the teaching drivers of *Linux Device Drivers* (third edition, chapters 3 and 8), written anew. A
//! [`Device`] is a list of sets, a set is an array of quanta, and a [`Store`] says what a quantum is:
//!
//! | device | store | a quantum |
//! |---|---|---|
//! | scull | [`Kmalloc`] | 4000 bytes by `kmalloc` |
//! | scullc | [`Cached`] | 4000 bytes, an object of a cache |
//! | scullp | [`Paged`] | `PAGE_SIZE << order` by `get_free_pages` |
//! | scullv | [`Virtual`] | `PAGE_SIZE << order` by `vmalloc` |

mod device;
mod store;

pub use device::Device;
pub use store::{Cached, Kmalloc, Paged, Store, Virtual};

#[cfg(test)]
mod tests;
