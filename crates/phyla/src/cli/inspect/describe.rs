//! The blocks of an architecture in words: what the shapes of their weights do not tell.

use phyla_models::Arch;
use phyla_nn::{
    AttentionSpec, DisentangledSpec, Distances, HeadSpec, LayerSpec, MlaSpec, MlpSpec, MoeSpec, NormSpec, Output,
    Positional, Positions, Reads, RelativeBias, RelativeSpec, Residual, SublayerSpec, TowerSpec,
};

/// What is worth saying about the block at `path`; empty where the shapes say all.
pub fn block(arch: &Arch, path: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    match parts.as_slice() {
        ["tokens"] if arch.tied() && arch.table() == "tokens.weight" => "also the head".into(),
        ["pooler"] => {
            let act = arch.pooler.map(|pooler| format!(", {}", pooler.act.name())).unwrap_or_default();
            format!("reads the first token{act}")
        }
        [name @ ("encoder" | "decoder"), rest @ ..] => {
            let tower = arch.towers().into_iter().find(|(known, _)| known == name);
            tower.map(|(_, tower)| part(tower, rest)).unwrap_or_default()
        }
        [name] => arch.heads.iter().find(|head| head.name == *name).map(head).unwrap_or_default(),
        [name, rest @ ..] => {
            let transform = arch.heads.iter().find(|head| head.name == *name).and_then(|head| head.transform);
            match (transform, rest) {
                (Some(transform), ["transform"]) => transform.act.name().into(),
                (Some(transform), ["transform", "norm"]) => transform.norm.map(norm).unwrap_or_default(),
                _ => String::new(),
            }
        }
        _ => String::new(),
    }
}

/// A head by what it reads; a causal language model's says nothing new.
fn head(spec: &HeadSpec) -> String {
    let reads = match spec.reads {
        Reads::Tokens if spec.is_lm() => return String::new(),
        Reads::Tokens => "reads every token",
        Reads::First => "reads the first token",
        Reads::Last { pad: Some(_) } => "reads the last token before padding",
        Reads::Last { pad: None } => "reads the last token",
        Reads::End { .. } => "reads the last end-of-sequence token",
        Reads::Pooled => "reads the pooler",
    };
    let tied = if matches!(spec.output, Output::Tied { .. }) { ", is the token table" } else { "" };
    format!("{reads}{tied}")
}

fn part(tower: &TowerSpec, path: &[&str]) -> String {
    match path {
        [] => stack(tower),
        ["positions"] => match tower.embed.positions {
            Positions::Stored { .. } => "sines, stored and never trained".into(),
            _ => "learned positions".into(),
        },
        ["token_types"] => "which of two texts".into(),
        ["project"] => "to the residual stream".into(),
        ["relative"] => tower.relative.map(relative).unwrap_or_default(),
        ["relative", "norm"] => match tower.relative {
            Some(RelativeSpec::Table { norm: Some(spec), .. }) => norm(spec),
            _ => String::new(),
        },
        ["conv"] => tower.conv.map_or_else(String::new, |conv| {
            format!("over {} tokens, beside the first layer, {}", conv.width, conv.act.name())
        }),
        ["conv", "norm"] => tower.conv.map(|conv| norm(conv.norm)).unwrap_or_default(),
        ["norm"] => tower.final_norm.map(norm).unwrap_or_default(),
        ["embed_norm"] => tower.embed.norm.map(norm).unwrap_or_default(),
        ["layers", number, rest @ ..] => {
            let layer = number.parse().ok().and_then(|number: usize| tower.layers.get(number));
            layer.map(|layer| sublayer(layer, rest)).unwrap_or_default()
        }
        _ => String::new(),
    }
}

