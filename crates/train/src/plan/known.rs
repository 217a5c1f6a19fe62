//! What a dry run knows of a model's weights: which learn, as what they are kept, and which adapters stand beside them.

use std::collections::HashMap;
use std::sync::Arc;

use phyla_models::{Model, Quantize, quantised_bytes};
use phyla_nn::adapter::{Change, LowRank};
use phyla_ops::Param;

use super::operations::Matrix;
use super::tape::{Kind, Tape, Tensor};

/// As what a parameter is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// In f32, perhaps with a copy in bf16 for products.
    F32 {
        /// Whether there is that copy.
        copy: bool,
    },
    /// In bf16 or f16 alone.
    Half,
    /// In blocks of few bits, so many bytes.
    Blocks(usize),
}

impl Stored {
    /// A parameter that does not learn, in the blocks that `quantize` gives it, or else in bf16 if it is a matrix and `low` is
    /// wanted.
    pub fn frozen(model: &Model, quantize: Option<Quantize>, low: bool, param: &Param) -> Self {
        let dims = param.dims();
        let blocks = quantize.and_then(|how| quantised_bytes(how, &model.arch, model.family, param.path(), dims));
        match blocks {
            Some(bytes) => Self::Blocks(bytes),
            None if low && dims.len() >= 2 => Self::Half,
            None => Self::F32 { copy: false },
        }
    }

    /// Bytes of `count` numbers, those of a copy left out.
    pub fn bytes(self, count: usize) -> usize {
        match self {
            Self::F32 { .. } => 4 * count,
            Self::Half => 2 * count,
            Self::Blocks(bytes) => bytes,
        }
    }
}

/// The weights by path.
pub struct Known {
    params: HashMap<String, (Arc<Param>, Stored)>,
    changes: HashMap<String, Vec<Arc<Change>>>,
    /// Path of the token table.
    table: &'static str,
    /// Whether adapters are multiplied in bf16.
    low: bool,
    tape: Tape,
}

impl Known {
    /// A model's, each kept as `stored` says; `low` is for what stands beside them.
    pub fn new(model: &Model, stored: impl Fn(&Param) -> Stored, low: bool, tape: Tape) -> Self {
        let params = model.params().iter();
        let params = params.map(|param| (param.path().to_owned(), (param.clone(), stored(param)))).collect();
        let changes = model.slots().iter().map(|slot| (slot.path().to_owned(), slot.changes())).collect();
        Self { params, changes, table: model.arch.table(), low, tape }
    }

    /// Whether there is such a parameter, and whether it learns.
    pub fn learns(&self, path: &str) -> Option<bool> {
        self.params.get(path).map(|(param, _)| param.trainable())
    }

    /// The sizes of a parameter.
    pub fn dims(&self, path: &str) -> Vec<usize> {
        self.params.get(path).map(|(param, _)| param.dims().to_vec()).unwrap_or_default()
    }

    fn matrix(&self, weight: &str, bias: &str) -> Matrix {
        let Some((param, stored)) = self.params.get(weight) else {
            return Matrix { output: 0, input: 1, learns: false, bias_learns: false, low: false, blocks: false };
        };
        let output = param.dims().first().copied().unwrap_or(0);
        Matrix {
            output,
            input: param.count() / output.max(1),
            learns: param.trainable(),
            bias_learns: self.learns(bias).unwrap_or(false),
            low: *stored != Stored::F32 { copy: false },
            blocks: matches!(stored, Stored::Blocks(_)),
        }
    }

    /// The linear map at `path`.
    pub fn linear(&self, path: &str, x: &Tensor) -> Tensor {
        self.map(Kind::Activation, path, self.matrix(&format!("{path}.weight"), &format!("{path}.bias")), x)
    }

    /// The last map of a head, over its own weight or the token table.
    pub fn output(&self, head: &str) -> (Matrix, bool) {
        let own = format!("{head}.weight");
        let weight = if self.params.contains_key(&own) { own.as_str() } else { self.table };
        let trained = format!("{head}.tied_bias");
        let bias = if self.params.contains_key(&trained) { trained } else { format!("{head}.bias") };
        (self.matrix(weight, &bias), self.changes.get(head).is_some_and(|changes| !changes.is_empty()))
    }

    /// A map with what adapters change.
    pub fn map(&self, kind: Kind, path: &str, w: Matrix, x: &Tensor) -> Tensor {
        let changes = self.changes.get(path).map(Vec::as_slice).unwrap_or_default();
        let mut x = x.clone();
        for change in changes {
            if let Change::Rescale(change) = change.as_ref()
                && change.input
            {
                x = self.tape.scale_columns(&x, change.factors.trainable());
            }
        }
        let plain = self.tape.linear_as(kind, &x, w);
        changes.iter().fold(plain, |y, change| self.changed(y, &x, w, change))
    }

    fn changed(&self, y: Tensor, x: &Tensor, w: Matrix, change: &Change) -> Tensor {
        let tape = &self.tape;
        match change {
            Change::LowRank(change) => self.low_rank(y, x, w, change),
            Change::Shared(change) => {
                let x = self.dropped(x, change.dropout);
                let narrow = tape.linear(&x, self.beside(&change.a, None));
                let narrow = tape.scale_columns(&narrow, change.inner.trainable());
                let added = tape.linear(&narrow, self.beside(&change.b, None));
                tape.add(&y, &tape.scale_columns(&added, change.outer.trainable()))
            }
            Change::Probe(_) => y,
            Change::Rescale(change) if change.input => y,
            Change::Rescale(change) => tape.scale_columns(&y, change.factors.trainable()),
            Change::Bottleneck(change) => {
                let [down, up] = [&change.down, &change.up].map(|[w, b]| self.beside(w, Some(b)));
                let inner = tape.activate(&tape.linear(&y, down));
                tape.add(&y, &tape.linear(&inner, up))
            }
        }
    }

    fn low_rank(&self, y: Tensor, x: &Tensor, w: Matrix, change: &LowRank) -> Tensor {
        let tape = &self.tape;
        let x = self.dropped(x, change.dropout);
        let mut narrow = tape.linear(&x, self.beside(&change.a, None));
        if let Some(importance) = &change.importance {
            narrow = tape.scale_columns(&narrow, importance.trainable());
        }
        if change.scale != 1. {
            narrow = tape.passing(&narrow);
        }
        let added = tape.linear(&narrow, self.beside(&change.b, None));
        let Some(magnitude) = &change.magnitude else { return tape.add(&y, &added) };
        let base = if w.bias_learns || change.dropout > 0. { tape.linear(&x, w) } else { y.clone() };
        let turned = tape.scale_columns(&tape.add(&base, &added), magnitude.lengths.trainable());
        tape.add(&y, &tape.add(&turned, &tape.passing(&base)))
    }

    fn dropped(&self, x: &Tensor, p: f32) -> Tensor {
        if p > 0. && self.tape.recording() { self.tape.passing(x) } else { x.clone() }
    }

    /// A matrix of an adapter.
    fn beside(&self, weight: &Param, bias: Option<&Arc<Param>>) -> Matrix {
        let output = weight.dims().first().copied().unwrap_or(0);
        Matrix {
            output,
            input: weight.count() / output.max(1),
            learns: weight.trainable(),
            bias_learns: bias.is_some_and(|bias| bias.trainable()),
            low: self.low,
            blocks: false,
        }
    }
}
