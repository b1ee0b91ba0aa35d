//! Bounded, disposable, and shared by nobody.

use super::*;

fn pack(byte: u8) -> PackId {
    PackId::from_bytes([byte; 32])
}

#[test]
fn memory_keeps_what_was_used_last_within_its_limit() {
    let cache = FrameCache::new(3 * (100 + OVERHEAD));
    for byte in 0..3 {
        cache.put(pack(byte), 0, vec![byte; 100].into());
    }
    assert!(cache.get(pack(0), 0).is_some());
    cache.put(pack(3), 0, vec![3; 100].into());
    assert!(
        cache.get(pack(1), 0).is_none(),
        "the least recently used goes first"
    );
    assert_eq!(cache.get(pack(0), 0).unwrap(), vec![0; 100]);
    for _ in 0..10 {
        cache.put(pack(0), 0, vec![9; 100].into());
    }
    assert!(cache.bytes() <= 3 * (100 + OVERHEAD));
    assert_eq!(cache.get(pack(0), 0).unwrap(), vec![9; 100]);
    cache.put(pack(7), 7, vec![0; 10_000].into());
    assert!(cache.get(pack(7), 7).is_none() && cache.get(pack(0), 0).is_some());
    let none = FrameCache::new(0);
    none.put(pack(1), 1, Bytes::new());
    assert!(none.get(pack(1), 1).is_none());
}

#[test]
fn disk_survives_a_restart_and_drops_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 64 * 1024;
    let cache = DiskCache::open(dir.path(), limit).unwrap().unwrap();
    for frame in 0..200 {
        cache.put(pack(1), frame, &[frame as u8; 1000]).unwrap();
        cache.put(pack(1), frame, &[0; 5]).unwrap();
        assert!(cache.bytes() <= limit);
        assert_eq!(cache.get(pack(1), frame).unwrap(), vec![frame as u8; 1000]);
    }
    assert!(cache.get(pack(1), 0).is_none() && cache.get(pack(1), 160).is_some());
    let kept: Vec<u32> = (0..200)
        .filter(|n| cache.get(pack(1), *n).is_some())
        .collect();
    drop(cache);
    let cache = DiskCache::open(dir.path(), limit).unwrap().unwrap();
    for frame in kept {
        assert_eq!(cache.get(pack(1), frame).unwrap(), vec![frame as u8; 1000]);
    }
    drop(cache);
    let smaller = DiskCache::open(dir.path(), limit / 4).unwrap().unwrap();
    assert!(smaller.bytes() <= limit / 4);
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = DiskCache::open(dir.path(), 1 << 20).unwrap().unwrap();
    assert!(DiskCache::open(dir.path(), 1 << 20).unwrap().is_none());
    drop(first);
    assert!(DiskCache::open(dir.path(), 1 << 20).unwrap().is_some());
}

#[test]
fn rubbish_in_the_directory_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 1 << 20).unwrap().unwrap();
    for frame in 0..20 {
        cache.put(pack(2), frame, &[7; 300]).unwrap();
    }
    drop(cache);
    let file = dir.path().join(name_of(0));
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(
        dir.path().join(name_of(5)),
        b"rubbish that is longer than one record header....",
    )
    .unwrap();
    std::fs::write(dir.path().join("other"), b"x").unwrap();
    // Cut anywhere, flipped anywhere: it opens, and what it gives has the right length.
    for at in (0..whole.len()).step_by(97) {
        for cut in [true, false] {
            let mut bytes = whole.clone();
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 0x80;
            }
            std::fs::write(&file, &bytes).unwrap();
            let cache = DiskCache::open(dir.path(), 1 << 20).unwrap().unwrap();
            for frame in 0..20 {
                if let Some(stored) = cache.get(pack(2), frame) {
                    assert_eq!(stored.len(), 300);
                }
            }
            cache.put(pack(3), 1, &[1; 10]).unwrap();
            assert_eq!(cache.get(pack(3), 1).unwrap(), vec![1; 10]);
            for extra in 6..40 {
                let _ = std::fs::remove_file(dir.path().join(name_of(extra)));
            }
        }
    }
}
