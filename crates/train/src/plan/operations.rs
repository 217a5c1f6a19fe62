//! The operations of a dry run: each holds and keeps what the one of the same name in `phyla_ops` does.

use super::tape::{Data, Kind, Tape, Tensor};

/// A weight that is multiplied with.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    /// Numbers of a row that comes out.
    pub output: usize,
    /// Numbers of a row that goes in.
    pub input: usize,
    /// Whether it learns.
    pub learns: bool,
    /// Whether there is a bias that learns.
    pub bias_learns: bool,
    /// Whether products take their factors in bf16.
    pub low: bool,
    /// Whether it is in blocks of few bits.
    pub blocks: bool,
}

/// Sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Rows.
    pub batch: usize,
    /// Tokens that ask.
    pub queries: usize,
    /// Query heads.
    pub heads: usize,
    /// Numbers of a head of values.
    pub v_dim: usize,
}

/// As the fused losses cut their logits: see `phyla_ops`.
const PIECE: usize = 32 << 20;
const LEAST_ROWS: usize = 128;

/// Rows of logits that the fused losses hold at once.
pub fn piece_rows(rows: usize, vocab: usize) -> usize {
    let most = (PIECE / vocab.max(1)).max(LEAST_ROWS);
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1).min(rows)
}

impl Tape {
    /// Products in bf16 pack the smaller factor as a whole: of a result `[m, n]` over `k` numbers.
    fn product(&self, [m, n, k]: [usize; 3], w: &Matrix) {
        if w.low {
            let rows = if m <= n || w.blocks { m } else { n };
            self.scratch(2 * rows.next_multiple_of(16) * k.next_multiple_of(32));
        }
    }

    /// `x wᵀ + b`.
    pub fn linear(&self, x: &Tensor, w: Matrix) -> Tensor {
        self.linear_as(Kind::Activation, x, w)
    }

    /// The same, of a kind.
    pub fn linear_as(&self, kind: Kind, x: &Tensor, w: Matrix) -> Tensor {
        let [m, n, k] = [x.count() / w.input.max(1), w.output, w.input];
        self.product([m, n, k], &w);
        let (kept, tracked, tape) = (w.learns.then(|| x.data().clone()), x.tracked(), self.clone());
        self.record(self.hold_as(kind, m * n), &[x], w.learns || w.bias_learns, move |_dy| {
            let _kept = kept;
            if w.learns {
                tape.product([n, k, m], &Matrix { blocks: false, ..w });
            }
            if !tracked {
                return vec![None];
            }
            tape.product([m, k, n], &w);
            vec![Some(tape.hold(m * k))]
        })
    }

    /// Something that makes numbers as many as its input's, and again as many on the way back; it keeps its input, or not.
    fn like(&self, x: &Tensor, keeps: bool, uses_params: bool) -> Tensor {
        let (kept, count, tape) = (keeps.then(|| x.data().clone()), x.count(), self.clone());
        self.record(self.hold(count), &[x], uses_params, move |_dy| {
            let _kept = kept;
            vec![Some(tape.hold(count))]
        })
    }

    /// An activation function: the input is kept.
    pub fn activate(&self, x: &Tensor) -> Tensor {
        self.like(x, true, false)
    }

    /// Dropout, rotations, factors, masks: nothing is kept.
    pub fn passing(&self, x: &Tensor) -> Tensor {
        self.like(x, false, false)
    }

    /// A factor for each column.
    pub fn scale_columns(&self, x: &Tensor, learns: bool) -> Tensor {
        self.like(x, learns, learns)
    }

    /// A norm over rows of `dim`, with `statistics` numbers kept for each.
    pub fn norm(&self, x: &Tensor, dim: usize, statistics: usize, learns: bool) -> Tensor {
        let seen = x.tracked() || (learns && self.recording());
        let kept = seen.then(|| (x.data().clone(), self.hold(statistics * x.count() / dim.max(1))));
        let (count, tape) = (x.count(), self.clone());
        self.record(self.hold(count), &[x], learns, move |_dy| {
            let _kept = kept;
            vec![Some(tape.hold(count))]
        })
    }

    /// `act(gate) · up`.
    pub fn gated(&self, gate: &Tensor, up: &Tensor) -> Tensor {
        let (kept, count, tape) = ((gate.data().clone(), up.data().clone()), gate.count(), self.clone());
        self.record(self.hold(count), &[gate, up], false, move |_dy| {
            let _kept = kept;
            vec![Some(tape.hold(count)), Some(tape.hold(count))]
        })
    }

    /// A sum: the gradient goes both ways as it is.
    pub fn add(&self, a: &Tensor, b: &Tensor) -> Tensor {
        self.record(self.hold(a.count()), &[a, b], false, |dy| vec![Some(dy.clone()), Some(dy)])
    }

    /// Rows of a table.
    pub fn embedding(&self, count: usize, learns: bool) -> Tensor {
        self.record(self.hold(count), &[], learns, |_| vec![])
    }

    /// Some rows: `count` numbers of `x`.
    pub fn gather(&self, x: &Tensor, count: usize) -> Tensor {
        let (all, tape) = (x.count(), self.clone());
        self.record(self.hold(count), &[x], false, move |_dy| vec![Some(tape.hold(all))])
    }

    /// Columns cut into pieces of `sizes` numbers each in all; their gradients are collected in one.
    pub fn split(&self, x: &Tensor, sizes: &[usize]) -> Vec<Tensor> {
        let (all, tape) = (x.count(), self.clone());
        let sum: std::rc::Rc<std::cell::RefCell<Option<Data>>> = std::rc::Rc::default();
        let written = sum.clone();
        let whole = self.record(x.data().clone(), &[x], false, move |_| vec![written.take()]);
        let piece = |&size: &usize| {
            let (sum, tape) = (sum.clone(), tape.clone());
            self.record(self.hold(size), &[&whole], false, move |_dy| {
                sum.borrow_mut().get_or_insert_with(|| tape.hold(all));
                vec![Some(tape.hold(0))]
            })
        };
        sizes.iter().map(piece).collect()
    }

