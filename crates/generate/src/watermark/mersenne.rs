//! The generator MT19937 (Matsumoto and Nishimura 1998) and PyTorch's permutations by it: whoever else needs random numbers takes
//! those of `phyla_kernels::rng`, which can be had at any position.

const WORDS: usize = 624;
const MIDDLE: usize = 397;

/// A generator.
pub(super) struct Mersenne {
    state: [u32; WORDS],
    next: usize,
}

impl Mersenne {
    pub fn new(seed: u32) -> Self {
        let mut state = [seed; WORDS];
        for i in 1..WORDS {
            let before = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(before ^ before >> 30).wrapping_add(i as u32);
        }
        Self { state, next: WORDS }
    }

    fn twist(&mut self) {
        for i in 0..WORDS {
            let y = self.state[i] & 0x8000_0000 | self.state[(i + 1) % WORDS] & 0x7FFF_FFFF;
            let odd = if y & 1 == 1 { 0x9908_B0DF } else { 0 };
            self.state[i] = self.state[(i + MIDDLE) % WORDS] ^ y >> 1 ^ odd;
        }
        self.next = 0;
    }

    /// 32 random bits.
    pub fn next(&mut self) -> u32 {
        if self.next == WORDS {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= y << 7 & 0x9D2C_5680;
        y ^= y << 15 & 0xEFC6_0000;
        y ^ y >> 18
    }

    /// The first `count` of a permutation of the numbers below `n`, as `torch.randperm` makes it on the CPU for less than 2^32 / 20 of
    /// them.
    pub fn permutation(&mut self, n: usize, count: usize) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..n as u32).collect();
        for i in 0..count.min(n.saturating_sub(1)) {
            numbers.swap(i, i + self.next() as usize % (n - i));
        }
        numbers.truncate(count);
        numbers
    }
}
