//! A dry run through what stands in a layer: attention of each kind, feed-forward blocks, mixtures of experts.

use phyla_nn::{
    AttentionSpec, ConvSpec, DisentangledSpec, MlaSpec, MlpSpec, MoeSpec, Positional, RelativeBias, SublayerSpec,
};

use super::operations::Heads;
use super::tape::Tensor;
use super::walk::{Pass, Walk};

impl Walk {
    /// `[batch, time, hidden]` to the same.
    pub fn sublayer(&self, path: &str, spec: &SublayerSpec, x: &Tensor, pass: &Pass) -> Tensor {
        match spec {
            SublayerSpec::Attention(spec) => self.attention(path, spec, x, pass),
            SublayerSpec::Cross(spec) => self.cross(path, spec, x, pass),
            SublayerSpec::Mla(spec) => self.latent(path, spec, x, pass),
            SublayerSpec::Disentangled(spec) => self.disentangled(path, spec, x, pass),
            SublayerSpec::Mlp(spec) => self.mlp(path, spec, x, pass),
            SublayerSpec::Moe(spec) => self.mixture(path, spec, x, pass),
        }
    }

    fn at(&self, path: &str, name: &str, x: &Tensor) -> Tensor {
        self.known.linear(&format!("{path}.{name}"), x)
    }

    fn attention(&self, path: &str, spec: &AttentionSpec, x: &Tensor, pass: &Pass) -> Tensor {
        let (mut q, mut k, v) = (self.at(path, "q", x), self.at(path, "k", x), self.at(path, "v", x));
        if let Some(norm) = spec.qk_norm {
            let normed = |name: &str, x: &Tensor| self.norm(&format!("{path}.{name}"), norm, spec.head_dim, x);
            (q, k) = (normed("q_norm", &q), normed("k_norm", &k));
        }
        if spec.rope.is_some() {
            q = self.tape.passing(&q);
            k = self.tape.passing(&k);
        }
        let bias = match &spec.relative {
            None => None,
            Some(RelativeBias::Own(own)) => Some(self.relative(&format!("{path}.relative"), own, pass)),
            Some(RelativeBias::Shared) => pass.relative.clone(),
        };
        let heads = Heads { batch: pass.batch, queries: pass.time, heads: spec.heads, v_dim: spec.head_dim };
        self.at(path, "o", &self.tape.attention([&q, &k, &v], bias.as_ref(), heads))
    }

    fn cross(&self, path: &str, spec: &AttentionSpec, x: &Tensor, pass: &Pass) -> Tensor {
        let q = self.at(path, "q", x);
        let Some((states, _)) = &pass.memory else { return self.at(path, "o", &q) };
        let (k, v) = (self.at(path, "k", states), self.at(path, "v", states));
        let heads = Heads { batch: pass.batch, queries: pass.time, heads: spec.heads, v_dim: spec.head_dim };
        self.at(path, "o", &self.tape.attention([&q, &k, &v], None, heads))
    }

    fn latent(&self, path: &str, spec: &MlaSpec, x: &Tensor, pass: &Pass) -> Tensor {
        let (tape, tokens) = (&self.tape, pass.tokens());
        let q = match spec.q_rank {
            None => self.at(path, "q", x),
            Some(rank) => {
                let down = self.norm(&format!("{path}.q_norm"), spec.norm, rank, &self.at(path, "q_down", x));
                self.at(path, "q_up", &down)
            }
        };
        let all = tokens * spec.heads;
        let parts = tape.split(&q, &[all * spec.nope, all * spec.rotary]);
        let (q, turned) = (&parts[0], tape.passing(&parts[1]));
        let down = tape.split(&self.at(path, "kv_down", x), &[tokens * spec.kv_rank, tokens * spec.rotary]);
        let key = tape.passing(&down[1]);
        let latent = self.norm(&format!("{path}.kv_norm"), spec.norm, spec.kv_rank, &down[0]);
        let latent = tape.concat(&[&latent, &key]);
        let again = tape.split(&latent, &[tokens * spec.kv_rank, tokens * spec.rotary]);
        let kv = tape.split(&self.at(path, "kv_up", &again[0]), &[all * spec.nope, all * spec.v_dim]);
        let k = tape.concat(&[&kv[0], &tape.repeat(&again[1], all * spec.rotary)]);
        let q = tape.concat(&[q, &turned]);
        let heads = Heads { batch: pass.batch, queries: pass.time, heads: spec.heads, v_dim: spec.v_dim };
        self.at(path, "o", &tape.attention([&q, &k, &kv[1]], None, heads))
    }

