//! An explanation of decoding in lines of text: colours and blocks in a terminal, plain signs elsewhere.

use std::io::{self, Write};

use phyla::explain::{BeamStep, Decoding, Guesses, Stage, Step, visible};

use super::super::output;

/// Cells of the longest bar.
const WIDTH: usize = 24;
/// Cells of a token.
const TOKEN: usize = 16;
/// Distributions side by side, at most.
const COLUMNS: usize = 5;

/// Prints all of it.
pub fn print(decoding: &Decoding, terminal: bool) -> anyhow::Result<()> {
    let show = Show { terminal, search: !decoding.beams.is_empty(), several: decoding.sequences.len() > 1 };
    output::stdout(|out| show.all(out, decoding))
}

struct Show {
    terminal: bool,
    search: bool,
    several: bool,
}

impl Show {
    fn all(&self, out: &mut dyn Write, decoding: &Decoding) -> io::Result<()> {
        let prompt: Vec<String> = decoding.prompt.iter().map(visible).collect();
        writeln!(out, "{}  {}", self.soft("prompt"), prompt.join(" "))?;
        writeln!(out, "{}  {}, seed {}", self.soft("method"), decoding.method, decoding.seed)?;
        let mut guesses = decoding.guesses.iter().filter(|guess| !guess.tokens.is_empty()).peekable();
        let mut beams = decoding.beams.iter().peekable();
        for (i, step) in decoding.steps.iter().enumerate() {
            // Guesses are told where the first of them was to come.
            while let Some(guess) = guesses.next_if(|guess| guess.step <= step.step) {
                self.guesses(out, guess)?;
            }
            self.step(out, step)?;
            let last = decoding.steps.get(i + 1).is_none_or(|next| next.step != step.step);
            while let Some(beam) = beams.next_if(|beam| beam.step < step.step || last && beam.step == step.step) {
                self.beams(out, beam)?;
            }
        }
        beams.try_for_each(|beam| self.beams(out, beam))?;
        if decoding.left_out > 0 {
            writeln!(out, "\n{} steps more were not kept (--steps)", decoding.left_out)?;
        }
        self.end(out, decoding)
    }

    /// A table: a line for each candidate, a column for each distribution that differs from the one before.
    fn step(&self, out: &mut dyn Write, step: &Step) -> io::Result<()> {
        let stages = columns(&step.stages);
        let (Some(first), Some(last)) = (stages.first(), stages.last()) else { return Ok(()) };
        let of = match (self.search, self.several) {
            (true, _) => format!(" of beam {}", step.branch),
            (false, true) => format!(" of answer {}", step.branch + 1),
            (false, false) => String::new(),
        };
        write!(out, "\n{}", self.strong(&format!("token {}{of}", step.step + 1)))?;
        if let Some(pick) = &step.pick {
            write!(out, "  {}", self.chosen(&visible(&step.candidates[pick.candidate])))?;
            match (pick.why, pick.uniform) {
                (_, Some(uniform)) => write!(out, "  drawn, u {uniform:.4}")?,
                ("contrast", _) => write!(out, "  by contrast")?,
                (why, _) => write!(out, "  {why}")?,
            }
        }
        let (before, after) = (first.entropy, last.entropy);
        write!(out, "  entropy {before:.2}")?;
        if stages.len() > 1 {
            write!(out, " to {after:.2}")?;
        }
        writeln!(out, " bits, {} ids left", last.left)?;
        let names = stages.iter().map(|stage| format!("{:>12}", shortened(stage.name, 12))).collect::<String>();
        writeln!(out, "  {}", self.soft(&format!("{:TOKEN$}{names}", "")))?;
        for (i, token) in step.candidates.iter().enumerate() {
            let picked = step.pick.as_ref().is_some_and(|pick| pick.candidate == i);
            let name = padded(&visible(token), TOKEN);
            write!(out, "{} {}", if picked { '>' } else { ' ' }, if picked { self.chosen(&name) } else { name })?;
            for stage in &stages {
                match stage.scores[i] {
                    Some(_) => write!(out, "{:>10.1} %", 100. * stage.probabilities[i])?,
                    None => write!(out, "{:>12}", "out")?,
                }
            }
            writeln!(out, "  {}", self.bar(last.probabilities[i]))?;
        }
        for w in step.pick.iter().flat_map(|pick| &pick.weighed) {
            let name = padded(&visible(&step.candidates[w.candidate]), TOKEN);
            writeln!(
                out,
                "  {name}  probability {:.3}, likeness {:.3}, score {:.3}",
                w.probability, w.likeness, w.score
            )?;
        }
        Ok(())
    }

