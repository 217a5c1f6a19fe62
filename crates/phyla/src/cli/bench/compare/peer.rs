//! The peers: what `peers.json` says of each, and the command that it comes to.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use crate::cli::error::usage;

/// The file that lists them.
const LIST: &str = "peers.json";

/// A program that does the same work.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// What tables call it.
    pub name: String,
    /// The benchmarks that it can run.
    pub works: Vec<String>,
    /// The types of weights that it is told with `{dtype}`; without, its file decides.
    pub dtypes: Option<Vec<String>>,
    /// The script, in the same folder, and its arguments with `{names}` of [`Inputs`].
    pub command: Vec<String>,
}

/// Reads the list of a folder.
pub fn read(folder: &Path) -> anyhow::Result<Vec<Peer>> {
    let file = folder.join(LIST);
    let text = std::fs::read_to_string(&file).map_err(|error| {
        let help = "run in Phyla's repository, or name its folder of peers with --peers";
        usage(format!("the peers cannot be read from `{}`: {error}", file.display()), help)
    })?;
    let wrong = |error| usage(format!("`{}` is no list of peers: {error}", file.display()), "mend that file");
    serde_json::from_str(&text).map_err(wrong)
}

/// Those that `only` names, each by a part of its name, in any case; all without.
pub fn chosen(peers: Vec<Peer>, only: &[String]) -> anyhow::Result<Vec<Peer>> {
    let names = |peer: &Peer, part: &String| peer.name.to_lowercase().contains(&part.to_lowercase());
    if let Some(part) = only.iter().find(|part| !peers.iter().any(|peer| names(peer, part))) {
        let mut known: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
        known.dedup();
        return Err(usage(format!("no peer is called `{part}`"), format!("there are {}", known.join(", "))));
    }
    Ok(peers.into_iter().filter(|peer| only.is_empty() || only.iter().any(|part| names(peer, part))).collect())
}

/// What stands for the `{names}` in a peer's command; `None` with what the user would have to give.
pub type Inputs = BTreeMap<&'static str, Result<String, &'static str>>;

impl Peer {
    /// The arguments for Python, or why there are none: one line, for the user.
    pub fn arguments(&self, folder: &Path, inputs: &Inputs) -> Result<Vec<String>, String> {
        let dtype = inputs.get("dtype").and_then(|dtype| dtype.as_deref().ok()).unwrap_or_default();
        if self.dtypes.as_ref().is_some_and(|known| !known.iter().any(|known| known == dtype)) {
            return Err(format!("it has no {dtype}"));
        }
        let fill = |argument: &String| match argument.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            None => Ok(argument.clone()),
            Some(name) => match inputs.get(name) {
                Some(Ok(value)) => Ok(value.clone()),
                Some(Err(missing)) => Err(format!("it needs {missing}")),
                None => Err(format!("{LIST} asks for `{argument}`, which there is not")),
            },
        };
        let mut arguments = self.command.iter().map(fill).collect::<Result<Vec<_>, _>>()?;
        let script = arguments.first_mut().ok_or_else(|| format!("{LIST} gives it no command"))?;
        *script = folder.join(&*script).display().to_string();
        Ok(arguments)
    }
}

/// The line of JSON that a benchmark printed: the whole output, or its last line.
pub fn result(stdout: &str) -> anyhow::Result<serde_json::Value> {
    let last = || serde_json::from_str(stdout.lines().last().unwrap_or_default());
    serde_json::from_str(stdout).or_else(|_| last()).context("it printed no JSON")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn peers() -> Vec<Peer> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers");
        read(&folder).unwrap()
    }

    #[test]
    fn the_list_in_the_repository_names_scripts_and_inputs_that_there_are() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers");
        for peer in peers() {
            let work = crate::cli::bench::compare::Settings::default();
            let mut inputs = work.inputs();
            inputs.values_mut().for_each(|input| *input = Ok("f32".into()));
            let arguments = peer.arguments(&folder, &inputs).unwrap();
            assert!(Path::new(&arguments[0]).is_file(), "{arguments:?}");
            assert!(
                peer.works.iter().all(|work| ["train", "prefill", "decode", "beams", "embed"].contains(&work.as_str()))
            );
        }
    }

    #[test]
    fn a_peer_without_its_input_says_what_it_needs() {
        let peer = Peer {
            name: "p".into(),
            works: vec![],
            dtypes: Some(vec!["f32".into()]),
            command: vec!["p.py".into(), "--model".into(), "{gguf}".into()],
        };
        let of = |dtype: &str, gguf: Result<String, &'static str>| {
            peer.arguments(Path::new("dir"), &Inputs::from([("dtype", Ok(dtype.into())), ("gguf", gguf)]))
        };
        assert_eq!(of("f32", Ok("m.gguf".into())).unwrap(), ["dir/p.py", "--model", "m.gguf"]);
        assert_eq!(of("f32", Err("--gguf")).unwrap_err(), "it needs --gguf");
        assert_eq!(of("int8", Ok(String::new())).unwrap_err(), "it has no int8");
    }

    #[test]
    fn peers_are_chosen_by_a_part_of_their_name() {
        let only = chosen(peers(), &["OPENVINO".into()]).unwrap();
        assert!(!only.is_empty() && only.iter().all(|peer| peer.name == "OpenVINO"));
        let error = chosen(peers(), &["lama.cp".into(), "none".into()]).unwrap_err();
        assert_eq!(error.to_string(), "no peer is called `none`");
    }
}
