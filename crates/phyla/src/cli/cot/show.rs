//! An answer in the terminal: chains, how they voted, and the answer in the last line.

use std::io::{self, IsTerminal, Write};

use phyla::cot::{Solved, Vote};

use crate::cli::output;

/// Prints what has not been printed while it was written.
pub fn answer(solved: &Solved, through: &str) -> anyhow::Result<()> {
    let bold = io::stdout().is_terminal();
    output::stdout(|out| {
        if solved.chains.len() == 1 {
            writeln!(out, "\n")?;
        }
        if let Some(vote) = &solved.vote {
            for (number, chain) in solved.chains.iter().enumerate() {
                let texts: Vec<&str> = chain.passes.iter().map(|pass| pass.text.trim()).collect();
                writeln!(out, "[{}] {}\n    = {}\n", number + 1, texts.join(" / "), shown(chain.answer.as_deref()))?;
            }
            votes(out, vote)?;
        }
        if solved.chains.iter().flat_map(|chain| &chain.passes).any(|pass| pass.cut) {
            writeln!(out, "the end of the reasoning was cut, since the model reads no more")?;
        }
        let answer = shown(solved.answer.as_deref());
        writeln!(out, "({} tokens, {through})", solved.tokens())?;
        if bold { writeln!(out, "\x1b[1manswer: {answer}\x1b[0m") } else { writeln!(out, "answer: {answer}") }
    })
}

/// Each answer with its votes and a bar, and what to make of it.
fn votes(out: &mut dyn Write, vote: &Vote) -> io::Result<()> {
    let all = vote.votes.iter().map(|votes| votes.count).sum::<usize>() + vote.unanswered;
    let width = vote.votes.iter().map(|votes| votes.answer.chars().count()).max().unwrap_or(0).max(9);
    let mut line = |name: &str, count: usize| {
        let share = count as f64 / all.max(1) as f64;
        let bar = "#".repeat((share * 30.).round() as usize);
        writeln!(out, "{name:width$}  {count:4}  {:5.1} %  {bar}", 100. * share)
    };
    for votes in &vote.votes {
        line(&votes.answer, votes.count)?;
    }
    if vote.unanswered > 0 {
        line("no answer", vote.unanswered)?;
    }
    let tied = if vote.tied { ", tied: the answer that came first is taken" } else { "" };
    writeln!(out, "confidence {:.3}{tied}", vote.confidence)
}

fn shown(answer: Option<&str>) -> &str {
    answer.unwrap_or("none found")
}
