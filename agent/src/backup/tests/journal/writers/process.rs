//! Writers who never stop until they are told to, in a process of their own; each word that they write says of
//! which file, block and place it is, and how often that file had been written.

use crate::sys::mapping::Mapping;
use rustix::fs::{CWD, RenameFlags};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::RwLock;
use std::time::Duration;

pub const BLOCK: usize = 4096;
/// Words of a block.
pub const WORDS: usize = BLOCK / 8;
/// Files of each way.
const FILES: u8 = 3;
/// An appended file is put aside when it has so many blocks.
const APPENDED: u64 = 32;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// One block by write(2), opened and closed around it.
    Write,
    /// One block by pwrite(2), opened once for all.
    Pwrite,
    /// The first block, by stores into a mapping made once for all.
    Mapped,
    /// All blocks by one long pwrite(2), several times over.
    Long,
    /// Written aside and renamed.
    Replaced,
    /// One block after the other, until it is put aside.
    Appended,
}

impl Way {
    pub const ALL: [Self; 6] = [
        Self::Write,
        Self::Pwrite,
        Self::Mapped,
        Self::Long,
        Self::Replaced,
        Self::Appended,
    ];

    /// Whether bytes that are there are written over.
    pub fn in_place(self) -> bool {
        !matches!(self, Self::Replaced | Self::Appended)
    }

    fn blocks(self) -> u64 {
        match self {
            Self::Long | Self::Pwrite => 200,
            Self::Appended => 1,
            _ => 8,
        }
    }

    /// Which file and which block it writes for the so manieth time, of those that write one after the other.
    fn target(self, generation: u32) -> (usize, u64) {
        let (files, number) = (u64::from(FILES), u64::from(generation));
        ((number % files) as usize, number / files % self.blocks())
    }

    /// With which generation each block was written before, and now, when the newest in the file is this.
    pub fn at(self, newest: u32, blocks: usize) -> impl Iterator<Item = [u32; 2]> {
        let (_, newest_block) = self.target(newest);
        let (blocks, files) = (blocks as i64, i64::from(FILES));
        (0..blocks).map(move |block| {
            let now = i64::from(newest) - (newest_block as i64 - block).rem_euclid(blocks) * files;
            [now - blocks * files, now].map(|number| match number < 2 {
                true => 1,
                false => number as u32,
            })
        })
    }

    fn name(self, file: u8) -> String {
        format!("{self:?}/{file}").to_lowercase()
    }
}

/// Every file that is there all along, by its name.
pub fn files() -> impl Iterator<Item = (Way, String)> {
    let all = Way::ALL.into_iter();
    all.flat_map(|way| (0..FILES).map(move |file| (way, way.name(file))))
}

/// How often the file had been written when each word of these bytes was; an error: bytes that nobody wrote there.
/// `name` may be one beside the file's own, with an ending.
pub fn generations(name: &str, bytes: &[u8]) -> Result<Vec<u32>, String> {
    let own = name.split('.').next().unwrap();
    let number = 1 + files().position(|(_, name)| name == own).unwrap() as u64;
    if !bytes.len().is_multiple_of(8) {
        return Err(format!("{name}: {} bytes", bytes.len()));
    }
    let words = bytes.chunks_exact(8).enumerate().map(|(at, bytes)| {
        let word = u64::from_le_bytes(bytes.try_into().unwrap());
        match word & 0xffff_ffff == number << 24 | at as u64 {
            true => Ok((word >> 32) as u32),
            false => Err(format!("{name}: word {at} is {word:016x}")),
        }
    });
    words.collect()
}

/// One block, with what is told of it in each word.
fn block(file: u64, block: u64, generation: u32) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    for (at, word) in bytes.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&word_of(file, block, at, generation).to_le_bytes());
    }
    bytes
}

fn word_of(file: u64, block: u64, at: usize, generation: u32) -> u64 {
    u64::from(generation) << 32 | file << 24 | (block * WORDS as u64 + at as u64)
}

/// The files of one way, and who writes them.
struct Writer {
    way: Way,
    root: PathBuf,
    generation: u32,
    files: Vec<Written>,
}

struct Written {
    number: u64,
    path: PathBuf,
    /// Of an appended one, with which it is written until it is put aside.
    generation: u32,
    blocks: u64,
    file: File,
    mapping: Option<Mapping>,
}

