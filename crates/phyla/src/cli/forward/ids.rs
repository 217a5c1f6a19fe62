//! The ids, masks and positions of a JSON file, checked value by value, as one batch.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use phyla_models::Input;
use serde_json::{Map, Value};

use crate::cli::error::usage;

const KEYS: [&str; 8] = [
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "position_ids",
    "document_ids",
    "decoder_input_ids",
    "decoder_attention_mask",
    "num_choices",
];
const EXAMPLE: &str = "expected, for instance, {\"input_ids\": [[15, 7, 2]]}";

/// Reads a batch from a file, or from standard input for `-`.
pub fn read(path: &Path) -> anyhow::Result<Input> {
    let (name, text) = if path == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text).context("cannot read standard input")?;
        ("standard input".to_string(), text)
    } else {
        let name = format!("`{}`", path.display());
        let text = std::fs::read(path).map_err(|error| usage(format!("cannot read {name}: {error}"), EXAMPLE))?;
        (name, text)
    };
    match serde_json::from_slice(&text) {
        Ok(Value::Object(object)) => batch(&name, &object),
        Ok(_) => Err(usage(format!("{name} is not a JSON object"), EXAMPLE)),
        Err(error) => Err(usage(format!("{name} is not valid JSON: {error}"), EXAMPLE)),
    }
}

/// Equal rows of numbers.
struct Table {
    rows: usize,
    time: usize,
    values: Vec<u32>,
}

fn batch(file: &str, object: &Map<String, Value>) -> anyhow::Result<Input> {
    if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(unknown(file, key));
    }
    let given = |key: &str| object.get(key).filter(|value| !value.is_null());
    let Some(ids) = given("input_ids") else { return Err(usage(format!("{file} has no input_ids"), EXAMPLE)) };
    let ids = table(file, "input_ids", ids, u32::MAX)?;
    let decoder = match given("decoder_input_ids") {
        Some(ids) => Some(Box::new(decoder(file, ids, given("decoder_attention_mask"))?)),
        None => None,
    };
    let choices = match given("num_choices").map(Value::as_u64) {
        None => 0,
        Some(Some(choices)) if choices > 0 && ids.rows.is_multiple_of(choices as usize) => choices as usize,
        Some(_) => {
            return Err(usage(
                format!("{file}: num_choices should divide the {} rows", ids.rows),
                "give the choices of a question as neighbouring rows",
            ));
        }
    };
    let beside = |key: &str, largest: u32| -> anyhow::Result<Option<Vec<u32>>> {
        let Some(value) = object.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
        let table = table(file, key, value, largest)?;
        if (table.rows, table.time) != (ids.rows, ids.time) {
            return Err(usage(
                format!("{file}: {key} is {} x {}, and input_ids {} x {}", table.rows, table.time, ids.rows, ids.time),
                format!("give one value of {key} for each id"),
            ));
        }
        Ok(Some(table.values))
    };
    let mask = beside("attention_mask", 1)?;
    Ok(Input {
        attention_mask: mask.map(|mask| mask.into_iter().map(|seen| u8::from(seen != 0)).collect()),
        positions: beside("position_ids", u32::MAX)?,
        segments: beside("document_ids", u32::MAX)?,
        token_types: beside("token_type_ids", u32::MAX)?,
        batch: ids.rows,
        time: ids.time,
        ids: ids.values,
        choices,
        decoder,
    })
}

/// What the decoder of an encoder-decoder reads.
fn decoder(file: &str, ids: &Value, mask: Option<&Value>) -> anyhow::Result<Input> {
    let ids = table(file, "decoder_input_ids", ids, u32::MAX)?;
    let mask = mask.map(|mask| table(file, "decoder_attention_mask", mask, 1)).transpose()?;
    if let Some(mask) = mask.as_ref().filter(|mask| (mask.rows, mask.time) != (ids.rows, ids.time)) {
        return Err(usage(
            format!(
                "{file}: decoder_attention_mask is {} x {}, and decoder_input_ids {} x {}",
                mask.rows, mask.time, ids.rows, ids.time
            ),
            "give one value of decoder_attention_mask for each id",
        ));
    }
    let attention_mask = mask.map(|mask| mask.values.into_iter().map(|seen| u8::from(seen != 0)).collect());
    Ok(Input { batch: ids.rows, time: ids.time, ids: ids.values, attention_mask, ..Input::default() })
}

fn unknown(file: &str, key: &str) -> anyhow::Error {
    let score = |known: &&str| strsim::normalized_damerau_levenshtein(key, known);
    let nearest = KEYS.into_iter().max_by(|a, b| score(a).total_cmp(&score(b))).unwrap_or(KEYS[0]);
    usage(
        format!("{file}: `{}` is not a known key; the nearest is `{nearest}`", shown(key)),
        format!("known are {}", KEYS.join(", ")),
    )
}

