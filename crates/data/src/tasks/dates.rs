//! Dates as people say and write them, to `YYYY-MM-DD`: a small translation task with one right answer.

use phyla_kernels::rng::Rng;

use super::numbers::{self, Language};
use super::{portion_of, stream};
use crate::dataset::Portion;
use crate::supervised::records::Parallel;

/// Years of the task: the Gregorian calendar's, so that weekdays are right.
const YEARS: std::ops::Range<u64> = 1600..2100;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const ORDINALS: [&str; 20] = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "thirteenth",
    "fourteenth",
    "fifteenth",
    "sixteenth",
    "seventeenth",
    "eighteenth",
    "nineteenth",
    "twentieth",
];

/// A day of the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Date {
    /// From 1600 on.
    pub year: u32,
    /// From 1.
    pub month: u32,
    /// From 1.
    pub day: u32,
}

impl Date {
    /// `1984-03-03`.
    pub fn iso(self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    fn length(year: u32, month: u32) -> u32 {
        match month {
            2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// Sakamoto's rule: the table is each month's shift of the week, and January and February count to the year before.
    fn weekday(self) -> &'static str {
        const SHIFT: [u32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = self.year - u32::from(self.month < 3);
        let days = year + year / 4 - year / 100 + year / 400 + SHIFT[self.month as usize - 1] + self.day;
        DAYS[days as usize % 7]
    }
}

fn ordinal(day: u32) -> String {
    match day {
        1..=20 => ORDINALS[day as usize - 1].to_owned(),
        30 => "thirtieth".to_owned(),
        _ => format!("{}-{}", if day < 30 { "twenty" } else { "thirty" }, ORDINALS[day as usize % 10 - 1]),
    }
}

fn suffixed(day: u32) -> String {
    let ending = match (day % 10, day / 10) {
        (_, 1) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{day}{ending}")
}

/// A year as it is spoken, in one of its ways.
fn spoken(rng: &mut Rng, year: u32) -> String {
    let words = |number: u32| numbers::words(u64::from(number), Language::English);
    let (century, rest) = (year / 100, year % 100);
    let pairs = match rest {
        0 => format!("{} hundred", words(century)),
        1..=9 => format!("{} oh {}", words(century), words(rest)),
        _ => format!("{} {}", words(century), words(rest)),
    };
    let thousand = |and: &str| match rest {
        0 => "two thousand".to_owned(),
        _ => format!("two thousand {and}{}", words(rest)),
    };
    match (century, rest) {
        (20, 0) => thousand(""),
        (20, 1..=9) => thousand(["", "and "][rng.below(2) as usize]),
        (20, _) => match rng.below(3) {
            0 => pairs,
            1 => thousand(""),
            _ => thousand("and "),
        },
        _ => pairs,
    }
}

/// One of the ways to say or write a date.
fn phrase(rng: &mut Rng, date: Date) -> String {
    let month = MONTHS[date.month as usize - 1];
    let year = if rng.below(2) == 0 { date.year.to_string() } else { spoken(rng, date.year) };
    let number = date.year.to_string();
    let (day, nth, word) = (date.day, suffixed(date.day), ordinal(date.day));
    let weekday = date.weekday();
    let (brief, brief_day) = (&month[..3], &weekday[..3]);
    let phrase = match rng.below(16) {
        0 => format!("the {word} of {month}, {year}"),
        1 => format!("the {word} of {month} {year}"),
        2 => format!("the {nth} of {month}, {number}"),
        3 => format!("{day} {month} {number}"),
        4 => format!("{nth} {month} {number}"),
        5 => format!("{month} {word}, {year}"),
        6 => format!("{month} the {word}, {year}"),
        7 => format!("{month} {day}, {number}"),
        8 => format!("{month} {nth}, {number}"),
        9 => format!("{weekday}, {month} {day}, {number}"),
        10 => format!("{weekday}, the {word} of {month}, {year}"),
        11 => format!("{weekday} {day} {month} {number}"),
        12 => format!("{day} {brief} {number}"),
        13 => format!("{brief_day}, {brief} {day}, {number}"),
        14 => format!("the {word} day of {month} in the year {year}"),
        _ => format!("in {year}, on {month} {nth}"),
    };
    match rng.below(8) {
        0 => phrase.to_lowercase(),
        1 => phrase.to_uppercase(),
        _ => phrase,
    }
}

/// Pairs of a date in words and in ISO form, without end.
pub fn dates(seed: u64, portion: Portion) -> impl Iterator<Item = Parallel> + Send {
    let mut rng = stream("dates", seed, portion);
    std::iter::from_fn(move || {
        loop {
            let year = (YEARS.start + rng.below(YEARS.end - YEARS.start)) as u32;
            let month = 1 + rng.below(12) as u32;
            let day = 1 + rng.below(u64::from(Date::length(year, month))) as u32;
            let item = u64::from(year * 10_000 + month * 100 + day);
            if portion_of("dates", item) == portion {
                let date = Date { year, month, day };
                return Some(Parallel::new(phrase(&mut rng, date), date.iso()));
            }
        }
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::{HashMap, HashSet};

    use chrono::{Datelike, NaiveDate};

    use super::*;

    #[test]
    fn the_calendar_is_right() {
        let mut day = NaiveDate::from_ymd_opt(1600, 1, 1).unwrap();
        while day.year() < 2100 {
            let date = Date { year: day.year() as u32, month: day.month(), day: day.day() };
            assert!(date.day <= Date::length(date.year, date.month));
            assert_eq!(date.weekday(), DAYS[day.weekday().num_days_from_sunday() as usize], "{date:?}");
            let next = day.succ_opt().unwrap();
            assert_eq!(next.day() == 1, date.day == Date::length(date.year, date.month));
            assert_eq!(date.iso(), day.to_string());
            day = next;
        }
    }

    #[test]
    fn days_and_years_are_said_right() {
        let days: Vec<String> = [1, 12, 20, 21, 22, 30, 31].map(ordinal).to_vec();
        assert_eq!(
            days,
            ["first", "twelfth", "twentieth", "twenty-first", "twenty-second", "thirtieth", "thirty-first"]
        );
        let days: Vec<String> = [1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 30, 31].map(suffixed).to_vec();
        assert_eq!(days, ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "30th", "31st"]);
        let mut rng = Rng::new(1);
        let mut ways = |year| (0..100).map(|_| spoken(&mut rng, year)).collect::<HashSet<_>>();
        let set = |ways: &[&str]| ways.iter().map(|way| (*way).to_owned()).collect::<HashSet<_>>();
        assert_eq!(ways(1984), set(&["nineteen eighty-four"]));
        assert_eq!(ways(1900), set(&["nineteen hundred"]));
        assert_eq!(ways(1805), set(&["eighteen oh five"]));
        assert_eq!(ways(2000), set(&["two thousand"]));
        assert_eq!(ways(2005), set(&["two thousand five", "two thousand and five"]));
        assert_eq!(
            ways(2024),
            set(&["twenty twenty-four", "two thousand twenty-four", "two thousand and twenty-four"])
        );
    }

    #[test]
    fn a_phrase_has_one_meaning_and_dates_many_phrases() {
        let mut meaning: HashMap<String, String> = HashMap::new();
        let mut phrases = HashSet::new();
        for pair in dates(3, Portion::Train).take(100_000) {
            let target = pair.target.unwrap();
            assert_eq!(target.len(), 10);
            assert_eq!(
                *meaning.entry(pair.source.to_lowercase()).or_insert_with(|| target.clone()),
                target,
                "{}",
                pair.source
            );
            phrases.insert(pair.source);
        }
        assert!(phrases.len() > 98_000, "{}", phrases.len());
    }
}
