//! A mixture of experts in the place of a feed-forward block (Shazeer et al. 2017): each token goes to a few of many
//! small feed-forward blocks, and some go to all tokens (Dai et al. 2024).

use candle_core::Result;
use phyla_ops::{Balance, Routed, Routing, Tensor};

use crate::{Act, Linear, LinearSpec, Mlp, MlpSpec, Pass, Scope};

/// What shapes a mixture.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeSpec {
    /// Number of experts that tokens are sent to.
    pub experts: usize,
    /// Each of them.
    pub expert: MlpSpec,
    /// How a token's experts are chosen, and how they weigh.
    pub routing: Routing,
    /// An expert for all tokens: several of them are one, as many times as wide.
    pub shared: Option<SharedSpec>,
    /// A loss of this layer that keeps the choices even, in training.
    pub balance: Option<BalanceSpec>,
    /// In training, every number that enters is multiplied by one drawn evenly from so far below 1 to so far above.
    pub jitter: f32,
    /// Standard deviation of the fresh router.
    pub std: f32,
}

/// The expert for all tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SharedSpec {
    /// The block.
    pub mlp: MlpSpec,
    /// Whether each token decides, by a sigmoid, how much it counts (Qwen2-MoE).
    pub gated: bool,
}

/// DeepSeek-V2's balance of tokens over experts (eq. 23-25).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BalanceSpec {
    /// Factor on the loss (`aux_loss_alpha`).
    pub alpha: f32,
    /// Balance each sequence (`seq_aux`), or the whole batch.
    pub by_sequence: bool,
}

/// The block.
#[derive(Debug)]
pub struct Moe {
    spec: MoeSpec,
    router: Linear,
    experts: Vec<Mlp>,
    shared: Option<(Mlp, Option<Linear>)>,
}

impl Moe {
    /// Takes `router`, `experts.N`, and if asked for `shared` and `shared_gate` from the scope.
    pub fn new(spec: &MoeSpec, scope: &mut Scope) -> Result<Self> {
        let linear = |output| LinearSpec { input: spec.expert.hidden, output, bias: false, std: spec.std };
        let router = Linear::new(linear(spec.experts), &mut scope.at("router"))?;
        let mut all = scope.at("experts");
        let experts = (0..spec.experts).map(|i| Mlp::new(&spec.expert, &mut all.at(i))).collect::<Result<_>>()?;
        let shared = match &spec.shared {
            None => None,
            Some(shared) => {
                let mlp = Mlp::new(&shared.mlp, &mut scope.at("shared"))?;
                let gate = shared.gated.then(|| Linear::new(linear(1), &mut scope.at("shared_gate"))).transpose()?;
                Some((mlp, gate))
            }
        };
        Ok(Self { spec: spec.clone(), router, experts, shared })
    }

    /// `x[batch, time, hidden]` to the same shape.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let hidden = x.last_dim();
        let rows = pass.jitter(x.reshape((x.rows(), hidden))?, self.spec.jitter)?; // [tokens, hidden]
        let routed = phyla_ops::route(&self.router.forward(&rows)?, &self.spec.routing)?;
        let groups = phyla_ops::group_by_expert(&routed.experts, self.spec.routing.top_k, self.spec.experts)?;
        let mut resting = vec![true; self.experts.len()];
        groups.iter().for_each(|group| resting[group.expert] = false);
        // What nobody chose learns nothing, as it does in the reference: no gradient would be an error.
        self.experts.iter().zip(resting).filter(|(_, rests)| *rests).try_for_each(|(expert, _)| expert.rest())?;
        let mut answers = Vec::with_capacity(groups.len());
        for (group, rows) in groups.iter().zip(phyla_ops::dispatch(&rows, &groups)?) {
            let answer = self.experts[group.expert].forward(&rows, pass)?; // [the expert's tokens, hidden]
            answers.push((answer, &group.slots[..]));
        }
        let mut y = phyla_ops::combine(&answers, &routed.weights, hidden)?; // [tokens, hidden]
        if let Some((mlp, gate)) = &self.shared {
            let mut shared = mlp.forward(&rows, pass)?;
            if let Some(gate) = gate {
                shared = phyla_ops::scale_rows(&shared, &phyla_ops::activate(&gate.forward(&rows)?, Act::Sigmoid)?)?;
            }
            y = phyla_ops::add(&y, &shared)?;
        }
        self.balance(y, routed, pass)?.reshape(x.dims())
    }

    /// In training, hangs the balance loss on the block's result, through which its gradient comes.
    fn balance(&self, y: Tensor, routed: Routed, pass: &mut Pass) -> Result<Tensor> {
        let (batch, valid) = (pass.batch(), pass.valid().map(<[u8]>::to_vec));
        let Some(ledger) = &mut pass.balance else { return Ok(y) };
        let Some(BalanceSpec { alpha, by_sequence }) = self.spec.balance else {
            ledger.routed.push(routed);
            return Ok(y);
        };
        let sequences = if by_sequence { batch } else { 1 };
        let loss = phyla_ops::balance(&routed, Balance::Expert, sequences, valid.as_deref(), alpha * ledger.weight)?;
        ledger.note(&loss)?;
        phyla_ops::attach(&y, &loss)
    }
}