    /// What goes on behind a step of a search, and what has ended.
    fn beams(&self, out: &mut dyn Write, step: &BeamStep) -> io::Result<()> {
        writeln!(out, "\n{}", self.strong(&format!("beams after token {}", step.step + 1)))?;
        let mut kept: Vec<_> = step.candidates.iter().filter(|candidate| candidate.fate != "dropped").collect();
        kept.sort_by_key(|candidate| candidate.rank.unwrap_or(usize::MAX));
        for c in kept {
            let (name, mark) = (padded(&visible(&c.token), TOKEN), if c.returned { "*" } else { " " });
            match (c.rank, c.final_score) {
                (Some(rank), _) => writeln!(out, "{mark} {rank:>3} <- {:<3} {name} sum {:.3}", c.parent, c.score)?,
                (None, Some(score)) => {
                    writeln!(out, "{mark} end <- {:<3} {name} sum {:.3}, score {score:.3}", c.parent, c.score)?;
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn guesses(&self, out: &mut dyn Write, guess: &Guesses) -> io::Result<()> {
        let sign = |(i, token)| match usize::cmp(&i, &guess.right) {
            std::cmp::Ordering::Less => format!("+{}", visible(token)),
            std::cmp::Ordering::Equal => format!("-{}", visible(token)),
            std::cmp::Ordering::Greater => format!(".{}", visible(token)),
        };
        let tokens: Vec<String> = guess.tokens.iter().enumerate().map(sign).collect();
        let head = self.strong(&format!("guessed from token {}", guess.step + 1));
        writeln!(out, "\n{head}  {} of {} right: {}", guess.right, guess.tokens.len(), tokens.join(" "))
    }

    fn end(&self, out: &mut dyn Write, decoding: &Decoding) -> io::Result<()> {
        writeln!(out)?;
        let (made, right) = decoding.guesses.iter().fold((0, 0), |(m, r), g| (m + g.tokens.len(), r + g.right));
        if made > 0 {
            writeln!(out, "{}  {right} of {made} right", self.soft("guesses"))?;
        }
        if let Some(last) = decoding.passes.last() {
            let (passes, bytes) = (decoding.passes.len(), output::bytes(last.bytes as u64));
            let cache = format!("{bytes} for {} positions after {passes} passes", last.positions);
            writeln!(out, "{}  {cache}", self.soft("cache"))?;
        }
        for answer in &decoding.sequences {
            let score = answer.score.map(|score| format!(", score {score:.3}")).unwrap_or_default();
            let said: Vec<String> = answer.tokens.iter().map(visible).collect();
            writeln!(out, "{}  {} ({}{score})", self.soft("answer"), said.join(" "), answer.finish_reason)?;
        }
        Ok(())
    }

    fn bar(&self, share: f32) -> String {
        let cells = share.clamp(0., 1.) * WIDTH as f32;
        if !self.terminal {
            return "#".repeat(cells.round() as usize);
        }
        let (whole, eighths) = (cells as usize, (cells.fract() * 8.) as usize);
        let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths.min(7)];
        format!("\u{1b}[34m{}{rest}\u{1b}[0m", "█".repeat(whole))
    }

    fn styled(&self, text: &str, code: &str) -> String {
        if self.terminal { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn soft(&self, text: &str) -> String {
        self.styled(text, "2")
    }

    fn strong(&self, text: &str) -> String {
        self.styled(text, "1")
    }

    fn chosen(&self, text: &str) -> String {
        self.styled(text, "1;36")
    }
}

/// The distributions worth a column: the first, the last, and between them those that change something, as many as fit.
fn columns(stages: &[Stage]) -> Vec<&Stage> {
    let mut kept: Vec<&Stage> = vec![];
    for (i, stage) in stages.iter().enumerate() {
        let changes =
            kept.last().is_none_or(|last| last.probabilities != stage.probabilities || last.left != stage.left);
        if changes || i + 1 == stages.len() && stages.len() > 1 && kept.len() < 2 {
            kept.push(stage);
        }
    }
    while kept.len() > COLUMNS {
        kept.remove(1);
    }
    kept
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

fn padded(text: &str, cells: usize) -> String {
    format!("{:cells$}", shortened(text, cells))
}
