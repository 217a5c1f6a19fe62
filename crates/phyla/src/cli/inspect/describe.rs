//! The blocks of an architecture in words: what the shapes of their weights do not tell.

use phyla_models::Arch;
use phyla_nn::{AttentionSpec, MlpSpec, NormSpec, Residual, SublayerSpec, TowerSpec};

/// What is worth saying about the block at `path`; empty where the shapes say all.
pub fn block(arch: &Arch, path: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    match parts.as_slice() {
        ["tokens"] if arch.tied() && arch.table() == "tokens.weight" => "also the head".into(),
        ["pooler"] => "reads the first token".into(),
        [name @ ("encoder" | "decoder"), rest @ ..] => {
            let tower = arch.towers().into_iter().find(|(known, _)| known == name);
            tower.map(|(_, tower)| part(tower, rest)).unwrap_or_default()
        }
        _ => String::new(),
    }
}

fn part(tower: &TowerSpec, path: &[&str]) -> String {
    match path {
        [] => stack(tower),
        ["positions"] => "learned positions".into(),
        ["norm"] => tower.final_norm.map(norm).unwrap_or_default(),
        ["embed_norm"] => tower.embed.norm.map(norm).unwrap_or_default(),
        ["layers", number, rest @ ..] => {
            let layer = number.parse().ok().and_then(|number: usize| tower.layers.get(number));
            let Some(layer) = layer else { return String::new() };
            let [name, inner @ ..] = rest else { return String::new() };
            let spec = |name: &str| layer.sublayers.iter().find(|spec| spec.name() == name);
            match (name.strip_suffix("_norm"), spec(name), inner) {
                (Some(of), None, []) if spec(of).is_some() => norm(layer.norm),
                (_, Some(SublayerSpec::Attention(spec) | SublayerSpec::Cross(spec)), []) => attention(spec),
                (_, Some(SublayerSpec::Attention(spec)), ["q_norm" | "k_norm"]) => {
                    spec.qk_norm.map(norm).unwrap_or_default()
                }
                (_, Some(SublayerSpec::Mlp(spec)), []) => mlp(spec),
                _ => String::new(),
            }
        }
        _ => String::new(),
    }
}

fn stack(tower: &TowerSpec) -> String {
    let residual = match tower.layers.first().map(|layer| layer.residual) {
        Some(Residual::PreNorm) => "pre-norm, ",
        Some(Residual::PostNorm) => "post-norm, ",
        None => "",
    };
    format!("{residual}{}", if tower.causal { "causal" } else { "sees both ways" })
}

fn norm(spec: NormSpec) -> String {
    match spec {
        NormSpec::Rms { eps } => format!("rms norm, eps {eps:e}"),
        NormSpec::Layer { eps } => format!("layer norm, eps {eps:e}"),
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
    if let Some(window) = spec.window {
        said += &format!(", window {window}");
    }
    said
}

fn mlp(spec: &MlpSpec) -> String {
    let act = spec.act.name();
    if spec.gated { format!("gated by {act}") } else { act.into() }
}
