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

/// A run's record on disk: length, file type, inode number, then the name.
const HEAD_BYTES: usize = 1 + 1 + 8;
const RECORD_BYTES: usize = HEAD_BYTES + 255;

/// What a listing says about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: Vec<u8>,
    /// A hint: `Unknown` on filesystems that do not say.
    pub(crate) file_type: FileType,
    /// A hint, to stat in the order of the disk.
    pub(crate) ino: u64,
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
pub(crate) struct NameSorter<'d> {
    directory: &'d Path,
    budget_bytes: usize,
    arena: Vec<u8>,
    slots: Vec<Slot>,
    runs: Vec<Run>,
    file: Option<File>,
    end: u64,
}

/// Memory of a sorter, to be used again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    arena: Vec<u8>,
    slots: Vec<Slot>,
}

/// Gives them back sorted.
#[derive(Debug)]
pub(crate) enum SortedNames {
    /// All names were within the budget.
    Memory { scratch: Scratch, position: usize },
    /// They were not.
    Merge(Merge),
}

impl<'d> NameSorter<'d> {
    /// A sorter that spills into `directory` above `budget_bytes`.
    pub(crate) fn new(directory: &'d Path, budget_bytes: usize, scratch: Scratch) -> Self {
        let Scratch {
            mut arena,
            mut slots,
        } = scratch;
        arena.clear();
        slots.clear();
        Self {
            directory,
            budget_bytes,
            arena,
            slots,
            runs: Vec::new(),
            file: None,
            end: 0,
        }
    }

    /// Whether names went to disk.
    pub(crate) fn spilled(&self) -> bool {
        !self.runs.is_empty()
    }

