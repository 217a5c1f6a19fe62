//! Documents of random schemas, each judged by `validate`.

use std::io::Write;
use std::time::Duration;

use phyla_generate::{Constraint, FinishReason};
use phyla_kernels::rng::Rng;
use serde_json::{Map, Value, json};

use super::validate::valid;
use super::{drawn, tokens};

/// Names that need escapes, more bytes than characters, and each other's beginnings.
const NAMES: [&str; 10] = ["a", "ab", "name", "é", "日本", "with \"quotes\"", "back\\slash", "line\nend", "x y", ""];

const FORMATS: [&str; 10] =
    ["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];

const PATTERNS: [&str; 6] =
    ["^[a-c]{1,4}$", "^(foo|bar)+$", "^é?[0-9]{2,3}$", "^\\d+(\\.\\d)?$", "[xyz]", "^\\w{1,3}-\\w{1,3}$"];

/// A random schema, nested so many times at most.
struct Schemas {
    rng: Rng,
}

impl Schemas {
    fn below(&mut self, n: u64) -> usize {
        self.rng.below(n) as usize
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64)]
    }

    fn root(&mut self) -> Value {
        let mut schema = if self.chance(70) { self.object(3) } else { self.schema(3) };
        let defs = json!({
            "leaf": self.leaf(),
            "node": { "type": "object", "additionalProperties": false, "required": ["next"], "properties": {
                "value": self.leaf(),
                "next": { "anyOf": [{ "type": "null" }, { "$ref": "#/$defs/node" }] },
            } },
            "tree/~x": { "type": "array", "maxItems": 2, "items": { "$ref": "#/$defs/tree~1~0x" } },
        });
        if let Value::Object(map) = &mut schema {
            map.insert("$defs".into(), defs);
        }
        schema
    }

    fn schema(&mut self, depth: usize) -> Value {
        if depth == 0 {
            return self.leaf();
        }
        match self.below(12) {
            0..3 => self.object(depth - 1),
            3..5 => self.array(depth - 1),
            5 => json!({ "anyOf": [self.schema(depth - 1), self.schema(depth - 1), self.leaf()] }),
            6 => json!({ "$ref": self.pick(&["#/$defs/leaf", "#/$defs/node", "#/$defs/tree~1~0x"]) }),
            7 => self.tagged(depth - 1),
            8 => json!({ "allOf": [
                { "type": ["object", "null"], "properties": { "a": self.leaf() } },
                { "type": "object", "properties": { "name": self.schema(depth - 1) }, "required": ["name"] }
            ] }),
            _ => self.leaf(),
        }
    }

    /// Options that a name tells apart.
    fn tagged(&mut self, depth: usize) -> Value {
        let mut option = |tag: &str| {
            json!({ "type": "object", "additionalProperties": false, "required": ["kind", "x"],
                "properties": { "kind": { "const": tag }, "x": self.schema(depth) } })
        };
        json!({ "oneOf": [option("circle"), option("square")] })
    }

    fn leaf(&mut self) -> Value {
        match self.below(11) {
            0 => json!({ "type": "boolean" }),
            1 => json!({ "type": "null" }),
            2 => json!({ "enum": [1, "one", null, true, -2.5, "é\"\n", [1, { "a": 2 }]] }),
            3 => json!({ "const": self.pick(&["fixed", "a\\b", "日", ""]) }),
            4 => {
                json!({ "type": self.pick(&[["string", "null"], ["integer", "boolean"]]), "maxLength": 4, "maximum": 99 })
            }
            5..8 => self.number(),
            _ => self.string(),
        }
    }

    fn number(&mut self) -> Value {
        let mut map = Map::from_iter([("type".to_owned(), self.pick(&["integer", "number"]).into())]);
        let low = self.pick(&[-1000.5, -37., -1., 0., 0.25, 3., 999.]);
        match self.below(5) {
            0 => {}
            1 => drop(map.insert("minimum".into(), json!(low))),
            2 => drop(map.insert("maximum".into(), json!(low))),
            3 => {
                map.insert("minimum".into(), json!(low));
                map.insert("maximum".into(), json!(low + self.pick(&[1.5, 10., 12345.])));
            }
            _ => {
                map.insert("exclusiveMinimum".into(), json!(low));
                map.insert("exclusiveMaximum".into(), json!(low + self.pick(&[3., 100.])));
            }
        }
        if map.len() == 1 && self.chance(60) {
            map.insert("multipleOf".into(), [json!(1), json!(3), json!(0.25)][self.below(3)].clone());
        }
        Value::Object(map)
    }

    fn string(&mut self) -> Value {
        match self.below(5) {
            0 => json!({ "type": "string", "format": self.pick(&FORMATS) }),
            1 => json!({ "type": "string", "pattern": self.pick(&PATTERNS), "maxLength": 12 }),
            2 => json!({ "type": "string", "format": "date", "pattern": "^[12]" }),
            3 => json!({ "type": "string" }),
            _ => {
                let least = self.below(4);
                json!({ "type": "string", "minLength": least, "maxLength": least + self.below(6) })
            }
        }
    }

    fn array(&mut self, depth: usize) -> Value {
        let least = self.below(3);
        let mut array = json!({ "type": "array", "items": self.schema(depth), "minItems": least });
        if self.chance(85) {
            array["maxItems"] = json!(least + self.below(3));
        }
        if self.chance(25) {
            array["prefixItems"] = json!([self.leaf(), self.schema(depth)]);
        }
        array
    }

    fn object(&mut self, depth: usize) -> Value {
        let mut names = NAMES;
        self.rng.shuffle(&mut names);
        let count = self.below(5);
        let properties: Map<String, Value> =
            names[..count].iter().map(|name| ((*name).to_owned(), self.schema(depth))).collect();
        let all = self.chance(40);
        let required: Vec<&str> = names[..count].iter().copied().filter(|_| all || self.chance(50)).collect();
        let mut object = json!({ "type": "object", "properties": properties });
        if !required.is_empty() {
            object["required"] = json!(required);
        }
        match self.below(4) {
            0 => {}
            1 => object["additionalProperties"] = self.leaf(),
            _ => object["additionalProperties"] = json!(false),
        }
        if self.chance(15) {
            object["patternProperties"] =
                json!({ "^x_[a-c]{1,3}$": self.leaf(), "^y": { "type": "integer", "maximum": 9 } });
        }
        if all && self.chance(50) && (object.get("additionalProperties") != Some(&json!(false))) {
            object["minProperties"] = json!(count + self.below(2));
            object["maxProperties"] = json!(count + 1 + self.below(2));
        }
        object
    }
}

