//! Counter-based random numbers (Philox4x32-10): every draw is a pure function of seed, stream and position.
//!
//! Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). Because a draw needs no
//! state but its position, filling a slice gives the same values on any number of threads, a dropout mask can be
//! recomputed instead of kept, and a resumed run continues where it stopped.

use crate::chunk;
use crate::vector::{self, per_isa};

/// Ten rounds of Philox on four 32-bit words of counter under a 64-bit key.
#[inline(always)]
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut a, mut b, mut c, mut d], [mut k0, mut k1]) = (counter, key);
    for _ in 0..10 {
        let p = u64::from(a) * 0xD251_1F53;
        let q = u64::from(c) * 0xCD9E_8D57;
        (a, b, c, d) = ((q >> 32) as u32 ^ b ^ k0, q as u32, (p >> 32) as u32 ^ d ^ k1, p as u32);
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [a, b, c, d]
}

#[inline(always)]
fn halves(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

#[inline(always)]
fn joined(lo: u32, hi: u32) -> u64 {
    u64::from(lo) | u64::from(hi) << 32
}

/// What names a stream: a number (a rank, a layer, an epoch) or a word ("dropout").
#[derive(Clone, Copy, Debug)]
pub enum Label<'a> {
    /// A number.
    Number(u64),
    /// A word.
    Word(&'a str),
}

impl From<u64> for Label<'_> {
    fn from(number: u64) -> Self {
        Label::Number(number)
    }
}

impl<'a> From<&'a str> for Label<'a> {
    fn from(word: &'a str) -> Self {
        Label::Word(word)
    }
}

/// A seeded stream of random 32-bit words, readable in sequence and at any position.
///
/// The whole state is (`seed`, `stream`, `counter`), where `counter` is the position of the next word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    seed: u64,
    stream: u64,
    counter: u64,
}

impl Rng {
    /// The root stream of `seed`, at its start.
    pub fn new(seed: u64) -> Self {
        Self::from_state(seed, 0, 0)
    }

    /// The generator with this recorded state.
    pub fn from_state(seed: u64, stream: u64, counter: u64) -> Self {
        Self { seed, stream, counter }
    }

    /// The seed that all streams of a run share.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The number of this stream.
    pub fn stream(&self) -> u64 {
        self.stream
    }

