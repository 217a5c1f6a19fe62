//! `phyla inspect --lineage`: what a model or an adapter came of, and whether that is still there as it was.

use std::io::{self, Write};
use std::path::Path;

use phyla_models::lineage::Lineage;
use phyla_models::lineage::chain::{Link, State, chain};
use serde_json::{Map, Value, json};

use crate::cli::output;

pub fn show(name: &str, folder: &Path, as_json: bool) -> anyhow::Result<()> {
    let links = chain(name, folder)?;
    if as_json {
        let link = |link: &Link| -> anyhow::Result<Value> {
            let mut value = serde_json::to_value(link)?;
            value["state"] = serde_json::to_value(link.state())?;
            Ok(value)
        };
        return output::json(&Value::Array(links.iter().map(link).collect::<anyhow::Result<_>>()?));
    }
    output::stdout(|out| {
        links.iter().enumerate().try_for_each(|(depth, link)| write_link(out, link, depth))?;
        match links.last() {
            Some(last) if last.state() != State::Same => Ok(()),
            Some(Link { lineage: None, name, .. }) => {
                writeln!(out, "{name} has no lineage.json: nothing further is known")
            }
            _ => Ok(()),
        }
    })
}

fn write_link(out: &mut dyn Write, link: &Link, depth: usize) -> io::Result<()> {
    if depth > 0 {
        writeln!(out, "from")?;
    }
    let state = match link.state() {
        State::Missing => "  (is not there any more)",
        State::Changed => "  (HAS CHANGED: its weights are not those that were begun with)",
        State::Same => "",
    };
    writeln!(out, "{}{state}", link.name)?;
    if let (State::Changed | State::Missing, Some(expected)) = (link.state(), &link.expected) {
        line(out, "expected", expected)?;
    }
    if let Some(weights) = &link.weights {
        line(out, "weights", weights)?;
    }
    match &link.lineage {
        Some(lineage) if link.state() == State::Same => describe(out, lineage),
        _ => Ok(()),
    }
}

fn line(out: &mut dyn Write, name: &str, text: &str) -> io::Result<()> {
    writeln!(out, "  {name:<10} {text}")
}

fn describe(out: &mut dyn Write, lineage: &Lineage) -> io::Result<()> {
    let kind = match &lineage.objective {
        Some(objective) => format!("{} of {objective}", lineage.method),
        None => lineage.method.clone(),
    };
    let number = |name: &str, value: Option<u64>| value.map(|value| format!(", {name} {value}")).unwrap_or_default();
    let (step, seed) = (number("step", lineage.step), number("seed", lineage.seed));
    line(out, "made by", &format!("phyla {}: {kind}{step}{seed}", lineage.version))?;
    for (name, text) in [("quantised", &lineage.quantize), ("data", &lineage.data), ("recipe", &lineage.recipe)] {
        if let Some(text) = text {
            line(out, name, text)?;
        }
    }
    for merged in &lineage.merged {
        line(out, "merged", &format!("{}  {}", merged.name, merged.weights))?;
    }
    if !lineage.metrics.is_empty() {
        line(out, "metrics", &metrics(&lineage.metrics))?;
    }
    if lineage.parent.is_none() {
        line(out, "begun", "from scratch")?;
    }
    Ok(())
}

fn metrics(metrics: &Map<String, Value>) -> String {
    let number = |value: &Value| match value.as_f64() {
        Some(number) => json!((number * 1e4).round() / 1e4).to_string(),
        None => value.to_string(),
    };
    metrics.iter().map(|(name, value)| format!("{name} {}", number(value))).collect::<Vec<_>>().join(", ")
}
