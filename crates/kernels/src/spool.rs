//! A temporary file in the place of memory: what is kept in it the system may write out when memory is short, and reads back
//! when it is needed. Where `map` looks at files that others have written, this one is our own, and nobody else sees it.
//!
//! Blocks of the disk are taken before anything is mapped: a disk that is full is an error then, and never the SIGBUS of a
//! page that has no room to be written to. (On file systems that write elsewhere at every change, such as btrfs, that is as
//! far as the file system itself keeps this promise.)

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::{MmapOptions, MmapRaw};

/// What is taken at once, in bytes.
const SEGMENT: usize = 4 << 20;

/// Beginnings of segments in the file, and of slots: a multiple of the system's pages on every machine.
const ALIGNED: usize = 64 << 10;

/// The file. It has no name, and is gone with the last of its slots.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    length: u64,
    /// Places that nobody has, by their length.
    free: HashMap<usize, Vec<Place>>,
}

/// Part of a mapped segment.
#[derive(Clone, Debug)]
struct Place {
    segment: Arc<MmapRaw>,
    at: usize,
}

/// A part of the file that one owner has to itself.
#[derive(Debug)]
pub struct Slot {
    place: Place,
    len: usize,
    spool: Arc<Spool>,
}

impl Spool {
    /// An empty file in the system's folder for such (`TMPDIR`).
    ///
    /// # Errors
    /// Names the folder, if no file can be made there.
    pub fn new() -> io::Result<Arc<Self>> {
        Self::in_folder(&std::env::temp_dir())
    }

    /// An empty file in this folder.
    ///
    /// # Errors
    /// As [`Spool::new`].
    pub fn in_folder(folder: &Path) -> io::Result<Arc<Self>> {
        let file = tempfile::tempfile_in(folder).map_err(|error| wrong("cannot make", folder, &error))?;
        let state = State { file, length: 0, free: HashMap::new() };
        Ok(Arc::new(Self { folder: folder.to_owned(), state: Mutex::new(state) }))
    }

    /// Room for so many bytes, aligned to 64; they hold whatever was there before.
    ///
    /// # Errors
    /// Names the folder, if its disk has no room.
    pub fn slot(self: &Arc<Self>, len: usize) -> io::Result<Slot> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match state.free.get_mut(&len).and_then(Vec::pop) {
            Some(place) => place,
            None => state.extend(len).map_err(|error| wrong("no room in", &self.folder, &error))?,
        };
        Ok(Slot { place, len, spool: self.clone() })
    }

    /// Bytes taken from the disk.
    pub fn bytes(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).length
    }
}

fn wrong(what: &str, folder: &Path, error: &io::Error) -> io::Error {
    let message = format!(
        "{what} a temporary file in `{}`: {error}; set TMPDIR to a folder on a disk with room, or keep the cache in memory",
        folder.display()
    );
    io::Error::new(error.kind(), message)
}

impl State {
    /// Takes another segment and cuts it into slots; returns one of them.
    fn extend(&mut self, len: usize) -> io::Result<Place> {
        let apart = len.max(1).next_multiple_of(64);
        let count = (SEGMENT / apart).max(1);
        let size = (count * apart).next_multiple_of(ALIGNED);
        if let Err(error) = take(&mut self.file, self.length, size) {
            // What was taken until the disk was full.
            self.file.set_len(self.length).ok();
            return Err(error);
        }
        let segment = Arc::new(MmapOptions::new().offset(self.length).len(size).map_raw(&self.file)?);
        self.length += size as u64;
        let free = self.free.entry(len).or_default();
        free.extend((1..count).rev().map(|i| Place { segment: segment.clone(), at: i * apart }));
        Ok(Place { segment, at: 0 })
    }
}

/// Takes blocks of the disk for the file's next bytes.
#[cfg(target_os = "linux")]
fn take(file: &mut File, from: u64, size: usize) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the file is open, and the call touches no memory of ours.
    let code = unsafe { libc::posix_fallocate(file.as_raw_fd(), from as libc::off_t, size as libc::off_t) };
    match code {
        0 => Ok(()),
        libc::EOPNOTSUPP | libc::EINVAL => fill(file, from, size),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

#[cfg(not(target_os = "linux"))]
fn take(file: &mut File, from: u64, size: usize) -> io::Result<()> {
    fill(file, from, size)
}

/// The same where blocks cannot be asked for: by writing them.
fn fill(file: &mut File, from: u64, size: usize) -> io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};
    file.seek(SeekFrom::Start(from))?;
    let zeros = vec![0; ALIGNED];
    for _ in 0..size / ALIGNED {
        file.write_all(&zeros)?;
    }
    file.flush()
}

impl Slot {
    /// What it holds.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: inside the segment, which lives as long as the slot; only the slot's owner writes there.
        unsafe { std::slice::from_raw_parts(self.place.segment.as_ptr().add(self.place.at), self.len) }
    }

    /// The same for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and slots do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.place.segment.as_mut_ptr().add(self.place.at), self.len) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.spool.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.free.entry(self.len).or_default().push(self.place.clone());
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn slots_keep_apart_and_are_used_again() {
        let spool = Spool::new().unwrap();
        let mut slots: Vec<Slot> =
            (0..100).map(|i| spool.slot(if i % 3 == 0 { 5000 } else { 1 << 20 }).unwrap()).collect();
        for (i, slot) in slots.iter_mut().enumerate() {
            assert!(slot.bytes().as_ptr().addr().is_multiple_of(64));
            slot.bytes_mut().fill(i as u8);
        }
        assert!(slots.iter().enumerate().all(|(i, slot)| slot.bytes().iter().all(|byte| *byte == i as u8)));
        let taken = spool.bytes();
        assert!((66 << 20..=80 << 20).contains(&taken), "{taken}");
        slots.truncate(10);
        slots.extend((0..60).map(|_| spool.slot(1 << 20).unwrap()));
        assert_eq!(spool.bytes(), taken);
        // The file outlives its owner as long as there are slots of it.
        drop(spool);
        assert!(slots.iter().take(10).enumerate().all(|(i, slot)| slot.bytes()[17] == i as u8));
    }

    #[test]
    fn a_folder_without_room_is_an_error_that_names_it() {
        let error = Spool::in_folder(Path::new("/nowhere/at/all")).unwrap_err().to_string();
        assert!(error.contains("`/nowhere/at/all`") && error.contains("TMPDIR"), "{error}");
        // A file that cannot be written stands for a full disk.
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let state = Mutex::new(State { file, length: 0, free: HashMap::new() });
        let spool = Arc::new(Spool { folder: PathBuf::from("here"), state });
        let error = spool.slot(1 << 20).unwrap_err().to_string();
        assert!(error.contains("no room in a temporary file in `here`") && error.contains("TMPDIR"), "{error}");
        assert_eq!(spool.bytes(), 0);
    }
}
