//! The bytes of its queue, and how our own opens are known in it.

use super::*;
use crate::journal::source::open;
use crate::sys::{self, lease};
use proptest::prelude::*;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;

/// A file in a watched directory.
struct Probed {
    directory: tempfile::TempDir,
    source: Arc<dyn Source>,
}

impl Probed {
    fn new() -> Self {
        sys::ignore_sigio();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), b"x").unwrap();
        let root = File::open(directory.path()).unwrap();
        let (source, _) = open(root.as_fd(), &[Kind::Inotify]).unwrap();
        Self { directory, source }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("file")
    }

    fn read(&self) -> File {
        File::open(self.path()).unwrap()
    }

    /// Opens the file for writing on another thread: sent once it is open, which stays so until the
    /// returned file is dropped.
    fn write(&self) -> mpsc::Receiver<File> {
        let (sender, receiver) = mpsc::channel();
        let path = self.path();
        thread::spawn(move || sender.send(File::options().write(true).open(path).unwrap()));
        receiver
    }

    /// What was told of the file.
    fn told(&self) -> Vec<What> {
        let mut all = Vec::new();
        let drained = self.source.drain(&mut |told| match told {
            Told::Event(event) if event.name == b"file" => all.push(event.what),
            _ => {}
        });
        drained.unwrap();
        all
    }
}

/// All that is told of an open of our own that was closed under its lease, and of nobody else.
const OWN: [What; 2] = [What::OPEN, What::CLOSE_NOWRITE];

#[test]
fn a_writer_is_told_of_after_a_close_under_the_lease() {
    let probed = Probed::new();
    let file = probed.read();
    lease::take(&file).unwrap();
    let writer = probed.write();
    while !lease::is_wanted(&file) {
        thread::yield_now();
    }
    // It waits, and is not told of yet; the close lets it in.
    assert_eq!(probed.told(), [What::OPEN]);
    drop(file);
    let writer = writer.recv().unwrap();
    assert_eq!(probed.told(), [What::CLOSE_NOWRITE, What::OPEN]);
    drop(writer);
    assert_eq!(probed.told(), [What::CLOSE_WRITE]);
}

#[test]
fn a_lease_given_back_before_the_close_hides_a_writer() {
    let probed = Probed::new();
    let file = probed.read();
    lease::take(&file).unwrap();
    lease::give_back(&file).unwrap();
    let writer = probed.write().recv().unwrap();
    drop(file);
    // Two opens in a row are one event: it looks as if only we had been there.
    assert_eq!(probed.told(), OWN);
    drop(writer);
}

#[test]
fn no_lease_is_granted_while_somebody_writes() {
    let probed = Probed::new();
    let writer = probed.write().recv().unwrap();
    assert_eq!(
        sys::lease_until_closed(probed.read().into()),
        Err(Errno::AGAIN)
    );
    drop(writer);
    probed.told();
    assert_eq!(sys::lease_until_closed(probed.read().into()), Ok(()));
    assert_eq!(probed.told(), OWN);
}

#[test]
fn the_lease_is_held_over_the_close() {
    let probed = Probed::new();
    let file = probed.read();
    // The kernel closes the file, and ends the lease, with its last descriptor.
    let other = file.try_clone().unwrap();
    sys::lease_until_closed(file.into()).unwrap();
    assert!(lease::is_held(&other));
    drop(other);
    assert_eq!(probed.told(), OWN);
}

#[test]
fn no_writer_hides_in_a_race() {
    let probed = Probed::new();
    let (mut granted, mut refused) = (0, 0);
    for _ in 0..2000 {
        probed.told();
        let writer = probed.write();
        let lease = sys::lease_until_closed(probed.read().into());
        let writer = writer.recv().unwrap();
        let told = probed.told();
        match lease {
            // Whenever it came, it has the file open now, and that shows.
            Ok(()) => {
                assert_ne!(told, OWN);
                granted += 1;
            }
            Err(_) => refused += 1,
        }
        drop(writer);
    }
    println!("{granted} granted, {refused} refused");
}

#[test]
fn readers_leave_the_file_to_be_probed_again() {
    let probed = Probed::new();
    let reader = probed.read();
    probed.told();
    // One that came before and leaves meanwhile looks like us, and is harmless.
    let ours = probed.read();
    lease::take(&ours).unwrap();
    drop(reader);
    drop(ours);
    assert_eq!(probed.told(), OWN);
    // One that stays is as harmless, but nobody can know.
    let ours = probed.read();
    lease::take(&ours).unwrap();
    drop(ours);
    let reader = probed.read();
    assert_ne!(probed.told(), OWN);
    drop(reader);
}

fn event(watch: i32, mask: ReadFlags, name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(watch.to_ne_bytes());
    bytes.extend(mask.bits().to_ne_bytes());
    bytes.extend(7u32.to_ne_bytes());
    bytes.extend((name.len() as u32).to_ne_bytes());
    bytes.extend(name);
    bytes
}

/// All that is told by these bytes; `None` where they are none.
fn all(bytes: &[u8]) -> Option<Vec<Told<'_>>> {
    let mut rest = bytes;
    let mut told = Vec::new();
    while !rest.is_empty() {
        let before = rest.len();
        told.push(take(&mut rest)?);
        assert!(rest.len() < before);
    }
    Some(told)
}

#[test]
fn what_is_told_once_for_all() {
    let overflow = event(-1, ReadFlags::QUEUE_OVERFLOW, b"");
    assert_eq!(all(&overflow), Some(vec![Told::Overflow]));
    let unmount = event(3, ReadFlags::UNMOUNT, b"");
    assert_eq!(all(&unmount), Some(vec![Told::Unmounted]));
    let made = event(3, ReadFlags::CREATE | ReadFlags::ISDIR, b"name\0\0\0\0");
    let told = Told::Event(Event {
        dir: Key::Watch(3),
        name: b"name",
        what: What::CREATE,
        target: None,
        directory: true,
        own: false,
    });
    assert_eq!(
        all(&[made.clone(), overflow].concat()),
        Some(vec![told, Told::Overflow])
    );
    // A name has an end.
    assert_eq!(all(&event(3, ReadFlags::CREATE, b"name")), None);
    for cut in 1..made.len() {
        assert_eq!(all(&made[..cut]), None);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_events_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        all(&bytes);
    }

    #[test]
    fn damaged_events_are_events_or_none(at in 0..48usize, byte: u8, cut in 0..48usize) {
        let one = event(1, ReadFlags::CREATE, b"name\0\0\0\0");
        let mut bytes = [one.clone(), one].concat();
        bytes[at] = byte;
        all(&bytes);
        all(&bytes[..cut]);
    }
}