/// Numbers may be larger than 64 bits hold: the grammar of JSON allows that. They become small ones of the same sign.
fn tamed(text: &str) -> String {
    let exponent = fancy_regex::Regex::new(r"([0-9])[eE]([+-]?)[0-9]{3,}").unwrap();
    exponent.replace_all(text, "${1}e${2}30").into_owned()
}

#[test]
fn five_hundred_random_schemas_have_valid_documents_and_no_others() {
    let tokens = tokens::byte_level();
    let mut schemas = Schemas { rng: Rng::new(2024) };
    let mut dump = std::env::var_os("PHYLA_DUMP").map(|path| std::fs::File::create(path).unwrap());
    let count: usize = std::env::var("PHYLA_SCHEMAS").map_or(500, |n| n.parse().unwrap());
    let (mut whole, mut cut, mut invalid, mut masks, mut time) = (0, 0, 0, 0, Duration::ZERO);
    for number in 0..count {
        let schema = schemas.root();
        let constraint = Constraint::json_schema(schema.clone()).unwrap();
        let generation = drawn(&tokens, &constraint, 2, 700, number as u64);
        (masks, time) = (masks + generation.timings.masks, time + generation.timings.masking);
        for sequence in &generation.sequences {
            let text = sequence.text.as_deref().unwrap();
            if sequence.finish_reason == FinishReason::Length && sequence.complete == Some(false) {
                cut += 1;
                continue;
            }
            assert_eq!((sequence.finish_reason, sequence.complete), (FinishReason::Stop, Some(true)));
            whole += 1;
            let document: Option<Value> = serde_json::from_str(&tamed(text)).ok();
            if !document.is_some_and(|document| valid(&document, &schema, &schema)) {
                invalid += 1;
                println!("invalid: {text}\n  for {schema}");
            }
            if let Some(dump) = &mut dump {
                writeln!(dump, "{}", json!({ "schema": schema, "document": text })).unwrap();
            }
        }
    }
    println!(
        "{count} schemas: {whole} documents, {invalid} invalid, {cut} cut off by the limit; \
         {masks} masks, {:.1} us each",
        time.as_secs_f64() * 1e6 / masks as f64
    );
    assert_eq!(invalid, 0);
    assert!(cut * 20 <= whole, "{cut} of {whole} were cut off");
}

#[test]
fn a_document_that_the_limit_cuts_is_the_beginning_of_the_one_without() {
    let tokens = tokens::byte_level();
    let mut schemas = Schemas { rng: Rng::new(7) };
    let mut cuts = 0;
    for number in 0..25 {
        let schema = schemas.root();
        let constraint = Constraint::json_schema(schema.clone()).unwrap();
        let whole = &drawn(&tokens, &constraint, 1, 900, number).sequences[0];
        let limit = 1 + whole.ids.len() / 2;
        let cut = &drawn(&tokens, &constraint, 1, limit, number).sequences[0];
        assert_eq!(cut.ids, whole.ids[..limit.min(whole.ids.len())], "{schema}");
        if cut.finish_reason == FinishReason::Length {
            cuts += 1;
            let ended = whole.ids.len() == limit + 1 && whole.complete == Some(true);
            assert!(
                cut.complete == Some(false) || ended || valid_end(cut.text.as_deref().unwrap(), &schema),
                "{schema}"
            );
        }
    }
    assert!(cuts > 10);
}

fn valid_end(text: &str, schema: &Value) -> bool {
    serde_json::from_str(&tamed(text)).is_ok_and(|document| valid(&document, schema, schema))
}
