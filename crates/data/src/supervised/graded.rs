//! Texts with grades, for models that say how good a text is: in token ids, each with the place of its grade on a scale.

use serde::{Deserialize, Serialize};

use super::dialogue::{Encoder, LossOn};
use super::loader::Examples;
use super::preference::{PreferenceSettings, Truncation};
use super::records::{Graded, Origin};
use super::rows::{Digest, TokenRows, in_parallel, note};
use crate::batch::{Batch, Labels};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// Grades from the worst to the best.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scale(Vec<String>);

/// More grades than anyone keeps apart: then they are numbers, and a regression is meant.
const MOST: usize = 100;

impl Scale {
    /// Grades in this order, from the worst to the best.
    ///
    /// # Errors
    /// Fewer than two, more than a hundred, or one twice.
    pub fn new(grades: Vec<String>) -> Result<Self> {
        let twice = grades.iter().enumerate().find(|(at, grade)| grades[..*at].contains(grade));
        match grades.len() {
            _ if twice.is_some() => {
                Err(Error::Settings(format!("the grade `{}` is listed twice", twice.map_or("", |(_, grade)| grade))))
            }
            0 | 1 => Err(Error::Settings(format!(
                "grades from worst to best need at least two, found {}",
                grades.first().map_or("none".to_owned(), |grade| format!("`{grade}` alone"))
            ))),
            count if count > MOST => Err(Error::Settings(format!(
                "the data have {count} different grades; of numbers so fine take `objective.kind` \"classify\" with \
                 problem_type \"regression\""
            ))),
            _ => Ok(Self(grades)),
        }
    }

    /// The scale of the grades found, which have an order if they are numbers.
    fn found(mut grades: Vec<String>) -> Result<Self> {
        let number = |grade: &String| grade.parse::<f64>().ok();
        if let Some(word) = grades.iter().find(|grade| number(grade).is_none()) {
            return Err(Error::Settings(format!(
                "the grade `{word}` is a word: list all grades from the worst to the best in `objective.grades`"
            )));
        }
        grades.sort_by(|a, b| number(a).unwrap_or_default().total_cmp(&number(b).unwrap_or_default()));
        grades.dedup();
        Self::new(grades)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Their names.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// How far each is up: the numbers that they are, or else their places.
    pub fn values(&self) -> Vec<f64> {
        let numbers: Option<Vec<f64>> = self.0.iter().map(|grade| grade.parse().ok()).collect();
        let rising = |numbers: &Vec<f64>| numbers.is_sorted();
        numbers.filter(rising).unwrap_or_else(|| (0..self.count()).map(|place| place as f64).collect())
    }

    fn place(&self, grade: &str) -> Option<usize> {
        self.0.iter().position(|known| known == grade)
    }
}

/// Graded texts in token ids.
#[derive(Debug)]
pub struct GradedTexts {
    rows: TokenRows,
    /// The place on the scale of each.
    grades: Vec<i32>,
    scale: Scale,
    notes: Vec<String>,
}

impl GradedTexts {
    /// Encodes `records`; the scale is that of the training data, or listed, or found in the records themselves.
    ///
    /// # Errors
    /// A wrong record, a grade that is not on the scale, and grades that make no scale.
    pub fn new(
        records: impl Iterator<Item = Result<Graded>>,
        tokenizer: &Tokenizer,
        settings: PreferenceSettings,
        scale: Option<&Scale>,
    ) -> Result<Self> {
        let encoder = Encoder::new(tokenizer, Some(LossOn::All));
        let max_len = settings.max_len;
        let work = |record: Graded| {
            let mut ids = encoder.encode(&record.dialogue)?.ids;
            let over = ids.len().saturating_sub(max_len);
            match settings.truncation {
                Truncation::KeepStart => ids.truncate(max_len),
                Truncation::KeepEnd => drop(ids.drain(..over)),
            }
            Ok((ids, over > 0, record.grade, record.dialogue.origin))
        };
        let mut rows = TokenRows::new(tokenizer);
        // No text holds this token in its middle: a score is read before the filling.
        rows.pad = tokenizer.pad().or(tokenizer.eos()).unwrap_or(0);
        let (mut grades, mut count, mut cut, mut empty): (Vec<(String, Origin)>, _, _, _) = (vec![], 0, 0, 0);
        in_parallel(records, work, |(ids, was_cut, grade, origin)| {
            count += 1;
            cut += usize::from(was_cut);
            if ids.is_empty() {
                empty += 1;
                return Ok(());
            }
            rows.push(&ids, &[]);
            grades.push((grade, origin));
            Ok(())
        })?;
        let scale = match scale {
            Some(scale) => scale.clone(),
            None => Scale::found(grades.iter().map(|(grade, _)| grade.clone()).collect())?,
        };
        let place = |(grade, origin): &(String, Origin)| match scale.place(grade) {
            Some(place) => Ok(place as i32),
            None => Err(origin
                .error(format!("the grade `{grade}` is none of {} (from the worst on)", scale.names().join(", ")))),
        };
        let grades = grades.iter().map(place).collect::<Result<Vec<i32>>>()?;
        let mut made = Self { rows, grades, scale, notes: vec![] };
        made.notes.extend(note(empty, count, "were left out: they have no tokens"));
        made.notes.extend(note(cut, count, &format!("were cut at {max_len} tokens")));
        let counts = made.counts();
        let each = made.scale.names().iter().zip(&counts).map(|(grade, count)| format!("{grade}: {count}"));
        let each: Vec<String> = each.collect();
        made.notes.push(format!("grades from the worst on: {}", each.join(", ")));
        Ok(made)
    }

