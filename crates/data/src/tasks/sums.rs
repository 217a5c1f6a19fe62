//! Sums to learn by heart or by worked steps (Nye et al. 2021, "Show Your Work: Scratchpads for Intermediate Computation
//! with Language Models"): the one task here whose items are texts for next-token prediction.

use phyla_kernels::rng::Rng;

use super::{portion_of, stream};
use crate::dataset::Portion;

/// Digits of a number at most: two numbers of so many are one item's number.
pub const MOST_DIGITS: u32 = 9;

/// What ends a sum's text, since a vocabulary of characters has no token that does.
pub const END: &str = ".";

/// Two numbers to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sum {
    /// The left one.
    pub a: u64,
    /// The right one.
    pub b: u64,
}

impl Sum {
    /// `29+57=`
    pub fn question(self) -> String {
        format!("{}+{}=", self.a, self.b)
    }

    /// `86`
    pub fn answer(self) -> String {
        (self.a + self.b).to_string()
    }

    /// The digits of the longer number.
    pub fn digits(self) -> usize {
        self.a.max(self.b).to_string().len()
    }

    /// Question and answer: `29+57=86.`
    pub fn direct(self) -> String {
        format!("{}{}{END}", self.question(), self.answer())
    }

    /// Question, steps and answer: `29+57=2+5+1,6;++0,86;86.`
    ///
    /// A step says again what is left to add, the carry, and the last digits of the answer as far as they are known. So
    /// the next step needs the step before it alone, and of that the last digits, however long the numbers were: the
    /// scratchpad of the paper's section 2 (figure 2), in fewer characters.
    pub fn worked(self) -> String {
        let (mut a, mut b) = (digits(self.a), digits(self.b));
        let (mut text, mut known, mut carry) = (self.question(), String::new(), 0);
        while !(a.is_empty() && b.is_empty()) {
            let column = take(&mut a) + take(&mut b) + carry;
            carry = column / 10;
            known.insert_str(0, &(column % 10).to_string());
            text += &format!("{a}+{b}+{carry},{known};");
        }
        format!("{text}{}{END}", self.answer())
    }
}

fn digits(number: u64) -> String {
    number.to_string()
}

/// The last digit, taken away; 0 where there is none.
fn take(digits: &mut String) -> u32 {
    digits.pop().and_then(|digit| digit.to_digit(10)).unwrap_or(0)
}

/// Sums without end of numbers with up to `digits` digits (at most [`MOST_DIGITS`]), as many of few as of many.
///
/// Whether a sum is held out depends on its two numbers, in either order.
pub fn sums(seed: u64, portion: Portion, digits: u32) -> impl Iterator<Item = Sum> + Send {
    let digits = digits.clamp(1, MOST_DIGITS);
    let mut rng = stream("sums", seed, portion);
    std::iter::from_fn(move || {
        loop {
            let sum = draw(&mut rng, digits);
            let item = sum.a.min(sum.b) * 10_u64.pow(MOST_DIGITS) + sum.a.max(sum.b);
            if portion_of("sums", item) == portion {
                return Some(sum);
            }
        }
    })
}

fn draw(rng: &mut Rng, digits: u32) -> Sum {
    let end = 10_u64.pow(1 + rng.below(u64::from(digits)) as u32);
    Sum { a: rng.below(end), b: rng.below(end) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn steps_carry_and_end_with_the_answer() {
        assert_eq!(Sum { a: 29, b: 57 }.direct(), "29+57=86.");
        assert_eq!(Sum { a: 29, b: 57 }.worked(), "29+57=2+5+1,6;++0,86;86.");
        assert_eq!(Sum { a: 999, b: 1 }.worked(), "999+1=99++1,0;9++1,00;++1,000;1000.");
        assert_eq!(Sum { a: 0, b: 0 }.worked(), "0+0=++0,0;0.");
        assert_eq!(Sum { a: 7, b: 120 }.digits(), 3);
    }

    #[test]
    fn no_held_out_sum_is_in_training_in_either_order() {
        let key = |sum: Sum| (sum.a.min(sum.b), sum.a.max(sum.b));
        let train: HashSet<_> = sums(1, Portion::Train, 3).take(100_000).map(key).collect();
        let held_out: Vec<Sum> = sums(2, Portion::Validation, 3).take(3000).collect();
        assert!(held_out.iter().all(|sum| !train.contains(&key(*sum))));
        for digits in 1..=3 {
            let count = held_out.iter().filter(|sum| sum.digits() == digits).count();
            assert!((700..1300).contains(&count), "{digits}: {count}");
        }
        assert!(sums(1, Portion::Train, 99).take(1000).all(|sum| sum.a + sum.b < 2_000_000_000));
    }
}
