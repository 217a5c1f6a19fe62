//! What is held, and what is refused by name and place.
#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;

fn refused(schema: Value) -> String {
    checked(&schema).unwrap_err().to_string()
}

#[test]
fn every_keyword_that_is_not_held_is_refused_by_name_and_place() {
    for keyword in REFUSED {
        let error = refused(json!({ "type": "object", "properties": { "a/b": { "items": { *keyword: {} } } } }));
        assert_eq!(
            error,
            format!(
                "json_schema: at #/properties/a~1b/items/{keyword}: `{keyword}` is not supported: no document is better than \
                 one that may be invalid"
            )
        );
    }
    // Wherever schemas stand.
    for around in [
        json!({ "anyOf": [true, { "not": {} }] }),
        json!({ "allOf": [{ "not": {} }] }),
        json!({ "oneOf": [{ "not": {} }] }),
        json!({ "prefixItems": [{ "not": {} }] }),
        json!({ "items": [{ "not": {} }] }),
        json!({ "items": [{}], "additionalItems": { "not": {} } }),
        json!({ "additionalProperties": { "not": {} } }),
        json!({ "patternProperties": { "^a": { "not": {} } } }),
        json!({ "$defs": { "x": { "not": {} } } }),
        json!({ "definitions": { "x": { "not": {} } } }),
    ] {
        let error = refused(around.clone());
        assert!(error.contains("/not: `not` is not supported"), "{around}: {error}");
    }
    // What is said in vain, and what merely annotates, is no reason.
    let held = checked(&json!({ "not a keyword's place": 1 }));
    assert!(held.unwrap_err().to_string().contains("#/not a keyword's place"));
    let fine =
        json!({ "uniqueItems": false, "title": "t", "default": 3, "examples": [{ "not": 1 }], "deprecated": true });
    assert_eq!(checked(&fine).unwrap().as_object().unwrap().keys().collect::<Vec<_>>(), ["x-guidance"]);
}

#[test]
fn keywords_of_others_are_refused_and_misspelt_ones_named() {
    for (schema, expected) in [
        (
            json!({ "minLenght": 3 }),
            "at #/minLenght: `minLenght` is no keyword of JSON Schema; did you mean `minLength`?",
        ),
        (json!({ "nullable": true }), "at #/nullable: `nullable` is no keyword"),
        (json!({ "x-guidance": { "lenient": true } }), "at #/x-guidance: `x-guidance` is no keyword"),
        (json!({ "components": { "schemas": {} } }), "put schemas that are referred to under $defs"),
    ] {
        assert!(refused(schema.clone()).contains(expected), "{}", refused(schema));
    }
}

#[test]
fn values_of_the_wrong_kind_are_refused_where_they_stand() {
    for (schema, expected) in [
        (json!({ "type": "text" }), "at #/type: expected one or some of null, boolean, integer"),
        (json!({ "type": [] }), "at #/type: expected one or some of"),
        (json!({ "enum": [] }), "at #/enum: expected a list that is not empty, found []"),
        (json!({ "anyOf": {} }), "at #/anyOf: expected a list"),
        (json!({ "properties": [] }), "at #/properties: expected an object, found []"),
        (
            json!({ "properties": { "a": 3 } }),
            "at #/properties/a: expected a schema (an object, true or false), found 3",
        ),
        (json!({ "required": "a" }), "at #/required: expected a list of strings"),
        (json!({ "minItems": -1 }), "at #/minItems: expected a whole number from 0, found -1"),
        (json!({ "maxLength": 2.5 }), "at #/maxLength: expected a whole number from 0, found 2.5"),
        (json!({ "minimum": "3" }), "at #/minimum: expected a number"),
        (json!({ "maximum": 1e300 }), "at #/maximum: expected a number of at most 9007199254740991"),
        (json!({ "exclusiveMinimum": true }), "at #/exclusiveMinimum: expected a number"),
        (json!({ "multipleOf": 0 }), "at #/multipleOf: expected a number above 0, found 0"),
        (json!({ "pattern": "é(" }), "at #/pattern: the expression \"é(\" is wrong at character 2: unclosed group"),
        (json!({ "patternProperties": { "[": {} } }), "at #/patternProperties/[: the expression"),
        (json!({ "format": "color" }), "at #/format: the format \"color\" is not supported; these are: date, time,"),
        (json!({ "const": 9007199254740993u64 }), "at #/const: expected a number that has a 64-bit equal"),
        (json!({ "enum": ["a\u{1}"] }), "at #/enum: the character U+0001 is not written in strings"),
        (
            json!({ "uniqueItems": true }),
            "at #/uniqueItems: `uniqueItems` is not supported: a grammar cannot compare items",
        ),
        (json!({ "minProperties": 2 }), "at #/minProperties: a grammar cannot tell names apart"),
        (
            json!({ "minProperties": 3, "required": ["a", "a"] }),
            "at #/minProperties: a grammar cannot tell names apart",
        ),
        (json!({ "$ref": "#/$defs/none" }), "at #/$ref: there is no schema at `#/$defs/none`"),
        (json!({ "$ref": "#name" }), "at #/$ref: there is no schema at `#name`"),
        // Where no schema stands.
        (json!({ "const": { "type": "null" }, "items": { "$ref": "#/const" } }), "at #/items/$ref: there is no schema"),
        (json!({ "$ref": "https://example.com/s.json" }), "stands in another document; put it under $defs"),
        (json!({ "$schema": "https://example.com/own" }), "at #/$schema: expected a draft from 4 to 2020-12"),
        (json!({ "items": { "$id": "x" } }), "at #/items/$id: `$id` is held at the top alone"),
        (json!({ "additionalItems": false }), "at #/additionalItems: it says nothing unless `items` is a list"),
        (json!({ "items": [{}], "prefixItems": [{}] }), "at #/items: a list here and `prefixItems`"),
        (json!({ "$schema": "http://json-schema.org/draft-07/schema#", "prefixItems": [{}] }), "came with 2020-12"),
        (json!(false), "at #: `false` allows no document"),
        (json!([]), "at #: expected a schema"),
    ] {
        assert!(refused(schema.clone()).contains(expected), "{schema}: {}", refused(schema.clone()));
    }
    let mut deep = json!({});
    for _ in 0..100 {
        deep = json!({ "items": deep });
    }
    assert!(refused(deep).contains("nested deeper than 64"));
}