impl Writer {
    fn new(root: &Path, way: Way) -> Self {
        let first = 1 + files().position(|(other, _)| other == way).unwrap() as u64;
        fs::create_dir_all(root.join(way.name(0)).parent().unwrap()).unwrap();
        let make = |file: u8| {
            let (path, number) = (root.join(way.name(file)), first + u64::from(file));
            let bytes: Vec<u8> = (0..way.blocks())
                .flat_map(|n| block(number, n, 1))
                .collect();
            fs::write(&path, bytes).unwrap();
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).open(&path).unwrap();
            Written {
                number,
                path,
                generation: 1,
                blocks: way.blocks(),
                mapping: (way == Way::Mapped).then(|| Mapping::of(&file)),
                file,
            }
        };
        Self {
            way,
            root: root.to_owned(),
            generation: 1,
            files: (0..FILES).map(make).collect(),
        }
    }

    /// Writes once.
    fn act(&mut self) {
        self.generation += 1;
        let generation = self.generation;
        let (at, place) = self.way.target(generation);
        let written = &mut self.files[at];
        let (number, path) = (written.number, &written.path);
        let all = |blocks: u64| -> Vec<u8> {
            (0..blocks)
                .flat_map(|n| block(number, n, generation))
                .collect()
        };
        match self.way {
            Way::Write => {
                let mut file = OpenOptions::new().write(true).open(path).unwrap();
                file.seek(SeekFrom::Start(place * BLOCK as u64)).unwrap();
                file.write_all(&block(number, place, generation)).unwrap();
            }
            Way::Pwrite => {
                let bytes = block(number, place, generation);
                let offset = place * BLOCK as u64;
                written.file.write_all_at(&bytes, offset).unwrap();
            }
            Way::Mapped => {
                let mapping = written.mapping.as_ref().unwrap();
                for at in 0..WORDS {
                    mapping.store_word(at, word_of(number, 0, at, generation));
                }
            }
            Way::Long => {
                // Until a reader has given up waiting for a quiet moment.
                let bytes = all(self.way.blocks());
                for _ in 0..200 {
                    written.file.write_all_at(&bytes, 0).unwrap();
                }
            }
            Way::Replaced => {
                let aside = path.with_extension("new");
                fs::write(&aside, all(self.way.blocks())).unwrap();
                fs::rename(aside, path).unwrap();
            }
            Way::Appended if written.blocks == APPENDED => {
                // The name is there all along.
                let aside = self.root.join("appended-aside");
                fs::write(&aside, all(1)).unwrap();
                rustix::fs::renameat_with(CWD, &aside, CWD, path, RenameFlags::EXCHANGE).unwrap();
                fs::rename(aside, path.with_extension("old")).unwrap();
                (written.blocks, written.generation) = (1, generation);
            }
            Way::Appended => {
                let bytes = block(number, written.blocks, written.generation);
                let mut file = OpenOptions::new().append(true).open(path).unwrap();
                file.write_all(&bytes).unwrap();
                written.blocks += 1;
            }
        }
    }
}

/// The writers, who begin and end when they are told to.
pub struct Writers {
    child: Child,
    answers: BufReader<ChildStdout>,
}

const ROOT: &str = "HOLDFAST_WRITERS_ROOT";
const PROMPT: &str = "now: ";

impl Writers {
    /// Quiet writers, whose files are there.
    pub fn start(root: &Path) -> Self {
        let name = concat!(module_path!(), "::are_writers");
        let name = name.split_once("::").unwrap().1;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored", "--nocapture"])
            .env(ROOT, root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut writers = Self { child, answers };
        writers.wait_until("quiet");
        writers
    }

    /// Lets them write from now on.
    pub fn write(&mut self) {
        self.tell("writing");
    }

    /// Nothing is written any more, though files stay open and mapped.
    pub fn quiet(&mut self) {
        self.tell("quiet");
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
        self.wait_until(what);
    }

    fn wait_until(&mut self, what: &str) {
        loop {
            let mut line = String::new();
            let read = self.answers.read_line(&mut line).unwrap();
            assert!(read > 0, "the writers died");
            if let Some((_, now)) = line.split_once(PROMPT) {
                assert_eq!(now.trim_end(), what);
                return;
            }
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: what `Writers` starts.
#[test]
#[ignore = "a process of other tests"]
fn are_writers() {
    let Some(root) = std::env::var_os(ROOT) else {
        return;
    };
    let root = Path::new(&root);
    // Whoever writes holds it for reading: between two writes all can be stopped.
    let gate = RwLock::new(());
    let ready = std::sync::Barrier::new(Way::ALL.len() + 1);
    std::thread::scope(|scope| {
        let mut closed = Some(gate.write().unwrap());
        let writers = Way::ALL.map(|way| {
            let (gate, ready) = (&gate, &ready);
            scope.spawn(move || {
                let mut writer = Writer::new(root, way);
                ready.wait();
                loop {
                    {
                        let _open = gate.read().unwrap();
                        writer.act();
                    }
                    // Others have the processors too, but for what is to last longer than a read.
                    if way != Way::Long {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                }
            })
        });
        ready.wait();
        println!("{PROMPT}quiet");
        for line in std::io::stdin().lines() {
            let line = line.unwrap();
            if writers.iter().any(|writer| writer.is_finished()) {
                break;
            }
            closed =
                (line == "quiet").then(|| closed.take().unwrap_or_else(|| gate.write().unwrap()));
            println!("{PROMPT}{line}");
        }
        // One has failed, or nobody is there any more who could tell them to stop.
        std::process::exit(0);
    });
}
