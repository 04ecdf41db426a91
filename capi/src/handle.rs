//! What C holds by pointer and never looks into, and the names of address and size.

/// A cache of objects of one size. C holds it by pointer.
pub struct rtmm_cache {
    _opaque: (),
}

/// A pool of elements set aside. C holds it by pointer.
pub struct rtmm_mempool {
    _opaque: (),
}

/// Somebody who gives memory back when it is short. C holds it by pointer.
pub struct rtmm_shrinker {
    _opaque: (),
}