#[test]
fn references_are_found_by_pointer_and_by_name() {
    let schema = json!({ "$defs": { "a b/~": { "$anchor": "here" } }, "anyOf": [
        { "$ref": "#/$defs/a%20b~1~0" }, { "$ref": "#here" }, { "$ref": "#" }, { "$ref": "#/anyOf/0" }
    ] });
    checked(&schema).unwrap();
    assert_eq!(places(&schema, &["$ref"]), (0..4).map(|i| format!("#/anyOf/{i}/$ref")).collect::<Vec<_>>());
}

#[test]
fn formats_become_patterns_beside_others() {
    let held = checked(&json!({ "format": "ipv4", "pattern": "^1", "allOf": [{}] })).unwrap();
    assert_eq!(held["pattern"], "^1");
    assert!(held["allOf"][1]["pattern"].as_str().unwrap().starts_with("^(?:(?:"));
    assert!(held.get("format").is_none());
}

#[test]
fn formats_match_what_their_standards_allow() {
    let matches = |name: &str, text: &str| {
        let expression = fancy_regex::Regex::new(&format!("^(?:{})$", format(name).unwrap())).unwrap();
        expression.is_match(text).unwrap()
    };
    for (name, text, fine) in [
        ("date", "2024-02-29", true),
        ("date", "2023-02-29", false),
        ("date", "1900-02-29", false),
        ("date", "2000-02-29", true),
        ("date", "0000-01-01", false),
        ("date", "2024-04-31", false),
        ("date", "2024-12-31", true),
        ("date", "2024-13-01", false),
        ("time", "23:59:59Z", true),
        ("time", "24:00:00Z", false),
        ("time", "12:00:00", false),
        ("time", "12:00:00.25+05:30", true),
        ("date-time", "2024-02-29T12:00:00Z", true),
        ("date-time", "2024-02-29 12:00:00Z", false),
        ("duration", "P1Y2M3DT4H5M6S", true),
        ("duration", "P", false),
        ("duration", "PT", false),
        ("duration", "P2W", true),
        ("duration", "P1Y1D", false),
        ("ipv4", "255.255.255.255", true),
        ("ipv4", "256.1.1.1", false),
        ("ipv4", "01.1.1.1", false),
        ("ipv6", "::", true),
        ("ipv6", "::1", true),
        ("ipv6", "1::", true),
        ("ipv6", "1:2:3:4:5:6:7:8", true),
        ("ipv6", "1:2:3:4:5:6:7", false),
        ("ipv6", "1::2::3", false),
        ("ipv6", "1:2:3:4:5:6::8", true),
        ("ipv6", "1:2:3:4:5:6::", true),
        ("ipv6", "1:2:3:4:5:6:7::8", false),
        ("email", "a.b@example.org", true),
        ("email", "a..b@example.org", false),
        ("email", "@example.org", false),
        ("hostname", "a-b.example", true),
        ("hostname", "-a.example", false),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", true),
        ("uuid", "123e4567e89b12d3a456426614174000", false),
        ("uri", "https://example.org/a?b#c", true),
        ("uri", "no uri", false),
    ] {
        assert_eq!(matches(name, text), fine, "{name} {text}");
    }
}
