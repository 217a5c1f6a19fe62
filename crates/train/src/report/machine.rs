//! One line about the machine, so that a report's times mean something later.

/// `AMD EPYC 9V74, 2 threads, 23 GiB, linux x86_64, phyla 0.1.0`; what the system does not tell is left
/// out.
#[must_use]
pub fn machine() -> String {
    let mut facts = Vec::new();
    facts.extend(field("/proc/cpuinfo", "model name"));
    if let Ok(threads) = std::thread::available_parallelism() {
        facts.push(format!("{threads} threads"));
    }
    let memory = field("/proc/meminfo", "MemTotal");
    let kibibytes: Option<f64> = memory.and_then(|text| text.strip_suffix("kB")?.trim().parse().ok());
    facts.extend(kibibytes.map(|kibibytes| format!("{:.0} GiB", kibibytes / (1024.0 * 1024.0))));
    facts.push(format!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
    facts.push(format!("phyla {}", env!("CARGO_PKG_VERSION")));
    facts.join(", ")
}

/// The value of the first `key : value` line.
fn field(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
