//! A dry run through towers and heads, in the order of `phyla_nn`'s forward passes and with the same names alive at the same
//! time; `blocks` has what stands in a layer.

use std::rc::Rc;

use phyla_models::Arch;
use phyla_nn::{
    EmbedSpec, HeadSpec, LayerSpec, NormSpec, Positions, Reads, RelativeSpec, Residual, TokenTypes, TowerSpec,
};

use super::known::Known;
use super::tape::{Kind, Tape, Tensor};

/// A pass over `batch` rows of `time` tokens.
#[derive(Clone)]
pub struct Pass {
    /// Rows.
    pub batch: usize,
    /// Tokens of a row.
    pub time: usize,
    /// Whether there is dropout.
    pub training: bool,
    /// Whether layers are computed again in the backward pass.
    pub checkpointing: bool,
    /// What all layers share of relative positions.
    pub relative: Option<Tensor>,
    /// The encoder's states, and how many tokens a row of them has.
    pub memory: Option<(Tensor, usize)>,
}

impl Pass {
    /// Tokens.
    pub fn tokens(&self) -> usize {
        self.batch * self.time
    }
}

/// A model to walk through.
#[derive(Clone)]
pub struct Walk {
    /// Where memory is counted.
    pub tape: Tape,
    /// Its weights.
    pub known: Rc<Known>,
}

impl Walk {
    /// Norm at `path`.
    pub fn norm(&self, path: &str, spec: NormSpec, dim: usize, x: &Tensor) -> Tensor {
        let statistics = match spec {
            NormSpec::Rms { .. } => 1,
            NormSpec::Layer { .. } => 2,
        };
        let learns = |name: &str| self.known.learns(&format!("{path}.{name}")).unwrap_or(false);
        self.tape.norm(x, dim, statistics, learns("weight") || learns("bias"))
    }

    /// Dropout.
    pub fn drop(&self, x: Tensor, p: f32, pass: &Pass) -> Tensor {
        if pass.training && p > 0. { self.tape.passing(&x) } else { x }
    }

    /// `[batch, time, hidden]` of a tower.
    pub fn tower(&self, arch: &Arch, path: &str, spec: &TowerSpec, pass: &mut Pass) -> Tensor {
        let mut x = self.embed(arch, path, &spec.embed, spec.hidden, pass);
        if let Some(relative) = &spec.relative {
            pass.relative = Some(self.relative(&format!("{path}.relative"), relative, pass));
        }
        for (at, layer) in spec.layers.iter().enumerate() {
            let place = format!("{path}.layers.{at}");
            let y = if pass.checkpointing {
                self.again(place, layer, &x, pass)
            } else {
                self.layer(&place, layer, &x, pass)
            };
            x = match &spec.conv {
                Some(conv) if at == 0 => self.conv(&format!("{path}.conv"), conv, &x, &y, pass),
                _ => y,
            };
        }
        if let Some(norm) = spec.final_norm {
            x = self.norm(&format!("{path}.norm"), norm, spec.hidden, &x);
        }
        self.drop(x, spec.final_dropout, pass)
    }

    fn again(&self, place: String, layer: &LayerSpec, x: &Tensor, pass: &Pass) -> Tensor {
        let (walk, layer, outside) = (self.clone(), layer.clone(), pass.clone());
        let shared = pass.relative.iter().chain(pass.memory.as_ref().map(|(states, _)| states));
        let inputs: Vec<&Tensor> = std::iter::once(x).chain(shared).collect();
        self.tape.checkpoint(&inputs, move |inputs| {
            let (mut pass, mut rest) = (outside.clone(), inputs[1..].iter());
            for place in pass.relative.iter_mut().chain(pass.memory.as_mut().map(|(states, _)| states)) {
                if let Some(tensor) = rest.next() {
                    *place = tensor.clone();
                }
            }
            walk.layer(&place, &layer, &inputs[0], &pass)
        })
    }

    fn layer(&self, place: &str, spec: &LayerSpec, x: &Tensor, pass: &Pass) -> Tensor {
        let mut x = x.clone();
        for sublayer in &spec.sublayers {
            let name = sublayer.name();
            let (path, norm) = (format!("{place}.{name}"), format!("{place}.{name}_norm"));
            let dropout = if spec.undropped == Some(name) { 0. } else { spec.dropout };
            x = match spec.residual {
                Residual::PreNorm => {
                    let y = self.sublayer(&path, sublayer, &self.norm(&norm, spec.norm, spec.hidden, &x), pass);
                    self.tape.add(&x, &self.drop(y, dropout, pass))
                }
                Residual::PostNorm => {
                    let y = self.sublayer(&path, sublayer, &x, pass);
                    let sum = self.tape.add(&x, &self.drop(y, dropout, pass));
                    self.norm(&norm, spec.norm, spec.hidden, &sum)
                }
            };
        }
        x
    }