    fn disentangled(&self, path: &str, spec: &DisentangledSpec, x: &Tensor, pass: &Pass) -> Tensor {
        let (q, k, v) = (self.at(path, "q", x), self.at(path, "k", x), self.at(path, "v", x));
        let bias = pass.relative.as_ref().filter(|_| spec.pos_k.is_some() || spec.pos_q.is_some()).map(|table| {
            let table = self.drop(table.clone(), spec.pos_dropout, pass);
            let map = |wanted: Option<Positional>, own: &str, shared: &str| {
                wanted.map(|map| self.at(path, if map == Positional::Shared { shared } else { own }, &table))
            };
            let (pos_k, pos_q) = (map(spec.pos_k, "pos_k", "k"), map(spec.pos_q, "pos_q", "q"));
            let sides = [(&q, &pos_k), (&k, &pos_q)];
            let sides: Vec<(&Tensor, &Tensor)> =
                sides.into_iter().filter_map(|(content, positions)| Some((content, positions.as_ref()?))).collect();
            self.tape.disentangled_bias(&sides, pass.batch * spec.heads * pass.time * pass.time)
        });
        let v_dim = spec.hidden / spec.heads.max(1);
        let heads = Heads { batch: pass.batch, queries: pass.time, heads: spec.heads, v_dim };
        self.at(path, "o", &self.tape.attention([&q, &k, &v], bias.as_ref(), heads))
    }

    fn mlp(&self, path: &str, spec: &MlpSpec, x: &Tensor, pass: &Pass) -> Tensor {
        let inner = if spec.gated {
            self.tape.gated(&self.at(path, "gate", x), &self.at(path, "up", x))
        } else {
            self.tape.activate(&self.at(path, "up", x))
        };
        self.at(path, "down", &self.drop(inner, spec.dropout, pass))
    }

    /// Experts that all get as many tokens: what they keep together does not depend on how many each has.
    fn mixture(&self, path: &str, spec: &MoeSpec, x: &Tensor, pass: &Pass) -> Tensor {
        let (tape, width) = (&self.tape, spec.expert.hidden);
        let tokens = x.count() / width.max(1);
        let rows = if pass.training && spec.jitter > 0. { tape.passing(x) } else { x.clone() };
        let choices = tokens * spec.routing.top_k;
        let weights = tape.gather(&tape.activate(&self.at(path, "router", &rows)), choices);
        let share = choices.div_ceil(spec.experts.max(1)) * width;
        let answer = |at| self.mlp(&format!("{path}.experts.{at}"), &spec.expert, &tape.gather(&rows, share), pass);
        let answers: Vec<Tensor> = (0..spec.experts).map(answer).collect();
        let mut y = tape.combine(&answers, &weights, tokens * width);
        if let Some(shared) = &spec.shared {
            let mut more = self.mlp(&format!("{path}.shared"), &shared.mlp, &rows, pass);
            if shared.gated {
                more = tape.gated(&more, &more);
            }
            y = tape.add(&y, &more);
        }
        y
    }

    /// A convolution beside the first layer.
    pub fn conv(&self, path: &str, spec: &ConvSpec, x: &Tensor, y: &Tensor, pass: &Pass) -> Tensor {
        let learns = self.known.learns(&format!("{path}.weight")).unwrap_or(false);
        let x = self.tape.scale_columns(x, learns);
        let x = self.tape.activate(&self.drop(x, spec.dropout, pass));
        self.norm(&format!("{path}.norm"), spec.norm, spec.hidden, &self.tape.add(y, &x))
    }
}
