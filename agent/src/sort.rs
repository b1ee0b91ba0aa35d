//! The names of one directory in bytewise order, in bounded memory.
//!
//! Names are sorted in memory up to a budget; beyond it sorted runs go to one unlinked temporary
//! file and are merged as they are read. A name that a filesystem lists twice comes out once.

use crate::temporary;
use rustix::fs::FileType;
use std::cmp::Ordering;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// A run's record on disk: length, file type, inode number, then the name.
const HEAD_BYTES: usize = 1 + 1 + 8;
const RECORD_BYTES: usize = HEAD_BYTES + 255;

/// What a listing says about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed<'n> {
    pub(crate) name: &'n [u8],
    /// A hint: `Unknown` on filesystems that do not say.
    pub(crate) file_type: FileType,
    /// A hint, to stat in the order of the disk.
    pub(crate) ino: u64,
}

/// Names packed into one piece of memory, which is used again from one directory to the next.
#[derive(Debug, Default)]
pub(crate) struct Names {
    arena: Vec<u8>,
    slots: Vec<Slot>,
}

/// One name in memory: its place in the arena, with its first bytes for quick comparison.
#[derive(Debug, Clone, Copy)]
struct Slot {
    prefix: u64,
    ino: u64,
    start: u32,
    length: u8,
    file_type: u8,
}

/// Takes names in any order.
#[derive(Debug)]
pub(crate) struct NameSorter {
    directory: Arc<Path>,
    budget_bytes: usize,
    names: Names,
    runs: Vec<Run>,
    file: Option<File>,
    end: u64,
}

/// Gives them back sorted.
#[derive(Debug)]
pub(crate) enum SortedNames {
    /// All names were within the budget.
    Memory { names: Names, position: usize },
    /// They were not.
    Merge(Merge),
}

impl Names {
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn clear(&mut self) {
        self.arena.clear();
        self.slots.clear();
    }

    /// The name at a place below `len`.
    pub(crate) fn get(&self, at: usize) -> Listed<'_> {
        self.listed(&self.slots[at])
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = Listed<'_>> {
        self.slots.iter().map(|slot| self.listed(slot))
    }

    fn listed(&self, slot: &Slot) -> Listed<'_> {
        Listed {
            name: name_of(&self.arena, slot),
            file_type: byte_type(slot.file_type),
            ino: slot.ino,
        }
    }

    /// Adds a name of at most 255 bytes.
    fn push(&mut self, name: &[u8], file_type: u8, ino: u64) -> io::Result<()> {
        let length = u8::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.slots.push(Slot {
            prefix: prefix(name),
            ino,
            // The sorter's budget keeps the arena far below 4 GiB.
            start: self.arena.len() as u32,
            length,
            file_type,
        });
        self.arena.extend_from_slice(name);
        Ok(())
    }

    fn sort(&mut self) {
        let arena = &self.arena;
        self.slots.sort_unstable_by(|a, b| {
            a.prefix
                .cmp(&b.prefix)
                .then_with(|| name_of(arena, a).cmp(name_of(arena, b)))
        });
        self.slots
            .dedup_by(|a, b| a.prefix == b.prefix && name_of(arena, a) == name_of(arena, b));
    }
}

impl NameSorter {
    /// A sorter that spills into `directory` above `budget_bytes`; `scratch` is memory to be used again.
    pub(crate) fn new(directory: Arc<Path>, budget_bytes: usize, scratch: Names) -> Self {
        let mut names = scratch;
        names.clear();
        Self {
            directory,
            budget_bytes,
            names,
            runs: Vec::new(),
            file: None,
            end: 0,
        }
    }

    /// Whether names went to disk.
    pub(crate) fn spilled(&self) -> bool {
        !self.runs.is_empty()
    }

