//! The bytes of a group, and what is made of them.

use super::*;
use crate::journal::source::Handle;
use proptest::prelude::*;

/// A piece of information with a handle and what follows it.
fn info(kind: u8, handle: (i32, &[u8]), rest: &[u8]) -> Vec<u8> {
    let length = 4 + 8 + 8 + handle.1.len() + rest.len();
    let padded = length.next_multiple_of(4);
    let mut bytes = vec![kind, 0];
    bytes.extend((padded as u16).to_ne_bytes());
    bytes.extend([9; 8]);
    bytes.extend((handle.1.len() as u32).to_ne_bytes());
    bytes.extend(handle.0.to_ne_bytes());
    bytes.extend(handle.1);
    bytes.extend(rest);
    bytes.resize(padded, 0);
    bytes
}

fn event(mask: u64, pid: i32, infos: &[Vec<u8>]) -> Vec<u8> {
    let infos = infos.concat();
    let mut bytes = Vec::new();
    bytes.extend(((record::METADATA_BYTES + infos.len()) as u32).to_ne_bytes());
    bytes.extend([3, 0]);
    bytes.extend((record::METADATA_BYTES as u16).to_ne_bytes());
    bytes.extend(mask.to_ne_bytes());
    bytes.extend((-1i32).to_ne_bytes());
    bytes.extend(pid.to_ne_bytes());
    bytes.extend(infos);
    bytes
}

const DIR: (i32, &[u8]) = (1, b"directry");
const FILE: (i32, &[u8]) = (1, b"the file");
const NONE: (i32, &[u8]) = (0xff, b"");

fn handle((kind, bytes): (i32, &[u8])) -> Handle {
    Handle::new(kind, bytes)
}

/// All records of these bytes; `None` where they are none.
fn all(bytes: &[u8]) -> Option<Vec<Record<'_>>> {
    let mut ended = false;
    let each = records(bytes).inspect(|record| {
        assert!(!ended, "nothing follows what is no event");
        ended = record.is_none();
    });
    each.collect()
}

fn one(bytes: &[u8]) -> Record<'_> {
    let mut records = all(bytes).unwrap();
    assert_eq!(records.len(), 1);
    records.remove(0)
}

#[test]
fn records_say_where_what_and_who() {
    let in_dir = |name: &[u8]| info(2, DIR, name);
    let made = event(
        libc::FAN_CREATE,
        7,
        &[in_dir(b"name\0"), info(1, FILE, b"")],
    );
    let expected = Record {
        mask: libc::FAN_CREATE,
        pid: 7,
        directory: Some(handle(DIR)),
        name: b"name",
        target: Some(handle(FILE)),
    };
    assert_eq!(one(&made), expected);
    // Itself; without a name at all; with something unknown between.
    let itself = event(libc::FAN_ATTRIB, 0, &[in_dir(b".\0")]);
    assert_eq!(one(&itself).name, b"");
    assert_eq!(
        one(&event(0, 0, &[info(3, DIR, b"")])).directory,
        Some(handle(DIR))
    );
    let unknown = vec![200, 0, 8, 0, 1, 2, 3, 4];
    let more = event(libc::FAN_CREATE, 7, &[unknown, in_dir(b"name\0")]);
    assert_eq!(one(&more).name, b"name");
    let two = [made.clone(), itself].concat();
    assert_eq!(all(&two).unwrap().len(), 2);
    assert_eq!(all(b""), Some(Vec::new()));
    for cut in 1..made.len() {
        assert_eq!(all(&made[..cut]), None, "cut at {cut}");
    }
}

#[test]
fn a_handle_that_could_not_be_made_is_none() {
    let lost = event(
        libc::FAN_CREATE,
        0,
        &[info(2, NONE, b"name\0"), info(1, NONE, b"")],
    );
    let lost = one(&lost);
    assert_eq!((&lost.directory, &lost.target), (&None, &None));
    // Something happened, nobody knows where.
    let source = Fanotify::open(Kind::Fanotify);
    let Ok(source) = source else {
        println!("no fanotify here: {source:?}");
        return;
    };
    assert_eq!(source.told(lost), Told::Overflow);
    let full = event(libc::FAN_Q_OVERFLOW, 0, &[]);
    assert_eq!(source.told(one(&full)), Told::Overflow);
}

#[test]
fn what_no_kernel_writes_is_refused() {
    let good = event(libc::FAN_CREATE, 7, &[info(2, DIR, b"name\0")]);
    all(&good).unwrap();
    let damaged = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    for (what, bytes) in [
        ("an event shorter than its metadata", damaged(0, 8)),
        ("of another version", damaged(4, 4)),
        ("metadata shorter than it is", damaged(6, 8)),
        ("metadata longer than the event", damaged(6, 255)),
        ("information without length", damaged(26, 0)),
        ("information longer than the event", damaged(26, 255)),
        ("a handle longer than its information", damaged(36, 100)),
        ("a name without end", event(0, 0, &[info(2, DIR, b"name")])),
    ] {
        assert_eq!(all(&bytes), None, "{what}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_events_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        all(&bytes);
    }

    #[test]
    fn damaged_events_are_events_or_none(
        damage in prop::collection::vec((0..136usize, any::<u8>()), 1..4),
        cut in 0..136usize,
    ) {
        let infos = [info(2, DIR, b"name\0"), info(1, FILE, b"")];
        let one = event(libc::FAN_CREATE, 7, &infos);
        let mut bytes = [one.clone(), one].concat();
        assert_eq!(bytes.len(), 2 * (24 + 36 + 28));
        for (at, byte) in damage {
            bytes[at] = byte;
        }
        all(&bytes);
        all(&bytes[..cut]);
    }
}
