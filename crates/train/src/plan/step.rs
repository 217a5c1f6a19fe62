//! A dry run of one step of training, and of what a validation pass holds at its worst.

use phyla_models::{Arch, Towers};
use phyla_nn::{Emits, HeadSpec, Reads};

use super::operations::Matrix;
use super::rows::Rows;
use super::tape::Tensor;
use super::walk::{Pass, Walk};
use crate::recipe::Objective;

/// Rows of logits that are held at once while answers are looked at.
const LOOKED_AT: usize = 512;

impl Walk {
    /// Forward, loss, backward.
    pub fn train(&self, arch: &Arch, objective: &Objective, rows: &Rows, checkpointing: bool) {
        let losses = self.losses(arch, objective, rows, checkpointing);
        let mut losses = losses.into_iter();
        let Some(first) = losses.next() else { return };
        let total = losses.fold(first, |sum, part| self.tape.add(&sum, &part));
        self.tape.backward(&total, self.tape.hold(1));
    }

    /// A batch of held-out data, and what the model answers of it.
    pub fn examine(&self, arch: &Arch, objective: &Objective, rows: &Rows) {
        self.tape.no_grad(|| {
            let (hidden, pass) = self.see(arch, rows, false, false);
            drop(self.parts(arch, objective, &hidden, rows, &pass));
            let silent = matches!(objective, Objective::Lm(_)) || objective.compares();
            if let Some(head) = arch.lm_head().filter(|_| !silent) {
                self.answers(head, &hidden, rows.targets.min(LOOKED_AT), &pass);
            }
        });
    }

    /// Reads tokens and keeps nothing.
    pub fn look(&self, arch: &Arch, rows: &Rows) {
        self.tape.no_grad(|| drop(self.see(arch, rows, false, false)));
    }

    fn losses(&self, arch: &Arch, objective: &Objective, rows: &Rows, checkpointing: bool) -> Vec<Tensor> {
        let (hidden, pass) = self.see(arch, rows, true, checkpointing);
        self.parts(arch, objective, &hidden, rows, &pass)
    }

    /// The main tower's last states.
    fn see(&self, arch: &Arch, rows: &Rows, training: bool, checkpointing: bool) -> (Tensor, Pass) {
        let (batch, time) = (rows.batch, rows.length);
        let mut pass = Pass { batch, time, training, checkpointing, relative: None, memory: None };
        let (path, main) = match &arch.towers {
            Towers::Encoder(tower) => ("encoder", tower),
            Towers::Decoder(tower) => ("decoder", tower),
            Towers::Both { encoder, decoder } => {
                let time = rows.source.unwrap_or(time);
                let mut source = Pass { time, ..pass.clone() };
                pass.memory = Some((self.tower(arch, "encoder", encoder, &mut source), time));
                ("decoder", decoder)
            }
        };
        let hidden = self.tower(arch, path, main, &mut pass);
        (hidden, pass)
    }

    fn parts(&self, arch: &Arch, objective: &Objective, hidden: &Tensor, rows: &Rows, pass: &Pass) -> Vec<Tensor> {
        let answers = |head: &&HeadSpec| head.reads == Reads::Tokens && matches!(head.emits, Emits::One(_));
        let mut losses = vec![];
        match objective {
            Objective::Dpo(_) | Objective::Orpo(_) | Objective::Cpo(_) | Objective::Simpo(_) | Objective::Kto(_) => {
                losses.extend(arch.lm_head().map(|head| self.log_probs(head, hidden, rows.targets, pass)));
                if let Objective::Kto(_) = objective {
                    self.tape.no_grad(|| {
                        let (hidden, pass) = self.see(arch, rows, false, false);
                        arch.lm_head().map(|head| self.log_probs(head, &hidden, rows.targets, &pass))
                    });
                }
            }
            played if played.play().is_some() => {
                losses.extend(arch.lm_head().map(|head| self.log_probs(head, hidden, rows.targets, pass)));
                if let Objective::Ppo(_) = played {
                    let (width, learns) = (hidden.count() / pass.tokens().max(1), true);
                    let value =
                        Matrix { output: 1, input: width, learns, bias_learns: true, low: false, blocks: false };
                    losses.push(self.tape.linear(&self.tape.gather(hidden, rows.targets * width), value));
                }
            }
            _ if rows.targets > 0 => {
                losses.extend(arch.heads.iter().find(answers).map(|h| self.token_loss(h, hidden, rows.targets, pass)));
            }
            _ => {}
        }
        let by_rows = rows.targets == 0 || matches!(objective, Objective::MlmNsp(_));
        for head in arch.heads.iter().filter(|head| by_rows && !head.is_lm()) {
            losses.push(self.row_loss(arch, head, hidden, rows.batch, pass));
        }
        losses
    }
}