    /// Names in memory, those that were added twice included.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// Adds a name of at most 255 bytes.
    pub(crate) fn push(&mut self, name: &[u8], file_type: FileType, ino: u64) -> io::Result<()> {
        let names = &self.names;
        let used = names.arena.len() + names.slots.len() * size_of::<Slot>();
        if used + name.len() + size_of::<Slot>() > self.budget_bytes && !names.slots.is_empty() {
            self.spill()?;
        }
        self.names.push(name, type_byte(file_type), ino)
    }

    fn spill(&mut self) -> io::Result<()> {
        self.names.sort();
        if self.file.is_none() {
            self.file = Some(temporary::file_in(&self.directory)?);
        }
        let start = self.end;
        let mut block = Vec::with_capacity(64 * 1024 + RECORD_BYTES);
        let Names { arena, slots } = &self.names;
        for (at, slot) in slots.iter().enumerate() {
            block.extend_from_slice(&[slot.length, slot.file_type]);
            block.extend_from_slice(&slot.ino.to_le_bytes());
            block.extend_from_slice(name_of(arena, slot));
            if block.len() >= 64 * 1024 || at + 1 == slots.len() {
                if let Some(file) = &self.file {
                    file.write_all_at(&block, self.end)?;
                }
                self.end += block.len() as u64;
                block.clear();
            }
        }
        self.runs.push(Run::new(start, self.end));
        self.names.clear();
        Ok(())
    }

    /// All names, in order.
    pub(crate) fn finish(mut self) -> io::Result<SortedNames> {
        if self.runs.is_empty() {
            let names = self.finish_in_memory();
            return Ok(SortedNames::Memory { names, position: 0 });
        }
        if self.names.len() > 0 {
            self.spill()?;
        }
        // The sort's memory goes before the merge's comes.
        drop(self.names);
        let file = self.file.ok_or(io::ErrorKind::NotFound)?;
        Merge::new(file, self.runs, self.budget_bytes).map(SortedNames::Merge)
    }

    /// All names in memory, in order: those of a sorter that has not spilled.
    pub(crate) fn finish_in_memory(mut self) -> Names {
        self.names.sort();
        self.names
    }

    /// Its memory, when the listing failed.
    pub(crate) fn into_scratch(self) -> Names {
        self.names
    }
}

impl SortedNames {
    /// The next names, `most` at a time, in place of what `out` holds.
    pub(crate) fn take(&mut self, most: usize, out: &mut Names) -> io::Result<()> {
        out.clear();
        match self {
            Self::Merge(merge) => while out.len() < most && merge.next(out)? {},
            Self::Memory { names, position } => {
                let end = names.slots.len().min(*position + most);
                for slot in &names.slots[*position..end] {
                    out.push(name_of(&names.arena, slot), slot.file_type, slot.ino)?;
                }
                *position = end;
            }
        }
        Ok(())
    }

    /// Whether every name was given.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Memory { names, position } => *position == names.slots.len(),
            Self::Merge(merge) => merge.heap.is_empty(),
        }
    }
}

/// A sorted run on disk, and the record that it stands at.
#[derive(Debug)]
struct Run {
    position: u64,
    end: u64,
    buffer: Vec<u8>,
    taken: usize,
    name: Vec<u8>,
    file_type: u8,
    ino: u64,
}

impl Run {
    fn new(position: u64, end: u64) -> Self {
        Self {
            position,
            end,
            buffer: Vec::new(),
            taken: 0,
            name: Vec::new(),
            file_type: 0,
            ino: 0,
        }
    }

    /// Goes to the next record; false at the end.
    fn advance(&mut self, file: &File, buffer_bytes: usize) -> io::Result<bool> {
        if self.buffer.len() - self.taken < RECORD_BYTES && self.position < self.end {
            self.buffer.drain(..self.taken);
            self.taken = 0;
            let kept = self.buffer.len();
            let room = buffer_bytes.saturating_sub(kept) as u64;
            let take = room.min(self.end - self.position) as usize;
            self.buffer.resize(kept + take, 0);
            file.read_exact_at(&mut self.buffer[kept..], self.position)?;
            self.position += take as u64;
        }
        let record = &self.buffer[self.taken..];
        let Some((head, rest)) = record.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(false);
        };
        let [length, file_type, ino @ ..] = *head;
        let name = rest
            .get(..usize::from(length))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        self.name.clear();
        self.name.extend_from_slice(name);
        self.file_type = file_type;
        self.ino = u64::from_le_bytes(ino);
        self.taken += HEAD_BYTES + name.len();
        Ok(true)
    }
}