    /// Tensors side by side.
    pub fn concat(&self, parts: &[&Tensor]) -> Tensor {
        let sizes: Vec<(usize, bool)> = parts.iter().map(|x| (x.count(), x.tracked())).collect();
        let (all, tape) = (sizes.iter().map(|(count, _)| count).sum(), self.clone());
        self.record(self.hold(all), parts, false, move |_dy| {
            sizes.iter().map(|&(count, tracked)| tracked.then(|| tape.hold(count))).collect()
        })
    }

    /// Repeats rows until there are `count` numbers.
    pub fn repeat(&self, x: &Tensor, count: usize) -> Tensor {
        let (own, tape) = (x.count(), self.clone());
        self.record(self.hold(count), &[x], false, move |_dy| vec![Some(tape.hold(own))])
    }

    /// Attention: queries, keys, values, bias and result are kept, the scores never made.
    pub fn attention(&self, [q, k, v]: [&Tensor; 3], bias: Option<&Tensor>, heads: Heads) -> Tensor {
        let mut inputs = vec![q, k, v];
        inputs.extend(bias);
        let Heads { batch, queries, heads, v_dim } = heads;
        let out = self.hold(batch * queries * heads * v_dim);
        let tracked = self.recording() && inputs.iter().any(|x| x.tracked());
        let lse = tracked.then(|| self.hold(batch * queries * heads));
        let kept: Vec<Data> = inputs.iter().map(|x| x.data().clone()).chain([out.clone()]).chain(lse).collect();
        let counts = [q.count(), k.count(), v.count()];
        let (bias, tape) = (bias.map(|bias| (bias.count(), bias.tracked())), self.clone());
        self.record(out, &inputs, false, move |_dy| {
            let _kept = kept;
            let mut grads: Vec<Option<Data>> = counts.iter().map(|&count| Some(tape.hold(count))).collect();
            grads.extend(bias.map(|(count, learns)| learns.then(|| tape.hold(count))));
            grads
        })
    }

    /// A bias on scores from contents and positions: both are kept.
    pub fn disentangled_bias(&self, sides: &[(&Tensor, &Tensor)], count: usize) -> Tensor {
        let inputs: Vec<&Tensor> = sides.iter().flat_map(|(content, positions)| [*content, *positions]).collect();
        let kept: Vec<Data> = inputs.iter().map(|x| x.data().clone()).collect();
        let tape = self.clone();
        self.record(self.hold(count), &inputs, false, move |_dy| {
            kept.iter().map(|x| Some(tape.hold(x.count()))).collect()
        })
    }

    /// The answers of a token's experts, added up by `weights`.
    pub fn combine(&self, answers: &[Tensor], weights: &Tensor, count: usize) -> Tensor {
        let inputs: Vec<&Tensor> = answers.iter().chain([weights]).collect();
        let kept: Vec<Data> = inputs.iter().map(|x| x.data().clone()).collect();
        let tape = self.clone();
        self.record(self.hold(count), &inputs, false, move |_dy| {
            kept.iter().map(|x| Some(tape.hold(x.count()))).collect()
        })
    }

    /// Cross-entropy of logits that are there: their gradient is made at once, in a copy.
    pub fn cross_entropy(&self, logits: &Tensor) -> Tensor {
        let values = self.hold_as(Kind::Logits, logits.count());
        self.record(self.hold(1), &[logits], false, move |_| vec![Some(values)])
    }

    /// The fused loss: a piece of the logits at a time, and the gradient of `x` at once.
    pub fn linear_cross_entropy(&self, x: &Tensor, w: Matrix) -> Tensor {
        if w.bias_learns && self.recording() {
            return self.cross_entropy(&self.linear_as(Kind::Logits, x, w));
        }
        let (tracked, rows) = (self.recording() && (x.tracked() || w.learns), x.count() / w.input.max(1));
        let dx = tracked.then(|| self.hold(x.count()));
        self.piece(rows, w, tracked);
        self.record(self.hold(1), &[x], w.learns, move |_| vec![dx])
    }

    /// Log-probabilities: the backward pass makes the logits again.
    pub fn linear_choices(&self, x: &Tensor, w: Matrix) -> Tensor {
        let rows = x.count() / w.input.max(1);
        if w.bias_learns && self.recording() {
            let logits = self.linear_as(Kind::Logits, x, w);
            let values = self.hold_as(Kind::Logits, logits.count());
            let tape = self.clone();
            // Composed of candle's operations, which keep the numbers shifted and their exponentials.
            return self.record(self.hold(rows), &[&logits], false, move |_| {
                let _again = [(); 3].map(|()| tape.hold_as(Kind::Logits, values.count()));
                vec![Some(values)]
            });
        }
        self.piece(rows, w, false);
        let (kept, tape) = (x.data().clone(), self.clone());
        self.record(self.hold(rows), &[x], w.learns, move |_| {
            let dx = tape.hold(kept.count());
            tape.piece(rows, w, true);
            vec![Some(dx)]
        })
    }

    /// The logits of some rows, and what is taken back through them.
    fn piece(&self, rows: usize, w: Matrix, back: bool) {
        let (m, n, k) = (piece_rows(rows, w.output), w.output, w.input);
        let _logits = self.hold_as(Kind::Logits, m * n);
        self.product([m, n, k], &w);
        if back {
            self.product([m, k, n], &w);
            if w.learns {
                self.product([n, k, m], &w);
            }
        }
    }
}
