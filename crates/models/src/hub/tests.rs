//! References without network, and downloads from a small server on the loopback that stands in for the hub.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::fs;

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn hub(cache: &Path) -> Hub {
    Hub { cache: cache.into(), endpoint: "http://127.0.0.1:9".into(), token: None, offline: true, progress: false }
}

/// An empty but valid safetensors file.
fn weights() -> Vec<u8> {
    [&2u64.to_le_bytes()[..], b"{}"].concat()
}

fn vars(pairs: &[(&str, &str)]) -> Hub {
    let map = pairs.iter().map(|(k, v)| (k.to_string(), OsString::from(v))).collect::<HashMap<_, _>>();
    Hub::from_vars(|name| map.get(name).cloned())
}

#[test]
fn the_environment_means_what_it_means_in_python() {
    let plain = vars(&[("HOME", "/u")]);
    assert_eq!(plain.cache, Path::new("/u/.cache/huggingface/hub"));
    assert_eq!((plain.endpoint.as_str(), plain.offline, plain.token), ("https://huggingface.co", false, None));
    assert_eq!(vars(&[("HOME", "/u"), ("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
    assert_eq!(vars(&[("HOME", "/u"), ("HF_HOME", "~/hf")]).cache, Path::new("/u/hf/hub"));
    let all = vars(&[
        ("HF_HOME", "/h"),
        ("HF_HUB_CACHE", "/c"),
        ("HF_ENDPOINT", "https://mirror.example/"),
        ("HF_TOKEN", " hf_abc\n"),
        ("HF_HUB_OFFLINE", "Yes"),
    ]);
    assert_eq!((all.cache.as_path(), all.endpoint.as_str()), (Path::new("/c"), "https://mirror.example"));
    assert_eq!((all.token.as_deref(), all.offline), (Some("hf_abc"), true));
    assert!(!format!("{all:?}").contains("hf_abc"), "a token must not reach a log");
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("token"), "hf_file\n").unwrap();
    let home = home.path().to_str().unwrap();
    assert_eq!(vars(&[("HF_HOME", home)]).token.as_deref(), Some("hf_file"));
    assert_eq!(vars(&[("HF_HOME", home), ("HF_TOKEN", "")]).token.as_deref(), Some("hf_file"));
    assert_eq!(vars(&[("HF_TOKEN", "a\r\nX: y")]).token, None, "a line break would forge a header");
}

#[test]
fn ids_are_told_from_paths() {
    let good = RepoId::parse("Qwen/Qwen2.5-0.5B@refs/pr/1").unwrap();
    assert_eq!((good.id.as_str(), good.revision.as_str()), ("Qwen/Qwen2.5-0.5B", "refs/pr/1"));
    assert_eq!(RepoId::parse("gpt2").unwrap().revision, "main");
    for bad in [
        "",
        "a/b/c",
        "../x",
        "/etc/x",
        "a/",
        "a/..",
        "a/b@",
        "a/b@../x",
        "a/b@x y",
        "a b",
        "a--b",
        "-a/b",
        "a/b@/x",
        "é/b",
        "model.safetensors",
        "a/b@refs//x",
    ] {
        let message = RepoId::parse(bad).unwrap_err().to_string();
        assert!(message.starts_with(&format!("no file or folder `{bad}`")), "{message}");
    }
}

#[test]
fn a_path_is_taken_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    assert_eq!(hub(folder.path()).resolve(path).unwrap(), folder.path());
}

#[test]
fn a_complete_snapshot_needs_no_network_and_an_incomplete_one_says_what_is_missing() {
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(cache.path());
    let message = |reference| hub.resolve(reference).unwrap_err().to_string();
    assert!(message("org/name").contains("it was never downloaded") && message("org/name").contains("HF_HUB_OFFLINE"));
    let folder = cache.path().join("models--org--name");
    let snapshot = folder.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(folder.join("refs")).unwrap();
    assert!(message("org/name").contains("revision `main` was never downloaded"));
    fs::write(folder.join("refs/main"), "../../../etc").unwrap();
    assert!(message("org/name").contains("holds no commit"));
    fs::write(folder.join("refs/main"), COMMIT).unwrap();
    assert!(message("org/name").contains("`config.json` of commit"));
    fs::write(snapshot.join("config.json"), "{}").unwrap();
    assert!(message("org/name").contains("no weights"));
    let index = snapshot.join("model.safetensors.index.json");
    fs::write(&index, r#"{"weight_map":{"a":"model-00001-of-00001.safetensors"}}"#).unwrap();
    assert!(message("org/name").contains("`model-00001-of-00001.safetensors` is missing"));
    fs::write(snapshot.join("model-00001-of-00001.safetensors"), weights()).unwrap();
    assert_eq!(hub.resolve("org/name").unwrap(), snapshot);
    assert_eq!(hub.resolve(&format!("org/name@{COMMIT}")).unwrap(), snapshot);
    assert!(message("org/name@v2").contains("revision `v2` was never downloaded"));
}

#[cfg(not(feature = "hub"))]
#[test]
fn a_build_without_downloads_says_so() {
    let cache = tempfile::tempdir().unwrap();
    let message = Hub { offline: false, ..hub(cache.path()) }.resolve("org/name").unwrap_err().to_string();
    assert!(message.contains("its feature `hub` is off"), "{message}");
}

#[cfg(feature = "hub")]
mod loopback {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// The hub in small: one model, its files, and a record of what was asked.
    struct Server {
        endpoint: String,
        requests: Arc<Mutex<Vec<String>>>,
    }

    #[derive(Clone, Default)]
    struct Site {
        files: HashMap<&'static str, Vec<u8>>,
        /// Answers everything with this status instead.
        status: Option<u16>,
        /// The first full answer for this file stops halfway.
        breaks: Option<&'static str>,
    }

    impl Server {
        fn start(mut site: Site) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let requests = Arc::new(Mutex::new(Vec::new()));
            let seen = Arc::clone(&requests);
            // Ends with the test's process: it waits for connections that never come.
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    answer(stream, &mut site, &seen).ok();
                }
            });
            Server { endpoint, requests }
        }

        fn hub(&self, cache: &Path) -> Hub {
            Hub { endpoint: self.endpoint.clone(), offline: false, ..super::hub(cache) }
        }

        fn asked(&self) -> Vec<String> {
            self.requests.lock().unwrap().clone()
        }
    }

    fn answer(mut stream: TcpStream, site: &mut Site, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let request = lines.next().unwrap()?;
        let path = request.split(' ').nth(1).unwrap().to_string();
        let (mut from, mut to, mut token) = (0usize, usize::MAX, String::new());
        for line in lines {
            let line = line?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(range) = line.strip_prefix("range: bytes=") {
                let (a, b) = range.split_once('-').unwrap();
                (from, to) = (a.parse().unwrap(), b.parse().unwrap_or(usize::MAX));
            }
            if let Some(value) = line.strip_prefix("authorization: ") {
                token = format!(" {value}");
            }
        }
        seen.lock().unwrap().push(format!("{path}{token}"));
        let mut send = |status: u16, headers: &str, length: usize, body: &[u8]| {
            let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
            stream.write_all(head.as_bytes())?;
            stream.write_all(body)
        };
        if let Some(status) = site.status {
            return send(status, "", 0, b"");
        }
        if path.starts_with("/api/models/org/name/revision/") {
            let files = site.files.keys().map(|name| format!(r#"{{"rfilename":"{name}"}}"#)).collect::<Vec<_>>();
            let body = format!(r#"{{"sha":"{COMMIT}","siblings":[{}]}}"#, files.join(","));
            return send(200, "Content-Type: application/json\r\n", body.len(), body.as_bytes());
        }
        let name = path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/")).unwrap_or_default();
        let Some((&name, file)) = site.files.get_key_value(name) else { return send(404, "", 0, b"") };
        let body = &file[from.min(file.len())..to.saturating_add(1).min(file.len())];
        let headers = format!(
            "ETag: \"e{}\"\r\nx-repo-commit: {COMMIT}\r\nContent-Range: bytes {from}-{}/{}\r\n",
            name.replace(['/', '.'], "-"),
            from + body.len(),
            file.len()
        );
        if site.breaks == Some(name) && to == usize::MAX {
            site.breaks = None;
            return send(206, &headers, body.len(), &body[..body.len() / 2]);
        }
        send(206, &headers, body.len(), body)
    }

    fn site(files: &[(&'static str, &[u8])]) -> Site {
        Site { files: files.iter().map(|(name, bytes)| (*name, bytes.to_vec())).collect(), ..Site::default() }
    }

    #[test]
    #[ignore = "run by `downloads_from_a_stand_in`, without proxies"]
    fn downloads_what_is_wanted_and_nothing_else() {
        let weights = weights();
        let server = Server::start(site(&[
            ("config.json", b"{}"),
            ("tokenizer.json", b"{\"t\":1}"),
            ("1_Pooling/config.json", b"{}"),
            ("merges.txt", b"m"),
            ("README.md", b"r"),
            ("pytorch_model.bin", b"p"),
            ("pytorch_model.bin.index.json", b"{}"),
            (
                "model.safetensors.index.json",
                br#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}}"#,
            ),
            ("model-1.safetensors", &weights),
            ("model-2.safetensors", &weights),
            ("other.safetensors", &weights),
            ("../evil.json", b"{}"),
            ("onnx/model.onnx", b"o"),
        ]));
        let cache = tempfile::tempdir().unwrap();
        let hub = Hub { token: Some("hf_secret".into()), ..server.hub(cache.path()) };
        let folder = hub.resolve("org/name").unwrap();
        assert_eq!(folder, cache.path().join("models--org--name/snapshots").join(COMMIT));
        assert_eq!(fs::read(folder.join("tokenizer.json")).unwrap(), b"{\"t\":1}");
        assert_eq!(fs::read(folder.join("model-2.safetensors")).unwrap(), weights);
        assert!(folder.join("1_Pooling/config.json").is_file());
        let asked = server.asked();
        for never in [".bin", "README", "other", "evil", "onnx"] {
            assert!(!asked.iter().any(|path| path.contains(never)), "{never}: {asked:?}");
        }
        assert!(asked.iter().all(|path| path.ends_with(" bearer hf_secret")), "{asked:?}");
        assert_eq!(fs::read_to_string(cache.path().join("models--org--name/refs/main")).unwrap(), COMMIT);
        // From now on without the network.
        assert_eq!(Hub { offline: true, ..hub.clone() }.resolve("org/name").unwrap(), folder);
        assert_eq!(hub.resolve("org/name").unwrap(), folder);
        assert_eq!(server.asked().len(), asked.len());
    }

    #[test]
    #[ignore = "run by `downloads_from_a_stand_in`, without proxies"]
    fn a_broken_download_goes_on_where_it_broke() {
        let body = [weights(), Vec::new()].concat();
        let config = format!("{{\"x\":\"{}\"}}", "y".repeat(100_000)).into_bytes();
        let mut files = site(&[("config.json", &config), ("model.safetensors", &body)]);
        files.breaks = Some("config.json");
        let server = Server::start(files);
        let cache = tempfile::tempdir().unwrap();
        let folder = server.hub(cache.path()).resolve("org/name").unwrap();
        assert!(fs::read(folder.join("config.json")).unwrap() == config);
    }

    #[test]
    #[ignore = "run by `downloads_from_a_stand_in`, without proxies"]
    fn refusals_say_what_to_do() {
        let cache = tempfile::tempdir().unwrap();
        let message = |site: Site, token: Option<&str>| {
            let server = Server::start(site);
            let hub = Hub { token: token.map(String::from), ..server.hub(cache.path()) };
            let text = hub.resolve("org/name@dev").unwrap_err().to_string();
            assert!(text.contains("org/name@dev") && text.contains(&server.endpoint), "{text}");
            assert!(!text.contains("hf_secret"), "{text}");
            text
        };
        let status = |code| Site { status: Some(code), ..Site::default() };
        assert!(message(status(401), None).contains("set HF_TOKEN"));
        assert!(message(status(403), Some("hf_secret")).contains("token in use is not allowed"));
        assert!(message(status(404), None).contains("is the name, and the revision, right?"));
        assert!(message(status(503), None).contains("status 503"));
        let pickles = message(site(&[("config.json", b"{}"), ("pytorch_model.bin", b"p")]), None);
        assert!(pickles.contains("no safetensors weights; it has pickles"), "{pickles}");
        let gguf = message(site(&[("config.json", b"{}"), ("m.gguf", b"g")]), None);
        assert!(gguf.contains("GGUF"), "{gguf}");
        let index = site(&[
            ("config.json", b"{}"),
            ("model.safetensors.index.json", br#"{"weight_map":{"a":"../x.safetensors"}}"#),
        ]);
        let server = Server::start(index);
        let text = server.hub(cache.path()).resolve("org/name@other").unwrap_err().to_string();
        assert!(text.contains("no path below the folder"), "{text}");
        // A port where nobody listens: as a machine without network.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let nobody = Hub { endpoint: format!("http://127.0.0.1:{port}"), offline: false, ..super::hub(cache.path()) };
        let text = nobody.resolve("org/name").unwrap_err().to_string();
        assert!(text.contains("is this machine offline?") && text.contains(&nobody.endpoint), "{text}");
    }

    /// The tests above, in a process without the proxies that the environment may name.
    #[test]
    fn downloads_from_a_stand_in() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["hub::tests::loopback::", "--ignored"]);
        for name in ["http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(name).env_remove(name.to_ascii_uppercase());
        }
        let run = command.output().unwrap();
        let text = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && text.contains("3 passed"), "{text}{}", String::from_utf8_lossy(&run.stderr));
    }
}
