//! Disposable copies of frames: opened ones in memory, sealed ones of trees on disk. Both are bounded in
//! bytes and may be lost, emptied or damaged at any time without harm.
//!
//! The disk cache is a few append-only segment files; the oldest is dropped when the limit is reached.
//! What it gives back is sealed, so a damaged copy does not open and is taken for absent. One process
//! uses a directory at a time; another one goes without.

use bytes::Bytes;
use holdfast_format::id::PackId;
use holdfast_format::pack::MAX_STORED_FRAME_BYTES;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

type Key = (PackId, u32);

/// Opened frames in memory, the least recently used dropped first.
pub struct FrameCache {
    limit: usize,
    state: Mutex<Frames>,
}

#[derive(Default)]
struct Frames {
    frames: HashMap<Key, (u64, Bytes)>,
    by_use: BTreeMap<u64, Key>,
    bytes: usize,
    clock: u64,
}

/// What a cached frame costs beside its bytes.
const OVERHEAD: usize = 160;

impl fmt::Debug for FrameCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.state);
        write!(f, "FrameCache({} of {} bytes)", state.bytes, self.limit)
    }
}

impl FrameCache {
    /// A cache of at most this many bytes; 0 keeps nothing.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            state: Mutex::default(),
        }
    }

    /// A frame's plain bytes.
    pub fn get(&self, pack: PackId, frame_no: u32) -> Option<Bytes> {
        let mut state = lock(&self.state);
        let Frames {
            frames,
            by_use,
            clock,
            ..
        } = &mut *state;
        let (used, plain) = frames.get_mut(&(pack, frame_no))?;
        *clock += 1;
        by_use.remove(used);
        by_use.insert(*clock, (pack, frame_no));
        *used = *clock;
        Some(plain.clone())
    }

    /// Keeps a frame, and drops others for it.
    pub fn put(&self, pack: PackId, frame_no: u32, plain: Bytes) {
        let cost = plain.len() + OVERHEAD;
        if cost > self.limit {
            return;
        }
        let mut state = lock(&self.state);
        state.remove((pack, frame_no));
        while state.bytes + cost > self.limit {
            let Some((_, oldest)) = state.by_use.first_key_value() else {
                break;
            };
            let oldest = *oldest;
            state.remove(oldest);
        }
        state.clock += 1;
        let used = state.clock;
        state.by_use.insert(used, (pack, frame_no));
        state.frames.insert((pack, frame_no), (used, plain));
        state.bytes += cost;
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        lock(&self.state).bytes
    }
}

impl Frames {
    fn remove(&mut self, key: Key) {
        if let Some((used, plain)) = self.frames.remove(&key) {
            self.by_use.remove(&used);
            self.bytes -= plain.len() + OVERHEAD;
        }
    }
}

/// Sealed frames on disk. Calls block: they belong on a blocking thread.
pub struct DiskCache {
    dir: PathBuf,
    segment_limit: u64,
    segments_limit: usize,
    state: Mutex<Segments>,
    /// Held while the cache is open.
    _lock: File,
}

#[derive(Default)]
struct Segments {
    /// Oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    index: HashMap<Key, Place>,
    next: u64,
}

struct Segment {
    number: u64,
    file: File,
    bytes: u64,
}

#[derive(Clone, Copy)]
struct Place {
    segment: u64,
    offset: u64,
    length: u32,
}

/// Before each frame: mark, pack, frame number, length.
const RECORD_BYTES: usize = 4 + 32 + 4 + 4;
const RECORD_MARK: [u8; 4] = *b"hfr1";
/// The limit is divided into so many segments.
const SEGMENTS: u64 = 16;

impl fmt::Debug for DiskCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskCache({})", self.dir.display())
    }
}