    /// The position of the next word.
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// An independent stream under `label`, at its start; it depends on seed, stream and label, not on the position.
    pub fn split<'a>(&self, label: impl Into<Label<'a>>) -> Self {
        // The child's number is a Philox hash of the parent's and the label; words and numbers use two keys.
        let (label, key) = match label.into() {
            Label::Number(number) => (number, [0x706C_6974, 0]),
            // FNV-1a: the words are short, and Philox does the mixing.
            Label::Word(word) => (
                word.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
                }),
                [0x706C_6974, 1],
            ),
        };
        let ([a, b], [c, d]) = (halves(label), halves(self.stream));
        let [lo, hi, ..] = philox([a, b, c, d], key);
        Self::from_state(self.seed, joined(lo, hi), 0)
    }

    /// The four words at positions `4 * block ..= 4 * block + 3`.
    #[inline(always)]
    pub fn block(&self, block: u64) -> [u32; 4] {
        let ([a, b], [c, d]) = (halves(block), halves(self.stream));
        philox([a, b, c, d], halves(self.seed))
    }

    /// The word at position `index`.
    #[inline]
    pub fn word_at(&self, index: u64) -> u32 {
        self.block(index / 4)[(index % 4) as usize]
    }

    /// The number in [0, 1) at position `index`: what [`Rng::next_f32`] gives there.
    #[inline]
    pub fn uniform_at(&self, index: u64) -> f32 {
        unit(self.word_at(index))
    }

    /// The next 32 random bits.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        let word = self.word_at(self.counter);
        self.counter = self.counter.wrapping_add(1);
        word
    }

    /// The next 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let lo = self.next_u32();
        joined(lo, self.next_u32())
    }

    /// Uniform in [0, 1), a multiple of 2^-24.
    #[inline]
    pub fn next_f32(&mut self) -> f32 {
        unit(self.next_u32())
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    #[inline]
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// One draw from the standard normal distribution (Box and Muller; two words).
    pub fn normal(&mut self) -> f32 {
        let (a, b) = (self.next_u32(), self.next_u32());
        let radius = (-2.0 * ((f64::from(a) + 0.5) / 4_294_967_296.0).ln()).sqrt();
        (radius * (std::f64::consts::TAU * f64::from(b) / 4_294_967_296.0).cos()) as f32
    }

    /// Uniform among `0..n` without bias (Lemire 2019); 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            // Of the 2^64 products' low halves, the lowest 2^64 mod n would favour some results.
            if wide as u64 >= n || n == 0 || wide as u64 >= n.wrapping_neg() % n {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Puts `items` in uniformly random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// Fills with uniform draws from [lo, hi).
    pub fn fill_uniform(&mut self, out: &mut [f32], lo: f32, hi: f32) {
        self.fill(out, |out, rng, block| uniform(out, rng, block, lo, hi));
    }

    /// Fills with normal draws.
    pub fn fill_normal(&mut self, out: &mut [f32], mean: f32, std: f32) {
        self.fill(out, |out, rng, block| normal(out, rng, block, mean, std));
    }

    /// Fills with draws from the normal distribution cut to [lo, hi] (absolute bounds, as `torch.nn.init.trunc_normal_`).
    pub fn fill_trunc_normal(&mut self, out: &mut [f32], mean: f32, std: f32, lo: f32, hi: f32) {
        // Inverse transform: uniform between the bounds' places on the cumulative distribution, as 2 cdf - 1 = erf.
        let erf_of = |bound: f32| vector::erf::<vector::Plain>((bound - mean) / std * std::f32::consts::FRAC_1_SQRT_2);
        let (from, to) = (erf_of(lo), erf_of(hi));
        self.fill(out, |out, rng, block| trunc_normal(out, rng, block, [mean, std, lo, hi, from, to]));
    }

    /// Runs `each(chunk, self, first block)` over fixed chunks, and moves on by the words used.
    fn fill(&mut self, out: &mut [f32], each: impl Fn(&mut [f32], &Rng, u64) + Sync) {
        // Whole blocks: a fill starts at a multiple of four words and leaves the position at one.
        let first = self.counter.div_ceil(4);
        let rng = &*self;
        chunk::each_mut(out, 1, |start, out| each(out, rng, first.wrapping_add(start as u64 / 4)));
        self.counter = first.wrapping_add(out.len().div_ceil(4) as u64).wrapping_mul(4);
    }
}

/// The upper 24 bits as a number in [0, 1).
#[inline(always)]
pub fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

/// Blocks made at a time: enough for the compiler to run Philox over whole vectors, small enough for L1.
pub(crate) const BLOCKS: usize = 64;

/// Calls `each(values, words)` for up to `4 * BLOCKS` values at a time.
#[inline(always)]
fn tiles(out: &mut [f32], rng: &Rng, block: u64, mut each: impl FnMut(&mut [f32], &[u32; 4 * BLOCKS])) {
    let mut words = [0u32; 4 * BLOCKS];
    for (tile, out) in out.chunks_mut(4 * BLOCKS).enumerate() {
        fill_words(&mut words, rng, block.wrapping_add((tile * BLOCKS) as u64));
        each(out, &words);
    }
}

/// The words of `BLOCKS` blocks, as [`Rng::word_at`] numbers them.
#[inline(always)]
pub(crate) fn fill_words(words: &mut [u32; 4 * BLOCKS], rng: &Rng, first: u64) {
    for (i, block) in words.as_chunks_mut().0.iter_mut().enumerate() {
        *block = rng.block(first.wrapping_add(i as u64));
    }
}

#[inline(always)]
fn uniform_loop<M: vector::Math>(out: &mut [f32], rng: &Rng, block: u64, lo: f32, hi: f32) {
    tiles(out, rng, block, |out, words| {
        for (y, &word) in out.iter_mut().zip(words) {
            let y_ = M::fma(unit(word), hi - lo, lo);
            // Rounding may reach the open end.
            *y = if y_ < hi { y_ } else { lo };
        }
    });
}

#[inline(always)]
fn normal_loop<M: vector::Math>(out: &mut [f32], rng: &Rng, block: u64, mean: f32, std: f32) {
    tiles(out, rng, block, |out, words| {
        // Box and Muller: words 2 i and 2 i + 1 give values 2 i and 2 i + 1.
        let mut pairs = [0f32; 4 * BLOCKS];
        for (pair, word) in pairs.chunks_exact_mut(2).zip(words.chunks_exact(2)) {
            let radius = (-2.0 * vector::ln::<M>((word[0] as f32 + 0.5) * (1.0 / 4_294_967_296.0))).sqrt();
            let (sin, cos) = vector::sin_cos_turns::<M>(word[1]);
            pair[0] = M::fma(radius * cos, std, mean);
            pair[1] = M::fma(radius * sin, std, mean);
        }
        out.copy_from_slice(&pairs[..out.len()]);
    });
}

/// `[mean, std, lo, hi, erf(lo), erf(hi)]`, the bounds' erf taken in standard units.
#[inline(always)]
fn trunc_normal_loop<M: vector::Math>(out: &mut [f32], rng: &Rng, block: u64, [mean, std, lo, hi, from, to]: [f32; 6]) {
    tiles(out, rng, block, |out, words| {
        for (y, &word) in out.iter_mut().zip(words) {
            let z = vector::erf_inv::<M>(M::fma(unit(word), to - from, from)) * std::f32::consts::SQRT_2;
            let y_ = M::fma(z, std, mean);
            *y = if y_ < lo {
                lo
            } else if y_ > hi {
                hi
            } else {
                y_
            };
        }
    });
}

per_isa! { fn uniform(out: &mut [f32], rng: &Rng, block: u64, lo: f32, hi: f32) = uniform_loop; }
per_isa! { fn normal(out: &mut [f32], rng: &Rng, block: u64, mean: f32, std: f32) = normal_loop; }
per_isa! { fn trunc_normal(out: &mut [f32], rng: &Rng, block: u64, bounds: [f32; 6]) = trunc_normal_loop; }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_authors_vectors() {
        // kat_vectors of the Random123 distribution, philox4x32 with 10 rounds.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([!0; 4], [!0; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(
            philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn sequence_equals_random_access_and_resumes() {
        let mut rng = Rng::new(7).split("data");
        let fixed = rng.clone();
        let drawn: Vec<f32> = (0..11).map(|_| rng.next_f32()).collect();
        assert_eq!(drawn, (0..11).map(|i| fixed.uniform_at(i)).collect::<Vec<_>>());
        let mut resumed = Rng::from_state(rng.seed(), rng.stream(), rng.counter());
        assert_eq!(resumed.next_u64(), rng.next_u64());
    }

    #[test]
    fn streams_differ() {
        let root = Rng::new(1);
        let firsts: Vec<u64> =
            [root.split(0), root.split(1), root.split("a"), root.split("b"), root.split("a").split("b"), Rng::new(2)]
                .iter_mut()
                .map(Rng::next_u64)
                .collect();
        for (i, a) in firsts.iter().enumerate() {
            assert!(!firsts[i + 1..].contains(a) && *a != root.clone().next_u64());
        }
    }

    #[test]
    fn fills_do_not_depend_on_the_length_and_move_on() {
        let mut long = vec![0f32; 300_001];
        let mut rng = Rng::new(3);
        rng.fill_normal(&mut long, 0.5, 2.0);
        assert_eq!(rng.counter(), 300_004);
        for n in [1, 3, 5, 255, 257, 70_001] {
            let mut short = vec![0f32; n];
            Rng::new(3).fill_normal(&mut short, 0.5, 2.0);
            assert_eq!(short, long[..n]);
        }
        let mut next = [0f32; 3];
        rng.fill_normal(&mut next, 0.5, 2.0);
        assert!(next.iter().all(|x| !long.contains(x)));
    }

    fn moments(x: &[f32]) -> [f64; 4] {
        let n = x.len() as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let central = |k: i32| x.iter().map(|&x| (f64::from(x) - mean).powi(k)).sum::<f64>() / n;
        [mean, central(2), central(3), central(4)]
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut x = vec![0f32; 1 << 20];
        // The standard error of a mean over 2^20 draws is about 0.001 standard deviations; five of those.
        Rng::new(11).fill_normal(&mut x, 0.0, 1.0);
        let [mean, var, skew, kurt] = moments(&x);
        assert!(mean.abs() < 5e-3 && (var - 1.0).abs() < 8e-3 && skew.abs() < 2e-2 && (kurt - 3.0).abs() < 6e-2);
        assert!(x.iter().any(|x| *x > 4.3) && x.iter().any(|x| *x < -4.3));
        Rng::new(12).fill_uniform(&mut x, -1.0, 3.0);
        let [mean, var, ..] = moments(&x);
        assert!((mean - 1.0).abs() < 6e-3 && (var - 16.0 / 12.0).abs() < 8e-3);
        assert!(x.iter().all(|x| (-1.0..3.0).contains(x)));
        Rng::new(13).fill_trunc_normal(&mut x, 0.0, 0.02, -0.04, 0.04);
        let [mean, var, ..] = moments(&x);
        // The variance of the standard normal cut at two deviations is 0.7737.
        assert!(mean.abs() < 1e-4 && (var / 0.0004 - 0.7737).abs() < 5e-3, "{mean} {}", var / 0.0004);
        assert!(x.iter().all(|x| x.abs() <= 0.04));
        let mut rng = Rng::new(14);
        let x: Vec<f32> = (0..1 << 18).map(|_| rng.normal()).collect();
        let [mean, var, ..] = moments(&x);
        assert!(mean.abs() < 1e-2 && (var - 1.0).abs() < 2e-2);
    }

    #[test]
    fn below_is_even_and_shuffle_permutes() {
        let mut rng = Rng::new(5);
        let mut counts = [0u32; 7];
        (0..70_000).for_each(|_| counts[rng.below(7) as usize] += 1);
        assert!(counts.iter().all(|c| c.abs_diff(10_000) < 500), "{counts:?}");
        assert_eq!((rng.below(1), rng.below(0)), (0, 0));
        let mut items: Vec<u32> = (0..1000).collect();
        rng.shuffle(&mut items);
        assert!(items.iter().enumerate().filter(|(i, x)| *i as u32 == **x).count() < 20);
        items.sort_unstable();
        assert_eq!(items, (0..1000).collect::<Vec<_>>());
    }
}
