//! The generators behind the traces.

/// Steele, Lea and Flood's splitmix64.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The generator of this seed.
    pub const fn new(seed: u64) -> Self {
        SplitMix64(seed)
    }

    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "it never ends, and is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`, which has 32 bits at most.
    pub fn below(&mut self, n: usize) -> usize {
        (((self.next() >> 32) * n as u64) >> 32) as usize
    }

    /// Fisher and Yates's shuffle.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let other = self.below(i + 1);
            items.swap(i, other);
        }
    }
}

/// Marsaglia's xorshift of 32 bits, shifts 13, 17, 5.
#[derive(Clone, Debug)]
pub struct XorShift32(u32);

impl XorShift32 {
    /// The generator of this seed, which is not 0.
    pub const fn new(seed: u32) -> Self {
        XorShift32(seed)
    }

    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "it never ends, and is no iterator")]
    pub fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn splitmix_gives_the_published_numbers() {
        // The values that the reference implementation gives for seed 1234567.
        let mut rng = SplitMix64::new(1_234_567);
        let first = [rng.next(), rng.next(), rng.next()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn xorshift_gives_the_published_numbers() {
        // From seed 1 (Marsaglia 2003, the triple 13, 17, 5).
        let mut rng = XorShift32::new(1);
        assert_eq!([rng.next(), rng.next()], [270_369, 67_634_689]);
    }

    #[test]
    fn below_stays_below_and_reaches_both_ends() {
        let mut rng = SplitMix64::new(crate::SEED);
        let drawn: Vec<usize> = (0..1000).map(|_| rng.below(10)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&0), Some(&9)));
    }

    #[test]
    fn a_shuffle_is_this_permutation() {
        let mut items = [0, 1, 2, 3, 4, 5, 6, 7];
        SplitMix64::new(crate::SEED).shuffle(&mut items);
        assert_eq!(items, [4, 5, 3, 1, 7, 2, 6, 0]);
    }
}
