//! What C holds by pointer and never looks into, and the names of address and size.

/// A cache of objects of one size. C holds it by pointer, and gives it back by `rtmm_kmem_cache_destroy` only: any other
/// free refuses it.
pub struct rtmm_cache {
    _opaque: (),
}

/// A pool of elements set aside. C holds it by pointer, and gives it back by `rtmm_mempool_destroy` only: any other free
/// refuses it.
pub struct rtmm_mempool {
    _opaque: (),
}

/// Somebody who gives memory back when it is short. C holds it by pointer, and gives it back by `rtmm_shrinker_destroy`
/// only: any other free refuses it.
pub struct rtmm_shrinker {
    _opaque: (),
}
