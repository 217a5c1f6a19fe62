//! Vectors of texts: how well the cosine of two texts' vectors agrees with how alike people find them.
//!
//! As EmbeddingSimilarityEvaluator of sentence-transformers measures it by cosines.

use phyla_data::supervised::records::Labelled;
use phyla_data::supervised::table::Table;
use phyla_metrics::regression;
use rayon::prelude::*;

use super::classify::{fault, numbers};
use super::{Evaluation, Metric, Mistake, Options, Progress, Scale, Worst, note};
use crate::task::Runner;
use crate::task::embed::{Embed, Recipe};
use crate::{Error, Session};

/// Evaluates vectors on pairs of texts whose label is a number.
///
/// # Errors
/// Rows that cannot be read, without a second text or without one number as label; fewer than two of them.
pub fn similarity(
    session: &Session,
    table: &Table,
    options: &Options,
    progress: Progress,
) -> Result<Evaluation, Error> {
    let mut recipe = Recipe::read(&session.folder)?;
    recipe.max_len = options.max_len.or(recipe.max_len);
    let head = Embed::new(session, recipe)?;
    let runner = Runner::new(&session.model, session.tokenizer.as_ref(), options.batches);
    let (mut labels, mut cosines, mut asked) = (vec![], vec![], vec![]);
    let mut cut = 0;
    let mut records = table.records::<Labelled>();
    loop {
        let chunk = records.by_ref().take(options.batches.chunk.max(1)).collect::<phyla_data::Result<Vec<_>>>()?;
        if chunk.is_empty() {
            break;
        }
        let mut texts = vec![];
        for record in &chunk {
            let Some(second) = &record.text_b else {
                return Err(fault(
                    record,
                    "expected two texts, found one; a column for the role text_b holds it".into(),
                ));
            };
            let [label] = numbers(record)?[..] else {
                return Err(fault(record, "expected one number as label, how alike the two texts are".into()));
            };
            labels.push(label);
            texts.extend([record.text.as_str(), second.as_str()]);
        }
        let rows = texts.par_iter().map(|text| head.row(text)).collect::<phyla_data::Result<Vec<_>>>()?;
        cut += rows.iter().filter(|(_, cut)| *cut).count() as u64;
        let vectors = head.vectors(&runner, &rows.iter().map(|(row, _)| row).collect::<Vec<_>>())?;
        cosines.extend(vectors.chunks_exact(2).map(|pair| cosine(&pair[0], &pair[1])));
        asked.extend(texts.chunks_exact(2).map(|pair| pair.join(" / ")));
        progress(labels.len() as u64, None);
    }
    let count = labels.len() as u64;
    let mut made = Evaluation { task: "similarity", unit: "pairs", count, ..Evaluation::default() };
    made.metrics = vec![
        Metric::new("spearman", regression::spearman(&labels, &cosines)?, Scale::Number),
        Metric::new("pearson", regression::pearson(&labels, &cosines)?, Scale::Number),
    ];
    note(&mut made.notes, cut, 2 * count, "texts were cut, since the model reads no more");
    note(&mut made.notes, table.faults().count, count + table.faults().count, "rows could not be used");
    made.mistakes = displaced(&labels, &cosines, &asked, options.mistakes);
    Ok(made)
}

/// Of two vectors; 0 where one has no direction.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0. { dot(a, b) / lengths } else { 0. }
}

/// The pairs whose rank among the cosines is farthest from that among the labels.
fn displaced(labels: &[f64], cosines: &[f64], asked: &[String], most: usize) -> Vec<Mistake> {
    let mut worst = Worst::new(most);
    let ranks = regression::ranks(labels).into_iter().zip(regression::ranks(cosines));
    for (at, (expected, found)) in ranks.enumerate() {
        let apart = (expected - found).abs() / labels.len().max(1) as f64;
        worst.add(apart, || Mistake {
            input: asked[at].clone(),
            expected: format!("{} (rank {expected})", labels[at]),
            found: format!("{:.4} (rank {found})", cosines[at]),
            score: cosines[at],
        });
    }
    worst.take()
}