/// Merges runs: a binary heap of their numbers, the smallest name on top.
#[derive(Debug)]
pub(crate) struct Merge {
    file: File,
    runs: Vec<Run>,
    heap: Vec<usize>,
    buffer_bytes: usize,
}

impl Merge {
    fn new(file: File, mut runs: Vec<Run>, budget_bytes: usize) -> io::Result<Self> {
        let share = budget_bytes / runs.len().max(1);
        let buffer_bytes = share.clamp(2 * RECORD_BYTES, 64 * 1024);
        let mut heap = Vec::with_capacity(runs.len());
        for (number, run) in runs.iter_mut().enumerate() {
            if run.advance(&file, buffer_bytes)? {
                heap.push(number);
            }
        }
        let mut merge = Self {
            file,
            runs,
            heap,
            buffer_bytes,
        };
        for at in (0..merge.heap.len() / 2).rev() {
            merge.sift_down(at);
        }
        Ok(merge)
    }

    /// Adds the next name to `out`; false at the end.
    fn next(&mut self, out: &mut Names) -> io::Result<bool> {
        let Some(top) = self.heap.first() else {
            return Ok(false);
        };
        let run = &self.runs[*top];
        out.push(&run.name, run.file_type, run.ino)?;
        let given = out.get(out.len() - 1).name;
        while let Some(top) = self.heap.first().copied() {
            if self.runs[top].name != given {
                break;
            }
            if !self.runs[top].advance(&self.file, self.buffer_bytes)? {
                self.heap.swap_remove(0);
            }
            self.sift_down(0);
        }
        Ok(true)
    }

    fn order(&self, a: usize, b: usize) -> Ordering {
        self.runs[self.heap[a]]
            .name
            .cmp(&self.runs[self.heap[b]].name)
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let left = 2 * at + 1;
            if left >= self.heap.len() {
                return;
            }
            let right = left + 1;
            let right_is_less =
                right < self.heap.len() && self.order(right, left) == Ordering::Less;
            let least = if right_is_less { right } else { left };
            if self.order(least, at) != Ordering::Less {
                return;
            }
            self.heap.swap(least, at);
            at = least;
        }
    }
}

fn name_of<'a>(arena: &'a [u8], slot: &Slot) -> &'a [u8] {
    let start = slot.start as usize;
    &arena[start..start + usize::from(slot.length)]
}

/// The first eight bytes as a number that orders as they do; shorter names are filled with zeros,
/// which no name holds.
fn prefix(name: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let take = name.len().min(8);
    bytes[..take].copy_from_slice(&name[..take]);
    u64::from_be_bytes(bytes)
}

fn type_byte(file_type: FileType) -> u8 {
    match file_type {
        FileType::RegularFile => 1,
        FileType::Directory => 2,
        FileType::Symlink => 3,
        FileType::Fifo => 4,
        FileType::Socket => 5,
        FileType::CharacterDevice => 6,
        FileType::BlockDevice => 7,
        FileType::Unknown => 0,
    }
}

fn byte_type(byte: u8) -> FileType {
    match byte {
        1 => FileType::RegularFile,
        2 => FileType::Directory,
        3 => FileType::Symlink,
        4 => FileType::Fifo,
        5 => FileType::Socket,
        6 => FileType::CharacterDevice,
        7 => FileType::BlockDevice,
        _ => FileType::Unknown,
    }
}

#[cfg(test)]
mod tests;