    /// The grades there are.
    pub fn scale(&self) -> &Scale {
        &self.scale
    }

    /// How often each is given.
    pub fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.scale.count()];
        self.grades.iter().for_each(|&place| counts[place as usize] += 1);
        counts
    }

    /// The token that fills rows up.
    pub fn pad(&self) -> u32 {
        self.rows.pad
    }
}

impl Examples for GradedTexts {
    fn count(&self) -> usize {
        self.rows.len()
    }

    fn length(&self, index: usize) -> usize {
        self.rows.ids.length(index)
    }

    fn collate(&self, indices: &[u32]) -> Batch {
        let batch = self.rows.batch(indices.iter().map(|&index| index as usize));
        let grades = indices.iter().map(|&index| self.grades[index as usize]).collect();
        Batch { labels: Labels::Class(grades), ..batch }
    }

    fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        self.rows.digest(&mut digest);
        digest.all(self.grades.iter().map(|&grade| grade as u64));
        digest.value()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::testing::bpe;
    use super::*;

    fn settings(max_len: usize, truncation: Truncation) -> PreferenceSettings {
        PreferenceSettings { max_len, truncation, whole: false }
    }

    fn made(graded: &[(&str, &str)], scale: Option<&Scale>) -> Result<GradedTexts> {
        let records = graded.iter().map(|(text, grade)| Ok(Graded::new(*text, *grade)));
        GradedTexts::new(records, &bpe(), settings(64, Truncation::KeepStart), scale)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn numbers_have_an_order_and_words_are_given_one() {
        let texts = made(&[("a", "10"), ("b", "2"), ("c", "10"), ("d", "-1")], None).unwrap();
        assert_eq!((texts.scale().names(), texts.counts()), (&names(&["-1", "2", "10"])[..], vec![1, 1, 2]));
        assert_eq!(texts.scale().values(), [-1., 2., 10.]);
        let batch = texts.collate(&[3, 0]);
        assert_eq!(batch.labels, Labels::Class(vec![0, 2]));
        let error = made(&[("a", "good"), ("b", "bad")], None).unwrap_err().to_string();
        assert!(error.contains("the grade `good` is a word"), "{error}");
        let scale = Scale::new(names(&["bad", "fair", "good"])).unwrap();
        let texts = made(&[("a", "good"), ("b", "bad")], Some(&scale)).unwrap();
        assert_eq!((texts.counts(), scale.values()), (vec![1, 0, 1], vec![0., 1., 2.]));
        let error = made(&[("a", "great")], Some(&scale)).unwrap_err().to_string();
        assert!(error.contains("none of bad, fair, good"), "{error}");
    }

    #[test]
    fn one_grade_is_no_scale() {
        for (grades, expected) in
            [(&["1"][..], "`1` alone"), (&[], "found none"), (&["a", "b", "a"], "`a` is listed twice")]
        {
            let error = Scale::new(names(grades)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let many: Vec<String> = (0..101).map(|grade| grade.to_string()).collect();
        assert!(Scale::new(many).unwrap_err().to_string().contains("regression"));
    }

    #[test]
    fn long_texts_keep_the_end_that_is_asked_for() {
        let ids = |truncation| {
            let records = [("Hello, fox! Hello, fox!", "1"), ("Hello", "2")];
            let records = records.into_iter().map(|(text, grade)| Ok(Graded::new(text, grade)));
            let texts = GradedTexts::new(records, &bpe(), settings(3, truncation), None).unwrap();
            assert!(texts.notes().iter().any(|note| note.contains("were cut at 3 tokens")), "{:?}", texts.notes());
            texts.collate(&[0]).ids
        };
        let whole = {
            let records = [Ok(Graded::new("Hello, fox! Hello, fox!", 1)), Ok(Graded::new("a", 2))].into_iter();
            let texts = GradedTexts::new(records, &bpe(), settings(64, Truncation::KeepStart), None).unwrap();
            texts.collate(&[0]).ids
        };
        assert_eq!(ids(Truncation::KeepStart), whole[..3]);
        assert_eq!(ids(Truncation::KeepEnd), whole[whole.len() - 3..]);
    }
}
