//! Batches for prediction: like lengths together under a budget of tokens, results in the order of the inputs.

use super::loader::Examples;
use crate::error::{Error, Result};

/// How inputs of mixed lengths are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthBatches {
    /// Tokens of a batch at most, filling included; an input that is longer alone is a batch of its own.
    pub tokens: usize,
    /// Rows of a batch at most.
    pub rows: usize,
    /// Inputs looked at together: what is held in memory, and how long a result may have to wait.
    pub chunk: usize,
}

impl Default for LengthBatches {
    fn default() -> Self {
        Self { tokens: 8192, rows: 256, chunk: 1024 }
    }
}

impl LengthBatches {
    /// Which inputs of these lengths come together: the longest first, every index once.
    pub fn plan(&self, lengths: &[usize]) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&index| (std::cmp::Reverse(lengths[index]), index));
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let mut longest = 0;
        for index in order {
            match batches.last_mut() {
                // Sorted, so the first of a batch is its longest.
                Some(batch) if batch.len() < self.rows && longest * (batch.len() + 1) <= self.tokens => {
                    batch.push(index)
                }
                _ => {
                    longest = lengths[index].max(1);
                    batches.push(vec![index]);
                }
            }
        }
        batches
    }

    /// Which of a chunk's examples come together, for [`Examples::collate`]; each counts with all its rows.
    pub fn plan_examples(&self, examples: &impl Examples) -> Vec<Vec<u32>> {
        let each = examples.rows().max(1);
        let lengths: Vec<usize> = (0..examples.count()).map(|index| examples.length(index) * each).collect();
        let plan = Self { rows: (self.rows / each).max(1), ..*self }.plan(&lengths);
        plan.into_iter().map(|batch| batch.into_iter().map(|index| index as u32).collect()).collect()
    }

    /// Puts `inputs` through `work` batch by batch and hands each result to `give`, in the order of the inputs.
    ///
    /// `work` gives one result for each of its inputs. At most `chunk` inputs and results are held at once.
    ///
    /// # Errors
    /// The first error of an input, of `work` or of `give`; and settings of zero.
    pub fn run<T, R, E: From<Error>>(
        &self,
        inputs: impl IntoIterator<Item = std::result::Result<T, E>>,
        length: impl Fn(&T) -> usize,
        mut work: impl FnMut(&[&T]) -> std::result::Result<Vec<R>, E>,
        mut give: impl FnMut(R) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.check()?;
        let mut inputs = inputs.into_iter();
        loop {
            // An error comes after the results of what stood before it.
            let (mut chunk, mut fault) = (Vec::new(), None);
            for input in inputs.by_ref().take(self.chunk) {
                match input {
                    Ok(input) => chunk.push(input),
                    Err(error) => {
                        fault = Some(error);
                        break;
                    }
                }
            }
            let lengths: Vec<usize> = chunk.iter().map(&length).collect();
            let mut results: Vec<Option<R>> = chunk.iter().map(|_| None).collect();
            for batch in self.plan(&lengths) {
                let rows: Vec<&T> = batch.iter().map(|&index| &chunk[index]).collect();
                let made = work(&rows)?;
                if made.len() != batch.len() {
                    let message = format!("a batch of {} rows gave {} results", batch.len(), made.len());
                    return Err(Error::Settings(message).into());
                }
                for (index, result) in batch.into_iter().zip(made) {
                    results[index] = Some(result);
                }
            }
            results.into_iter().flatten().try_for_each(&mut give)?;
            match fault {
                Some(error) => return Err(error),
                None if lengths.len() < self.chunk => return Ok(()),
                None => {}
            }
        }
    }

    fn check(&self) -> Result<()> {
        if self.tokens == 0 || self.rows == 0 || self.chunk == 0 {
            return Err(Error::Settings(format!(
                "tokens, rows and chunk should be at least 1, found {}, {} and {}",
                self.tokens, self.rows, self.chunk
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use phyla_kernels::rng::Rng;

    use super::super::multiple_choice::{ChoiceSettings, MultipleChoice};
    use super::super::records::{Choice, Origin};
    use super::super::testing::bert;
    use super::*;

    #[test]
    fn ten_thousand_texts_come_back_in_order_under_the_budget() {
        let settings = LengthBatches { tokens: 4096, rows: 64, chunk: 1000 };
        let mut rng = Rng::new(1);
        let inputs: Vec<(usize, usize)> = (0..10_500).map(|index| (index, 1 + rng.below(400) as usize)).collect();
        let (mut filled, mut held, mut given) = (0, 0, Vec::new());
        settings
            .run::<_, _, Error>(
                inputs.iter().map(|input| Ok(*input)),
                |input| input.1,
                |rows| {
                    let longest = rows.iter().map(|row| row.1).max().unwrap();
                    assert!(rows.len() <= 64 && longest * rows.len() <= 4096);
                    filled += longest * rows.len();
                    held += rows.len();
                    Ok(rows.iter().map(|row| row.0).collect())
                },
                |result| {
                    given.push(result);
                    Ok(())
                },
            )
            .unwrap();
        assert!(given.iter().copied().eq(0..10_500));
        assert_eq!(held, 10_500);
        let real: usize = inputs.iter().map(|input| input.1).sum();
        // A chunk of a thousand lengths from 1 to 400 leaves neighbours half a token apart on average.
        assert!(real as f64 / filled as f64 > 0.97, "{real} of {filled}");
    }

    #[test]
    fn examples_count_with_all_their_rows() {
        let record = |text: &str| {
            let choices = ["a".to_owned(), text.to_owned()].to_vec();
            Ok(Choice { context: None, question: "the".into(), choices, answer: None, origin: Origin::default() })
        };
        let records = ["a b c d e f", "a", "b", "c"].into_iter().map(record);
        let examples = MultipleChoice::new(records, &bert(), &ChoiceSettings::default()).unwrap();
        let plan = LengthBatches { tokens: 20, rows: 4, chunk: 4 }.plan_examples(&examples);
        assert_eq!(plan, [vec![0], vec![1, 2], vec![3]]);
        for batch in plan {
            let made = examples.collate(&batch);
            assert!(made.batch <= 4 && made.batch * made.time <= 20, "{} of {}", made.batch, made.time);
        }
    }

    #[test]
    fn errors_come_after_what_stood_before_them() {
        let settings = LengthBatches { chunk: 4, ..LengthBatches::default() };
        let mut given = Vec::new();
        let inputs = (0..9).map(|index| if index == 6 { Err(Error::Settings("six".into())) } else { Ok(index) });
        let error = settings.run(
            inputs,
            |_| 1,
            |rows| Ok(rows.iter().map(|row| **row).collect()),
            |result: i32| {
                given.push(result);
                Ok(())
            },
        );
        assert_eq!((error.unwrap_err().to_string(), given), ("six".to_owned(), vec![0, 1, 2, 3, 4, 5]));
        let few = settings.run::<_, i32, Error>([Ok(1), Ok(2)], |_| 1, |_| Ok(vec![1]), |_| Ok(()));
        assert!(few.unwrap_err().to_string().contains("a batch of 2 rows gave 1 results"));
        let none = LengthBatches { rows: 0, ..settings }.run::<i32, i32, Error>([], |_| 1, |_| Ok(vec![]), |_| Ok(()));
        assert!(none.is_err());
        // Longer than the budget: alone.
        let plan = LengthBatches { tokens: 10, rows: 9, chunk: 9 }.plan(&[3, 50, 0, 3, 3, 4]);
        assert_eq!(plan, [vec![1], vec![5, 0], vec![3, 4, 2]]);
    }
}