fn sublayer(layer: &LayerSpec, path: &[&str]) -> String {
    let [name, inner @ ..] = path else { return String::new() };
    let spec = |name: &str| layer.sublayers.iter().find(|spec| spec.name() == name);
    match (name.strip_suffix("_norm"), spec(name), inner) {
        (Some(of), None, []) if spec(of).is_some() => norm(layer.norm),
        (_, Some(SublayerSpec::Attention(spec)), []) => attention(spec),
        (_, Some(SublayerSpec::Cross(spec)), []) => format!("{}, to the encoder's states", attention(spec)),
        (_, Some(SublayerSpec::Attention(spec) | SublayerSpec::Cross(spec)), ["q_norm" | "k_norm"]) => {
            spec.qk_norm.map(norm).unwrap_or_default()
        }
        (_, Some(SublayerSpec::Attention(spec)), ["relative"]) => match spec.relative {
            Some(RelativeBias::Own(spec)) => relative(spec),
            _ => String::new(),
        },
        (_, Some(SublayerSpec::Mla(spec)), []) => mla(spec),
        (_, Some(SublayerSpec::Mla(spec)), ["q_norm" | "kv_norm"]) => norm(spec.norm),
        (_, Some(SublayerSpec::Disentangled(spec)), []) => disentangled(spec),
        (_, Some(SublayerSpec::Mlp(spec)), []) => mlp(spec),
        (_, Some(SublayerSpec::Moe(spec)), []) => moe(spec),
        (_, Some(SublayerSpec::Moe(spec)), ["experts", _]) => mlp(&spec.expert),
        (_, Some(SublayerSpec::Moe(spec)), ["shared"]) => {
            spec.shared.map(|shared| format!("for all tokens, {}", mlp(&shared.mlp))).unwrap_or_default()
        }
        (_, Some(SublayerSpec::Moe(_)), ["shared_gate"]) => "how much the shared expert counts".into(),
        _ => String::new(),
    }
}

fn stack(tower: &TowerSpec) -> String {
    let residual = match tower.layers.first().map(|layer| layer.residual) {
        Some(Residual::PreNorm) => "pre-norm, ",
        Some(Residual::PostNorm) => "post-norm, ",
        None => "",
    };
    let sees = if tower.causal { "causal" } else { "sees both ways" };
    let positions = match tower.embed.positions {
        Positions::Sinusoids { .. } => ", positions as sines",
        _ => "",
    };
    format!("{residual}{sees}{positions}")
}

fn norm(spec: NormSpec) -> String {
    match spec {
        NormSpec::Rms { eps } => format!("rms norm, eps {eps:e}"),
        NormSpec::Layer { eps } => format!("layer norm, eps {eps:e}"),
    }
}

fn relative(spec: RelativeSpec) -> String {
    match spec {
        RelativeSpec::Buckets { rule, heads, .. } => {
            format!("a bias for each of {} buckets of distances and {heads} heads", rule.buckets)
        }
        RelativeSpec::Table { distances: Distances::Linear { span }, .. } => {
            format!("a vector for each distance up to {span}")
        }
        RelativeSpec::Table { distances: Distances::LogBuckets { buckets, max_distance }, .. } => {
            format!("a vector for each of {} buckets of distances up to {max_distance}", 2 * buckets)
        }
    }
}

fn attention(spec: &AttentionSpec) -> String {
    let mut said = format!("{} heads of {}", spec.heads, spec.head_dim);
    if spec.kv_heads != spec.heads {
        said += &format!(", {} of keys and values", spec.kv_heads);
    }
    if let Some(rope) = &spec.rope {
        said += &format!(", rope {rope}");
    }
    match spec.relative {
        Some(RelativeBias::Shared) => said += ", biases by distance of the tower",
        Some(RelativeBias::Own(_)) => said += ", biases by distance of its own",
        None => {}
    }
    if let Some(window) = spec.window {
        said += &format!(", window {window}");
    }
    said
}

fn mla(spec: &MlaSpec) -> String {
    let queries = spec.q_rank.map(|rank| format!(", queries through {rank}")).unwrap_or_default();
    format!(
        "latent attention: {} heads of {} + {} that turn, values of {}, keys and values through {}{queries}, rope {}",
        spec.heads, spec.nope, spec.rotary, spec.v_dim, spec.kv_rank, spec.rope
    )
}

fn disentangled(spec: &DisentangledSpec) -> String {
    let map = |positional: Positional| match positional {
        Positional::Shared => "the contents' map",
        Positional::Own { .. } => "a map of its own",
    };
    let mut said = format!("disentangled: {} heads of {}", spec.heads, spec.hidden / spec.heads.max(1));
    if let Some(keys) = spec.pos_k {
        said += &format!(", content to position by {}", map(keys));
    }
    if let Some(queries) = spec.pos_q {
        said += &format!(", position to content by {}", map(queries));
    }
    if spec.talking {
        said += ", talking heads";
    }
    said
}

fn mlp(spec: &MlpSpec) -> String {
    let act = spec.act.name();
    if spec.gated { format!("gated by {act}") } else { act.into() }
}

fn moe(spec: &MoeSpec) -> String {
    let mut said = format!("{} experts, {} for each token", spec.experts, spec.routing.top_k);
    if let Some(groups) = &spec.routing.groups {
        said += &format!(", of the best {} of {} groups", groups.top, groups.count);
    }
    if spec.shared.is_some() {
        said += ", and one for all";
    }
    said
}