impl DiskCache {
    /// The cache in a directory, made if it is not there (0700), of at most `limit` bytes. `None` while
    /// another process uses it.
    pub fn open(dir: &Path, limit: u64) -> io::Result<Option<Self>> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let held = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(dir.join("lock"))?;
        match held.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        let mut numbers: Vec<u64> = std::fs::read_dir(dir)?
            .filter_map(|found| number_of(&found.ok()?.file_name().into_string().ok()?))
            .collect();
        numbers.sort_unstable();
        let mut state = Segments {
            next: numbers.last().map_or(0, |last| last.saturating_add(1)),
            ..Segments::default()
        };
        for number in numbers {
            let path = dir.join(name_of(number));
            // One that cannot be read is no loss.
            if state.load(&path, number).is_err() {
                let _ = std::fs::remove_file(&path);
            }
        }
        let cache = Self {
            dir: dir.to_owned(),
            segment_limit: (limit / SEGMENTS).max(1),
            segments_limit: SEGMENTS as usize,
            state: Mutex::new(state),
            _lock: held,
        };
        {
            let mut state = lock(&cache.state);
            cache.drop_surplus(&mut state);
        }
        Ok(Some(cache))
    }

    /// A frame's stored bytes, which may be damaged: they are sealed, whoever opens them will see.
    pub fn get(&self, pack: PackId, frame_no: u32) -> Option<Bytes> {
        let mut state = lock(&self.state);
        let place = *state.index.get(&(pack, frame_no))?;
        let read = state.read(place);
        if read.is_none() {
            state.index.remove(&(pack, frame_no));
        }
        read
    }

    /// Keeps a frame's stored bytes. A second put of the same frame does nothing.
    pub fn put(&self, pack: PackId, frame_no: u32, stored: &[u8]) -> io::Result<()> {
        let record = (RECORD_BYTES + stored.len()) as u64;
        if stored.len() > MAX_STORED_FRAME_BYTES || record > self.segment_limit {
            return Ok(());
        }
        let mut state = lock(&self.state);
        if state.index.contains_key(&(pack, frame_no)) {
            return Ok(());
        }
        let full = state
            .segments
            .back()
            .is_none_or(|segment| segment.bytes + record > self.segment_limit);
        if full {
            self.add_segment(&mut state)?;
            self.drop_surplus(&mut state);
        }
        let Some(segment) = state.segments.back_mut() else {
            return Ok(());
        };
        let mut bytes = Vec::with_capacity(record as usize);
        bytes.extend_from_slice(&RECORD_MARK);
        bytes.extend_from_slice(pack.as_bytes());
        bytes.extend_from_slice(&frame_no.to_le_bytes());
        bytes.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        bytes.extend_from_slice(stored);
        // A failed write leaves rubbish after the end that is known: the next one goes over it.
        segment.file.write_all_at(&bytes, segment.bytes)?;
        let place = Place {
            segment: segment.number,
            offset: segment.bytes + RECORD_BYTES as u64,
            length: stored.len() as u32,
        };
        segment.bytes += record;
        state.index.insert((pack, frame_no), place);
        Ok(())
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        let state = lock(&self.state);
        state.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn add_segment(&self, state: &mut Segments) -> io::Result<()> {
        let number = state.next;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.dir.join(name_of(number)))?;
        state.next += 1;
        state.segments.push_back(Segment {
            number,
            file,
            bytes: 0,
        });
        Ok(())
    }

    /// Drops the oldest segments until the limit holds, whatever limit the files were made under.
    fn drop_surplus(&self, state: &mut Segments) {
        let limit = self.segment_limit * self.segments_limit as u64;
        loop {
            let bytes: u64 = state.segments.iter().map(|segment| segment.bytes).sum();
            // The segment being filled counts as full.
            let room =
                bytes + self.segment_limit <= limit && state.segments.len() <= self.segments_limit;
            if room {
                return;
            }
            let Some(oldest) = state.segments.pop_front() else {
                return;
            };
            let gone = oldest.number;
            state.index.retain(|_, place| place.segment != gone);
            let _ = std::fs::remove_file(self.dir.join(name_of(gone)));
        }
    }
}

impl Segments {
    /// Reads which frames a segment holds, up to the first thing that is none: a write that was cut
    /// short, or damage.
    fn load(&mut self, path: &Path, number: u64) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let size = file.metadata()?.len();
        let mut at = 0;
        let mut record = [0; RECORD_BYTES];
        while at + RECORD_BYTES as u64 <= size {
            file.read_exact_at(&mut record, at)?;
            let Some((key, length)) = decode_record(&record) else {
                break;
            };
            let offset = at + RECORD_BYTES as u64;
            let end = offset + u64::from(length);
            if end > size {
                break;
            }
            let place = Place {
                segment: number,
                offset,
                length,
            };
            self.index.insert(key, place);
            at = end;
        }
        self.segments.push_back(Segment {
            number,
            file,
            bytes: at,
        });
        Ok(())
    }

    fn read(&self, place: Place) -> Option<Bytes> {
        let segment = self
            .segments
            .iter()
            .find(|segment| segment.number == place.segment)?;
        let mut bytes = vec![0; place.length as usize];
        segment.file.read_exact_at(&mut bytes, place.offset).ok()?;
        Some(bytes.into())
    }
}

fn decode_record(record: &[u8; RECORD_BYTES]) -> Option<(Key, u32)> {
    let (mark, rest) = record.split_first_chunk::<4>()?;
    let (pack, rest) = rest.split_first_chunk::<32>()?;
    let (frame_no, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*rest.first_chunk::<4>()?);
    let sound = *mark == RECORD_MARK && length as usize <= MAX_STORED_FRAME_BYTES;
    let key = (PackId::from_bytes(*pack), u32::from_le_bytes(*frame_no));
    sound.then_some((key, length))
}

fn name_of(number: u64) -> String {
    format!("{number:010}.frames")
}

fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".frames")?.parse().ok()?;
    (name_of(number) == name).then_some(number)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done by a panic: the worst is a copy that is not found.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
