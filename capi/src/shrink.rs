//! What a shrinker in C is asked.

/// What a shrinker is asked; it is only read.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rtmm_shrink_request {
    /// The flags of the request that found no memory.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
    /// The pages it wants.
    pub pages: usize,
    /// How many things to look at; of no meaning to `count`.
    pub scan: usize,
}
