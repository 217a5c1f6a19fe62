//! A mapped file's bytes moved into memory of our own, in huge pages, at the same addresses: who reads all of it again and
//! again, as decoding reads weights, waits for the page tables of small pages. Measured in a virtual machine: 527 MB of
//! weights a token in 32 ms instead of 47.

use std::io;
use std::sync::atomic::Ordering;

use super::MappedFile;
use crate::memory;
use crate::threads::{self, Shared};

/// A huge page.
const HUGE: usize = 2 << 20;
/// Moved at once: no more than this is held twice.
const PIECE: usize = 4 * HUGE;
/// Below this a file is not worth it.
const LEAST: usize = 32 * HUGE;

impl MappedFile {
    /// Moves the bytes into huge pages where that pays and the memory is there: of files from 64 MiB on, if they are less
    /// than half of what is free. Returns whether it did. Views stay valid; what was read before reads the same.
    ///
    /// Takes about 0.2 s a gigabyte that is in the page cache. Without huge pages (`never`, or another system than Linux)
    /// nothing happens.
    ///
    /// # Errors
    /// Those of the system. What has been moved until then stays moved.
    pub fn settle(&self) -> io::Result<bool> {
        let bytes = self.bytes();
        let aligned = (bytes.as_ptr() as usize).is_multiple_of(HUGE);
        if bytes.len() < LEAST
            || !aligned
            || !huge_pages()
            || memory::available().is_none_or(|free| bytes.len() > free / 2)
        {
            return Ok(false);
        }
        if self.settled.swap(true, Ordering::Relaxed) {
            return Ok(true);
        }
        // The last, broken page stays the file's.
        let whole = bytes.len() / HUGE * HUGE;
        for at in (0..whole).step_by(PIECE) {
            move_piece(&bytes[at..whole.min(at + PIECE)])?;
        }
        Ok(true)
    }
}

/// Puts a copy of `piece` in its place.
#[cfg(target_os = "linux")]
fn move_piece(piece: &[u8]) -> io::Result<()> {
    let len = piece.len();
    // SAFETY: fresh memory of our own, of which a part that begins with a huge page takes the copy and is then moved over
    // the piece: whole pages of a private, read-only mapping, that hold the same bytes before and after. Whoever reads
    // meanwhile waits for the system. The rest is given back.
    unsafe {
        let (read, write) = (libc::PROT_READ, libc::PROT_WRITE);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let room = libc::mmap(std::ptr::null_mut(), len + HUGE, read | write, flags, -1, 0);
        if room == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let before = room.align_offset(HUGE);
        let copy = room.byte_add(before);
        libc::madvise(copy, len, libc::MADV_HUGEPAGE);
        let to = Shared(copy.cast::<u8>());
        threads::for_each(len / HUGE, len, |page| {
            to.slice(page * HUGE, HUGE).copy_from_slice(&piece[page * HUGE..][..HUGE]);
        });
        let moved = match libc::mprotect(copy, len, read) {
            0 => libc::mremap(copy, len, len, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, piece.as_ptr()),
            _ => libc::MAP_FAILED,
        };
        let error = io::Error::last_os_error();
        let failed = moved == libc::MAP_FAILED;
        if before > 0 {
            libc::munmap(room, before);
        }
        let after = copy.byte_add(if failed { 0 } else { len });
        libc::munmap(after, HUGE - before + if failed { len } else { 0 });
        if failed { Err(error) } else { Ok(()) }
    }
}

#[cfg(not(target_os = "linux"))]
fn move_piece(_: &[u8]) -> io::Result<()> {
    Ok(())
}

/// Whether the system gives huge pages to those who ask.
fn huge_pages() -> bool {
    std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
        .is_ok_and(|modes| modes.contains("[madvise]") || modes.contains("[always]"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn views_read_the_same_after_a_move() {
        let path = std::env::temp_dir().join(format!("phyla-settle-{}", std::process::id()));
        let bytes: Vec<u8> = (0..LEAST + PIECE / 2 + 4321).map(|i| (i * 7 + (i >> 13)) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = MappedFile::open(&path).unwrap();
        let view = map.bytes();
        assert!(view == bytes);
        // Readers beside the move see nothing of it.
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..3).for_each(|_| assert!(view == bytes)));
            }
            if !map.settle().unwrap() {
                println!("skipped: this machine has no huge pages, or too little memory");
            }
        });
        assert!(view == bytes && map.bytes() == bytes);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn small_and_empty_files_stay() {
        let path = std::env::temp_dir().join(format!("phyla-stays-{}", std::process::id()));
        for size in [0, 1, HUGE] {
            std::fs::write(&path, vec![7; size]).unwrap();
            assert!(!MappedFile::open(&path).unwrap().settle().unwrap());
        }
        std::fs::remove_file(path).unwrap();
    }
}
