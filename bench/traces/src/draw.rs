//! What the requests are drawn from.

use crate::rng::{SplitMix64, XorShift32};

/// How often each octave from 8 bytes on comes: each is rarer than the one before by the square root of two.
const OCTAVES: [usize; 9] = [16384, 11585, 8192, 5793, 4096, 2896, 2048, 1448, 1024];

/// 8 to 4095 bytes by a power law, 192 on average.
pub fn size_small(rng: &mut SplitMix64) -> usize {
    const ALL: usize = {
        let (mut sum, mut octave) = (0, 0);
        while octave < OCTAVES.len() {
            sum += OCTAVES[octave];
            octave += 1;
        }
        sum
    };
    let mut r = rng.below(ALL);
    let mut octave = 0;
    while r >= OCTAVES[octave] {
        r -= OCTAVES[octave];
        octave += 1;
    }
    let low = 8 << octave;
    low + rng.below(low)
}

/// 4096 to 131071 bytes.
pub fn size_large(rng: &mut SplitMix64) -> usize {
    let low = 4096 << rng.below(5);
    low + rng.below(low)
}

/// Orders 0 to 9, each half as often as the one below.
pub fn order(rng: &mut SplitMix64) -> usize {
    let k = ((rng.next() >> 32) | 1 << 31).trailing_zeros() as usize;
    if k > 9 { 0 } else { k }
}

/// Live objects of the kernel-side mixed load.
pub const KERNEL_LIVE: usize = 10_000;

/// The kernel-side mixed load's generator: 59 bytes on average, 4096 at most.
#[derive(Clone, Debug)]
pub struct KernelMix(XorShift32);

impl Default for KernelMix {
    fn default() -> Self {
        KernelMix(XorShift32::new(0x9e37_79b9))
    }
}

impl KernelMix {
    /// An object's number below `live`.
    pub fn slot(&mut self, live: usize) -> usize {
        self.0.next() as usize % live
    }

    /// A size.
    pub fn size(&mut self) -> usize {
        let k = self.0.next().trailing_ones().min(8);
        let low = 8u32 << k;
        ((low + self.0.next() % low) as usize).min(4096)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SEED;
    use std::vec::Vec;

    fn first<T>(mut draw: impl FnMut() -> T) -> Vec<T> {
        (0..8).map(|_| draw()).collect()
    }

    #[test]
    fn the_octaves_add_up_to_what_is_drawn_below() {
        assert_eq!(OCTAVES.iter().sum::<usize>(), 53466);
    }

    #[test]
    fn each_trace_begins_with_these_values() {
        let mut rng = SplitMix64::new(SEED);
        assert_eq!(first(|| size_small(&mut rng)), [14, 18, 25, 60, 13, 72, 111, 11]);
        let mut rng = SplitMix64::new(SEED);
        assert_eq!(first(|| size_large(&mut rng)), [7617, 19352, 13050, 30904, 13573, 37142, 56890, 12158]);
        let mut rng = SplitMix64::new(SEED);
        assert_eq!(first(|| order(&mut rng)), [2, 0, 0, 2, 0, 0, 1, 4]);
        let mut mix = KernelMix::default();
        let drawn = first(|| (mix.slot(KERNEL_LIVE), mix.size()));
        let expected =
            [(8873, 10), (5621, 311), (7712, 569), (5768, 12), (2163, 8), (7087, 14), (9357, 703), (9454, 10)];
        assert_eq!(drawn, expected);
    }

    #[test]
    fn small_sizes_are_in_range_and_192_bytes_on_average() {
        let mut rng = SplitMix64::new(SEED);
        let sizes: Vec<usize> = (0..200_000).map(|_| size_small(&mut rng)).collect();
        assert!(sizes.iter().all(|size| (8..4096).contains(size)));
        assert!((185..200).contains(&(sizes.iter().sum::<usize>() / sizes.len())));
    }

    #[test]
    fn large_sizes_and_orders_are_in_range() {
        let mut rng = SplitMix64::new(SEED);
        assert!((0..10_000).all(|_| (4096..131_072).contains(&size_large(&mut rng))));
        let orders: Vec<usize> = (0..10_000).map(|_| order(&mut rng)).collect();
        assert_eq!(orders.iter().max(), Some(&9));
        let single = orders.iter().filter(|&&order| order == 0).count();
        assert!((4900..5150).contains(&single), "{single}");
    }

    #[test]
    fn kernel_sizes_are_59_bytes_on_average() {
        let mut mix = KernelMix::default();
        let sizes: Vec<usize> = (0..200_000).map(|_| mix.size()).collect();
        assert!(sizes.iter().all(|size| (8..=4096).contains(size)));
        assert!((57..62).contains(&(sizes.iter().sum::<usize>() / sizes.len())));
    }
}