    /// Adds a name of at most 255 bytes.
    pub(crate) fn push(&mut self, name: &[u8], file_type: FileType, ino: u64) -> io::Result<()> {
        let length = u8::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let used = self.arena.len() + self.slots.len() * size_of::<Slot>();
        if used + name.len() + size_of::<Slot>() > self.budget_bytes && !self.slots.is_empty() {
            self.spill()?;
        }
        self.slots.push(Slot {
            prefix: prefix(name),
            ino,
            // The budget keeps the arena far below 4 GiB.
            start: self.arena.len() as u32,
            length,
            file_type: type_byte(file_type),
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

    fn spill(&mut self) -> io::Result<()> {
        self.sort();
        if self.file.is_none() {
            self.file = Some(temporary::file_in(self.directory)?);
        }
        let start = self.end;
        let mut block = Vec::with_capacity(64 * 1024 + RECORD_BYTES);
        for (at, slot) in self.slots.iter().enumerate() {
            block.extend_from_slice(&[slot.length, slot.file_type]);
            block.extend_from_slice(&slot.ino.to_le_bytes());
            block.extend_from_slice(name_of(&self.arena, slot));
            if block.len() >= 64 * 1024 || at + 1 == self.slots.len() {
                if let Some(file) = &self.file {
                    file.write_all_at(&block, self.end)?;
                }
                self.end += block.len() as u64;
                block.clear();
            }
        }
        self.runs.push(Run::new(start, self.end));
        self.arena.clear();
        self.slots.clear();
        Ok(())
    }

    /// All names, in order.
    pub(crate) fn finish(mut self) -> io::Result<SortedNames> {
        if self.runs.is_empty() {
            self.sort();
            let scratch = Scratch {
                arena: self.arena,
                slots: self.slots,
            };
            return Ok(SortedNames::Memory {
                scratch,
                position: 0,
            });
        }
        if !self.slots.is_empty() {
            self.spill()?;
        }
        // The sort's memory goes before the merge's comes.
        drop((self.arena, self.slots));
        let file = self.file.ok_or(io::ErrorKind::NotFound)?;
        Merge::new(file, self.runs, self.budget_bytes).map(SortedNames::Merge)
    }

    /// Its memory, when the listing failed.
    pub(crate) fn into_scratch(self) -> Scratch {
        Scratch {
            arena: self.arena,
            slots: self.slots,
        }
    }
}

impl SortedNames {
    /// The next name.
    pub(crate) fn next(&mut self) -> io::Result<Option<Listed>> {
        match self {
            Self::Merge(merge) => merge.next(),
            Self::Memory { scratch, position } => {
                let Some(slot) = scratch.slots.get(*position) else {
                    return Ok(None);
                };
                *position += 1;
                Ok(Some(Listed {
                    name: name_of(&scratch.arena, slot).to_vec(),
                    file_type: byte_type(slot.file_type),
                    ino: slot.ino,
                }))
            }
        }
    }

    /// Whether every name was given.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Memory { scratch, position } => *position == scratch.slots.len(),
            Self::Merge(merge) => merge.heap.is_empty(),
        }
    }

    /// Its memory, to be used again.
    pub(crate) fn into_scratch(self) -> Scratch {
        match self {
            Self::Memory { scratch, .. } => scratch,
            Self::Merge(_) => Scratch::default(),
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

    fn next(&mut self) -> io::Result<Option<Listed>> {
        let Some(top) = self.heap.first() else {
            return Ok(None);
        };
        let run = &self.runs[*top];
        let listed = Listed {
            name: run.name.clone(),
            file_type: byte_type(run.file_type),
            ino: run.ino,
        };
        while let Some(top) = self.heap.first().copied() {
            if self.runs[top].name != listed.name {
                break;
            }
            if !self.runs[top].advance(&self.file, self.buffer_bytes)? {
                self.heap.swap_remove(0);
            }
            self.sift_down(0);
        }
        Ok(Some(listed))
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn sorted(budget_bytes: usize, names: &[(Vec<u8>, u64)]) -> (bool, Vec<Listed>) {
        let directory = std::env::temp_dir();
        let mut sorter = NameSorter::new(&directory, budget_bytes, Scratch::default());
        for (name, ino) in names {
            sorter.push(name, FileType::Directory, *ino).unwrap();
        }
        let spilled = sorter.spilled();
        let mut sorted = sorter.finish().unwrap();
        let mut out = Vec::new();
        loop {
            let done = sorted.is_done();
            match sorted.next().unwrap() {
                Some(listed) => out.push(listed),
                None => {
                    assert!(done);
                    return (spilled, out);
                }
            }
            assert!(!done);
        }
    }

    proptest! {
        #[test]
        fn equals_a_sorted_map_with_and_without_spilling(
            names in proptest::collection::vec(("[a-c\\x01]{1,12}", any::<u64>()), 0..300),
            budget in 64usize..4000,
        ) {
            let names: Vec<_> = names.into_iter().map(|(n, i)| (n.into_bytes(), i)).collect();
            let model: BTreeMap<_, _> = names.iter().cloned().collect();
            for budget in [budget, 1 << 20] {
                let (_, found) = sorted(budget, &names);
                let found: Vec<_> = found.into_iter().map(|l| l.name).collect();
                prop_assert_eq!(&found, &model.keys().cloned().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn hints_survive_a_spill() {
        let names: Vec<_> = (0..20_000u64)
            .map(|n| {
                (
                    format!("{:0w$}", n * 7919 % 20_000, w = 5 + (n % 250) as usize).into_bytes(),
                    n,
                )
            })
            .collect();
        let inos: BTreeMap<_, _> = names.iter().cloned().collect();
        let (spilled, found) = sorted(100_000, &names);
        assert!(spilled);
        assert_eq!(found.len(), inos.len());
        for (found, (name, ino)) in found.iter().zip(inos) {
            assert_eq!((&found.name, found.ino), (&name, ino));
            assert_eq!(found.file_type, FileType::Directory);
        }
    }

    /// Bytes that a sorter, or a merge of what it wrote, has taken from the allocator.
    fn taken(arena: &Vec<u8>, slots: &Vec<Slot>) -> usize {
        arena.capacity() + slots.capacity() * size_of::<Slot>()
    }

    #[test]
    fn five_million_names_take_a_bounded_memory() {
        const NAMES: u64 = 5_000_000;
        const BUDGET: usize = 1 << 20;
        // Coprime to the number: every name once, in no order.
        let name = |n: u64| format!("an-entry-with-a-name-of-some-length-{:07}", n % NAMES);
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut sorter = NameSorter::new(directory.path(), BUDGET, Scratch::default());
        let mut most = 0;
        for n in 0..NAMES {
            let n = n * 2_236_067;
            sorter
                .push(name(n).as_bytes(), FileType::RegularFile, n)
                .unwrap();
            most = most.max(taken(&sorter.arena, &sorter.slots));
        }
        // A vector grows by doubling.
        assert!(most <= 2 * BUDGET, "{most} bytes to sort");
        let mut sorted = sorter.finish().unwrap();
        for n in 0..NAMES {
            let found = sorted.next().unwrap().unwrap();
            assert_eq!(found.name, name(n).as_bytes());
            if n % 500_000 == 0
                && let SortedNames::Merge(merge) = &sorted
            {
                let of = |run: &Run| run.buffer.capacity() + run.name.capacity() + size_of::<Run>();
                let runs: usize = merge.runs.iter().map(of).sum();
                assert!(runs <= 2 * BUDGET, "{runs} bytes to merge");
            }
        }
        assert!(sorted.next().unwrap().is_none());
        assert!(matches!(sorted, SortedNames::Merge(_)));
    }
}
