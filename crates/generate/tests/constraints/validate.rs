//! Whether a document is valid, by the words of the standard: the judge, which shares no line with what is judged.

use std::net::{Ipv4Addr, Ipv6Addr};

use fancy_regex::Regex;
use serde_json::Value;

/// Whether `schema`, a part of `root`, allows `value`.
pub fn valid(value: &Value, schema: &Value, root: &Value) -> bool {
    let Value::Object(map) = schema else { return schema == &Value::Bool(true) };
    map.iter().all(|(key, rule)| holds(value, key, rule, schema, root))
}

fn holds(value: &Value, key: &str, rule: &Value, schema: &Value, root: &Value) -> bool {
    let count = || rule.as_u64().unwrap() as usize;
    let all = |rules: &Value| rules.as_array().unwrap().iter().filter(|rule| valid(value, rule, root)).count();
    match (key, value) {
        ("type", _) => match rule {
            Value::Array(types) => types.iter().any(|name| is(value, name.as_str().unwrap())),
            name => is(value, name.as_str().unwrap()),
        },
        ("const", _) => same(value, rule),
        ("enum", _) => rule.as_array().unwrap().iter().any(|one| same(value, one)),
        ("anyOf", _) => all(rule) > 0,
        ("oneOf", _) => all(rule) == 1,
        ("allOf", _) => all(rule) == rule.as_array().unwrap().len(),
        ("$ref", _) => valid(value, root.pointer(rule.as_str().unwrap().strip_prefix('#').unwrap()).unwrap(), root),
        ("minimum", Value::Number(x)) => x.as_f64() >= rule.as_f64(),
        ("maximum", Value::Number(x)) => x.as_f64() <= rule.as_f64(),
        ("exclusiveMinimum", Value::Number(x)) => x.as_f64() > rule.as_f64(),
        ("exclusiveMaximum", Value::Number(x)) => x.as_f64() < rule.as_f64(),
        ("multipleOf", Value::Number(x)) => x.as_f64().unwrap() % rule.as_f64().unwrap() == 0.,
        ("minLength", Value::String(text)) => text.chars().count() >= count(),
        ("maxLength", Value::String(text)) => text.chars().count() <= count(),
        ("pattern", Value::String(text)) => matches(rule.as_str().unwrap(), text),
        ("format", Value::String(text)) => format(rule.as_str().unwrap(), text),
        ("minItems", Value::Array(items)) => items.len() >= count(),
        ("maxItems", Value::Array(items)) => items.len() <= count(),
        ("prefixItems", Value::Array(items)) => {
            items.iter().zip(rule.as_array().unwrap()).all(|(item, rule)| valid(item, rule, root))
        }
        ("items", Value::Array(items)) => {
            let first = schema.get("prefixItems").map_or(0, |rules| rules.as_array().unwrap().len());
            items.iter().skip(first).all(|item| valid(item, rule, root))
        }
        ("required", Value::Object(map)) => {
            rule.as_array().unwrap().iter().all(|name| map.contains_key(name.as_str().unwrap()))
        }
        ("minProperties", Value::Object(map)) => map.len() >= count(),
        ("maxProperties", Value::Object(map)) => map.len() <= count(),
        ("properties", Value::Object(map)) => rule
            .as_object()
            .unwrap()
            .iter()
            .all(|(name, rule)| map.get(name).is_none_or(|value| valid(value, rule, root))),
        ("patternProperties", Value::Object(map)) => rule.as_object().unwrap().iter().all(|(pattern, rule)| {
            map.iter().filter(|(name, _)| matches(pattern, name)).all(|(_, value)| valid(value, rule, root))
        }),
        ("additionalProperties", Value::Object(map)) => {
            let none = Value::Object(Default::default());
            let named = schema.get("properties").unwrap_or(&none).as_object().unwrap();
            let patterns = schema.get("patternProperties").unwrap_or(&none).as_object().unwrap();
            let free =
                |name: &String| !named.contains_key(name) && !patterns.keys().any(|pattern| matches(pattern, name));
            map.iter().filter(|(name, _)| free(name)).all(|(_, value)| valid(value, rule, root))
        }
        ("$defs" | "$schema" | "title" | "description", _) => true,
        // Not about this kind of value.
        (
            "minimum"
            | "maximum"
            | "exclusiveMinimum"
            | "exclusiveMaximum"
            | "multipleOf"
            | "minLength"
            | "maxLength"
            | "pattern"
            | "format"
            | "minItems"
            | "maxItems"
            | "prefixItems"
            | "items"
            | "required"
            | "minProperties"
            | "maxProperties"
            | "properties"
            | "patternProperties"
            | "additionalProperties",
            _,
        ) => true,
        (key, _) => panic!("the judge does not know {key}"),
    }
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_f64().is_some_and(|x| x.fract() == 0.),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        name => panic!("no type {name}"),
    }
}

/// Equal, as numbers are: 1 and 1.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

pub fn matches(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).unwrap().is_match(text).unwrap()
}

fn format(name: &str, text: &str) -> bool {
    let digits = |text: &str, n: usize| {
        (text.len() == n && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse::<u32>().unwrap())
    };
    let hex = |text: &str, n: usize| text.len() == n && text.bytes().all(|b| b.is_ascii_hexdigit());
    let label = |text: &str| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-')
    };
    let host = |text: &str| text.len() <= 253 && text.split('.').all(label);
    let clock = |text: &str| {
        let parts: Vec<&str> = text.split(':').collect();
        parts.len() == 2 && digits(parts[0], 2).is_some_and(|h| h < 24) && digits(parts[1], 2).is_some_and(|m| m < 60)
    };
    match name {
        "date" => {
            let parts: Vec<&str> = text.split('-').collect();
            let [year, month, day] = parts[..] else { return false };
            let (Some(year), Some(month), Some(day)) = (digits(year, 4), digits(month, 2), digits(day, 2)) else {
                return false;
            };
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let days = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            year >= 1 && (1..=12).contains(&month) && (1..=days[month as usize - 1]).contains(&day)
        }
        "time" => {
            let (time, zone) = text.split_at(text.find(['Z', '+', '-']).unwrap_or(text.len()));
            let (seconds, fraction) = time.split_once('.').unwrap_or((time, "0"));
            let (minutes, seconds) = seconds.rsplit_once(':').unwrap_or_default();
            clock(minutes)
                && digits(seconds, 2).is_some_and(|s| s < 60)
                && !fraction.is_empty()
                && fraction.bytes().all(|b| b.is_ascii_digit())
                && (zone == "Z" || zone.len() == 6 && clock(&zone[1..]))
        }
        "date-time" => text.split_once('T').is_some_and(|(date, time)| format("date", date) && format("time", time)),
        "duration" => {
            text.starts_with('P')
                && text.len() > 2
                && text.bytes().all(|b| b.is_ascii_digit() || b"PYMDTHSW".contains(&b))
        }
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "uuid" => {
            text.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && text.split('-').all(|part| hex(part, part.len()))
        }
        "hostname" => host(text),
        "email" => text.split_once('@').is_some_and(|(name, domain)| {
            (1..=64).contains(&name.len())
                && !name.starts_with('.')
                && !name.ends_with('.')
                && !name.contains("..")
                && host(domain)
        }),
        "uri" => text.split_once(':').is_some_and(|(scheme, rest)| {
            scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b))
                && !rest.contains(['"', ' ', '<', '\\'])
        }),
        name => panic!("no format {name}"),
    }
}
