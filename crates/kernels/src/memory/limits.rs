//! How much memory this process can have: the machine's, or what control groups (containers) allow it.

use std::path::{Path, PathBuf};

/// Bytes of memory and swap that a process can have, were it alone: those of the machine, or what a control group (a
/// container) allows it. `None` where the system does not tell (other than Linux).
pub fn total() -> Option<usize> {
    total_of(Path::new("/"))
}

/// Bytes of memory that this process can still have.
pub fn available() -> Option<usize> {
    available_of(Path::new("/"))
}

fn total_of(root: &Path) -> Option<usize> {
    let machine = meminfo(root, "MemTotal:")? + meminfo(root, "SwapTotal:").unwrap_or(0);
    Some(groups(root).filter_map(|group| group.limit()).fold(machine, usize::min))
}

fn available_of(root: &Path) -> Option<usize> {
    Some(groups(root).filter_map(|group| group.free()).fold(meminfo(root, "MemAvailable:")?, usize::min))
}

fn meminfo(root: &Path, key: &str) -> Option<usize> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? << 10)
}

/// A control group that counts the memory of this process, in the second version of their files or the first.
struct Group {
    folder: PathBuf,
    /// The names of the limit, of what is used, and of how much of that is files which need not stay.
    names: [&'static str; 3],
}

/// The process's own group and those around it.
fn groups(root: &Path) -> impl Iterator<Item = Group> {
    let text = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let lines: Vec<(PathBuf, String, [&str; 3])> = (text.lines())
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/').to_owned());
            let mount = root.join("sys/fs/cgroup");
            match controllers {
                "" => Some((mount, path, ["memory.max", "memory.current", "inactive_file"])),
                some if some.split(',').any(|name| name == "memory") => {
                    let names = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"];
                    Some((mount.join("memory"), path, names))
                }
                _ => None,
            }
        })
        .collect();
    lines.into_iter().flat_map(|(mount, path, names)| {
        let folders: Vec<PathBuf> = Path::new(&path).ancestors().map(|path| mount.join(path)).collect();
        folders.into_iter().map(move |folder| Group { folder, names })
    })
}

impl Group {
    /// None where it has no limit, which the first version says by a number beyond all memory.
    fn limit(&self) -> Option<usize> {
        self.number(self.names[0])
    }

    fn free(&self) -> Option<usize> {
        let (limit, used) = (self.limit()?, self.number(self.names[1])?);
        let stat = std::fs::read_to_string(self.folder.join("memory.stat")).unwrap_or_default();
        let files = stat.lines().find_map(|line| line.strip_prefix(self.names[2])?.trim().parse().ok()).unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(files)))
    }

    fn number(&self, name: &str) -> Option<usize> {
        std::fs::read_to_string(self.folder.join(name)).ok()?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MEMINFO: &str = "MemTotal: 8000 kB\nMemFree: 100 kB\nMemAvailable: 5000 kB\nSwapTotal: 1000 kB\n";

    /// A system with these files: total and available memory in KiB.
    fn found(name: &str, files: &[(&str, &str)]) -> [Option<usize>; 2] {
        let root = std::env::temp_dir().join(format!("phyla-memory-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let found = [total_of(&root), available_of(&root)].map(|bytes| bytes.map(|bytes| bytes >> 10));
        let _ = std::fs::remove_dir_all(root);
        found
    }

    #[test]
    fn a_container_has_what_its_groups_allow() {
        assert_eq!(found("bare", &[("proc/meminfo", MEMINFO)]), [Some(9000), Some(5000)]);
        assert_eq!(found("none", &[]), [None, None]);
        let second = [
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "max\n"),
            ("sys/fs/cgroup/outer/memory.max", "4096000\n"),
            ("sys/fs/cgroup/outer/memory.current", "3072000\n"),
            ("sys/fs/cgroup/outer/memory.stat", "anon 7\ninactive_file 1024000\n"),
        ];
        assert_eq!(found("second", &second), [Some(4000), Some(2000)]);
        let first = [
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "5:cpu:/a\n4:memory:/a\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1024\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "2048000\n"),
            ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "1024000\n"),
        ];
        assert_eq!(found("first", &first), [Some(2000), Some(1000)]);
    }
}