    fn embed(&self, arch: &Arch, path: &str, spec: &EmbedSpec, hidden: usize, pass: &Pass) -> Tensor {
        let (tape, tokens) = (&self.tape, pass.tokens());
        let learns = |path: &str| self.known.learns(path).unwrap_or(false);
        let table = match spec.tokens {
            phyla_nn::TokenTable::Shared => "tokens.weight".to_owned(),
            phyla_nn::TokenTable::Own(_) => format!("{path}.tokens.weight"),
        };
        let width = self.known.dims(&table).last().copied().unwrap_or(arch.tokens.dim);
        let mut x = tape.embedding(tokens * width, learns(&table));
        if spec.scale != 1. {
            x = tape.passing(&x);
        }
        if let TokenTypes::Own(_) = spec.token_types {
            x = tape.add(&x, &tape.embedding(tokens * width, learns(&format!("{path}.token_types.weight"))));
        }
        x = match spec.positions {
            Positions::None => x,
            Positions::Sinusoids { .. } => tape.add(&x, &Tensor::new(tape.hold(tokens * width))),
            Positions::Learned { .. } | Positions::Stored { .. } => {
                tape.add(&x, &tape.embedding(tokens * width, learns(&format!("{path}.positions.weight"))))
            }
        };
        if spec.project.is_some() {
            x = self.known.linear(&format!("{path}.project"), &x);
        }
        if let Some(norm) = spec.norm {
            x = self.norm(&format!("{path}.embed_norm"), norm, hidden, &x);
        }
        self.drop(x, spec.dropout, pass)
    }

    /// A bias for all heads, or the vectors of all distances.
    pub fn relative(&self, path: &str, spec: &RelativeSpec, pass: &Pass) -> Tensor {
        let learns = self.known.learns(&format!("{path}.weight")).unwrap_or(false);
        match spec {
            RelativeSpec::Buckets { heads, .. } => self.tape.embedding(heads * pass.time * pass.time, learns),
            RelativeSpec::Table { table, norm, distances } => {
                let vectors = self.tape.embedding(distances.rows().min(2 * pass.time) * table.dim, learns);
                match norm {
                    Some(norm) => self.norm(&format!("{path}.norm"), *norm, table.dim, &vectors),
                    None => vectors,
                }
            }
        }
    }

    /// What the last map of a head reads.
    fn features(&self, head: &HeadSpec, x: &Tensor, pass: &Pass) -> Tensor {
        let mut x = x.clone();
        if let Some(transform) = head.transform {
            let path = format!("{}.transform", head.name);
            x = self.drop(x, transform.dropout, pass);
            x = self.tape.activate(&self.known.linear(&format!("{path}.dense"), &x));
            if let Some(norm) = transform.norm {
                x = self.norm(&format!("{path}.norm"), norm, transform.dense.output, &x);
            }
        }
        x = self.drop(x, head.dropout, pass);
        if head.scale != 1. { self.tape.passing(&x) } else { x }
    }

    /// The loss of `counted` of the tokens of `hidden`.
    pub fn token_loss(&self, head: &HeadSpec, hidden: &Tensor, counted: usize, pass: &Pass) -> Tensor {
        let picked = 2 * counted < pass.tokens();
        let x = if picked {
            self.tape.gather(hidden, hidden.count() / pass.tokens().max(1) * counted)
        } else {
            hidden.clone()
        };
        let x = self.features(head, &x, pass);
        let (w, changed) = self.known.output(head.name);
        match changed {
            true => self.tape.cross_entropy(&self.known.map(Kind::Logits, head.name, w, &x)),
            false => self.tape.linear_cross_entropy(&x, w),
        }
    }

    /// Log-probabilities of `counted` of the tokens of `hidden`.
    pub fn log_probs(&self, head: &HeadSpec, hidden: &Tensor, counted: usize, pass: &Pass) -> Tensor {
        let x = self.tape.gather(hidden, hidden.count() / pass.tokens().max(1) * counted);
        let x = self.features(head, &x, pass);
        let (w, _) = self.known.output(head.name);
        self.tape.linear_choices(&x, w)
    }

    /// The loss of a head that answers for `rows` rows of `hidden`, through the pooler if there is one.
    pub fn row_loss(&self, arch: &Arch, head: &HeadSpec, hidden: &Tensor, rows: usize, pass: &Pass) -> Tensor {
        let width = hidden.count() / pass.tokens().max(1);
        let x = match (head.reads, &arch.pooler) {
            (Reads::Tokens, _) => hidden.clone(),
            (Reads::Pooled, Some(pooler)) => {
                let first = self.drop(self.tape.gather(hidden, rows * width), pooler.dropout, pass);
                self.tape.activate(&self.known.linear("pooler.dense", &first))
            }
            _ => self.tape.gather(hidden, rows * width),
        };
        let x = self.features(head, &x, pass);
        let (w, _) = self.known.output(head.name);
        self.tape.cross_entropy(&self.known.map(Kind::Logits, head.name, w, &x))
    }

    /// All logits of some tokens, and a copy of them: what an evaluation looks at.
    pub fn answers(&self, head: &HeadSpec, hidden: &Tensor, tokens: usize, pass: &Pass) {
        let x = self.tape.gather(hidden, hidden.count() / pass.tokens().max(1) * tokens);
        let x = self.features(head, &x, pass);
        let (w, _) = self.known.output(head.name);
        let logits = self.known.map(Kind::Logits, head.name, w, &x);
        drop(self.tape.hold_as(Kind::Logits, logits.count()));
    }
}
