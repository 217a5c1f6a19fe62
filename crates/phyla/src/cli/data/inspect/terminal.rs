//! An inspection in a terminal, in colour; in a file or a pipe, with brackets.

use std::io::{self, Write};

use super::{Inspection, tame};

/// Learned, the rest, and headlines.
const COLOURS: [&str; 3] = ["\x1b[30;42m", "\x1b[2m", "\x1b[1m"];
const PLAIN: &str = "\x1b[0m";

pub fn tell(out: &mut dyn Write, inspection: &Inspection, ids: bool, colour: bool) -> io::Result<()> {
    let [learned, other, bold] = if colour { COLOURS } else { [""; 3] };
    let plain = if colour { PLAIN } else { "" };
    for example in &inspection.examples {
        writeln!(out, "{bold}{}{plain}", example.headline())?;
        for run in &example.runs {
            let text = tame(&run.text);
            match (run.learned, colour) {
                (true, false) => write!(out, "⟦{text}⟧")?,
                (false, false) => write!(out, "{text}")?,
                // Colour does not survive the end of a line in every pager.
                (is_learned, true) => {
                    let style = if is_learned { learned } else { other };
                    for line in text.split_inclusive('\n') {
                        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
                        let mark = if is_learned && !end.is_empty() { "↵" } else { "" };
                        write!(out, "{style}{line}{mark}{plain}{end}")?;
                    }
                }
            }
        }
        writeln!(out)?;
        if ids {
            let shown = example.ids.iter().zip(&example.learned);
            let shown = shown.map(|(id, &is)| if is { format!("{learned}[{id}]{plain}") } else { id.to_string() });
            writeln!(out, "ids: {}", shown.collect::<Vec<_>>().join(" "))?;
        }
        for doubt in &example.doubts {
            writeln!(out, "doubt: {doubt}")?;
        }
        writeln!(out)?;
    }
    for row in inspection.packed.iter().flat_map(|packed| &packed.shown) {
        writeln!(out, "{}", row.describe())?;
    }
    for line in inspection.summary() {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "tokens of an example:")?;
    for (class, count, bar) in inspection.histogram(40) {
        writeln!(out, "{class:>13}  {count:>8}  {}", "█".repeat(bar))?;
    }
    Ok(())
}