/// Foreign text, short enough for a message and without control characters.
fn shown(text: &str) -> String {
    text.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A list of equal rows, or one row.
fn table(file: &str, key: &str, value: &Value, largest: u32) -> anyhow::Result<Table> {
    let expected = "expected a list of rows, each a list of whole numbers";
    let Some(list) = value.as_array().filter(|list| !list.is_empty()) else {
        return Err(usage(format!("{file}: {key} is {}", kind(value)), expected));
    };
    if !list[0].is_array() {
        let values = row(file, key, list, largest)?;
        return Ok(Table { rows: 1, time: values.len(), values });
    }
    let mut values = Vec::new();
    let mut time = 0;
    for (i, found) in list.iter().enumerate() {
        let place = format!("{key}[{i}]");
        let Some(found) = found.as_array().filter(|row| !row.is_empty()) else {
            return Err(usage(format!("{file}: {place} is {}", kind(found)), expected));
        };
        if i == 0 {
            time = found.len();
        } else if found.len() != time {
            return Err(usage(
                format!("{file}: rows differ in length: {key}[0] has {time} values, {place} has {}", found.len()),
                "pad the shorter rows with any id, and give attention_mask with 0 at the padding",
            ));
        }
        values.extend(row(file, &place, found, largest)?);
    }
    Ok(Table { rows: list.len(), time, values })
}

fn row(file: &str, place: &str, list: &[Value], largest: u32) -> anyhow::Result<Vec<u32>> {
    let value = |(i, value): (usize, &Value)| {
        let number = value.as_u64().or(value.as_bool().map(u64::from)).and_then(|n| u32::try_from(n).ok());
        number.filter(|&n| n <= largest).ok_or_else(|| {
            let range = if largest == 1 { "0 or 1".to_string() } else { format!("a whole number of 0 to {largest}") };
            usage(format!("{file}: {place}[{i}] is {}", kind(value)), format!("expected {range}"))
        })
    };
    list.iter().enumerate().map(value).collect()
}

/// What a value is, for a message.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Array(list) if list.is_empty() => "an empty list".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        Value::String(_) => "a string".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn parse(text: &str) -> anyhow::Result<Input> {
        batch("ids.json", serde_json::from_str::<Value>(text)?.as_object().unwrap())
    }

    #[test]
    fn rows_and_a_single_row_are_batches() {
        let input = parse(r#"{"input_ids": [[1, 2], [3, 4]], "attention_mask": [[1, 1], [true, 0]]}"#).unwrap();
        assert_eq!((input.batch, input.time, input.ids), (2, 2, vec![1, 2, 3, 4]));
        assert_eq!(input.attention_mask, Some(vec![1, 1, 1, 0]));
        let input = parse(r#"{"input_ids": [5, 6, 7], "position_ids": [0, 0, 1], "token_type_ids": null}"#).unwrap();
        assert_eq!((input.batch, input.time, input.positions), (1, 3, Some(vec![0, 0, 1])));
        assert_eq!(input.token_types, None);
        let input = parse(r#"{"input_ids": [5, 6], "decoder_input_ids": [1, 2, 3]}"#).unwrap();
        assert_eq!(input.decoder.map(|decoder| decoder.ids), Some(vec![1, 2, 3]));
    }

    #[test]
    fn every_mistake_is_named() {
        for (text, said) in [
            (r#"{}"#, "ids.json has no input_ids"),
            (r#"{"input_ids": []}"#, "input_ids is an empty list"),
            (r#"{"input_ids": 3}"#, "input_ids is 3"),
            (r#"{"input_ids": [[1], []]}"#, "input_ids[1] is an empty list"),
            (r#"{"input_ids": [[1, 2], [3]]}"#, "rows differ in length: input_ids[0] has 2 values, input_ids[1] has 1"),
            (r#"{"input_ids": [[1, -2]]}"#, "input_ids[0][1] is -2"),
            (r#"{"input_ids": [[1, 4294967296]]}"#, "input_ids[0][1] is 4294967296"),
            (r#"{"input_ids": [[1, 2.5]]}"#, "input_ids[0][1] is 2.5"),
            (r#"{"input_ids": [[[1]]]}"#, "input_ids[0][0] is a list"),
            (r#"{"input_ids": [1, "a"]}"#, "input_ids[1] is a string"),
            (r#"{"input_ids": [1, 2], "attention_mask": [1, 2]}"#, "attention_mask[1] is 2"),
            (r#"{"input_ids": [1, 2], "attention_mask": [1]}"#, "attention_mask is 1 x 1, and input_ids 1 x 2"),
            (
                r#"{"input_ids": [1], "atention_mask": [1]}"#,
                "`atention_mask` is not a known key; the nearest is `attention_mask`",
            ),
            (r#"{"input_ids": [1], "decoder_input_ids": []}"#, "decoder_input_ids is an empty list"),
            (r#"{"input_ids": [[1], [2], [3]], "num_choices": 2}"#, "num_choices should divide the 3 rows"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
