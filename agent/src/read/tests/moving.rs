//! Files that change, vanish, are replaced or cannot be read while they are read.

use super::*;

#[test]
fn one_change_while_reading_is_read_again() {
    let directory = disk();
    let path = directory.path().join("f");
    std::fs::write(&path, noise(100_000)).unwrap();
    let mut kept = Kept {
        trap: Some(Box::new(|restarts| {
            if restarts == 0 {
                let mut file = OpenOptions::new().append(true).open(&path).unwrap();
                file.write_all(b"more").unwrap();
            }
        })),
        ..Kept::default()
    };
    let dir = top(directory.path());
    let outcome = reader(FsClass::Trusted)
        .read_file(&dir, b"f", &mut kept)
        .unwrap();
    assert!(outcome.problem.is_none() && !outcome.stamp.inconsistent);
    assert_eq!((kept.restarts, kept.bytes.len()), (1, 100_004));
    assert_eq!(kept.bytes, std::fs::read(&path).unwrap());
}

#[test]
fn what_takes_its_place_or_its_name_away_while_it_is_read_is_noticed() {
    let directory = disk();
    let path = directory.path().join("f");
    let dir = top(directory.path());
    for replaced in [true, false] {
        std::fs::write(&path, noise(100_000)).unwrap();
        std::fs::write(directory.path().join("other"), vec![7; 50_000]).unwrap();
        age();
        let mut kept = Kept {
            trap: Some(Box::new(|restarts| match (restarts, replaced) {
                (0, true) => std::fs::rename(directory.path().join("other"), &path).unwrap(),
                (0, false) => std::fs::remove_file(&path).unwrap(),
                _ => {}
            })),
            ..Kept::default()
        };
        let outcome = reader(FsClass::Trusted).read_file(&dir, b"f", &mut kept);
        if replaced {
            let outcome = outcome.unwrap();
            assert!(outcome.problem.is_none() && !outcome.stamp.inconsistent);
            assert_eq!(
                (kept.restarts, kept.bytes.as_slice()),
                (1, &[7; 50_000][..])
            );
        } else {
            assert!(matches!(outcome, Err(ReadError::Vanished)), "{outcome:?}");
        }
    }
}

/// A bad block in the middle: what came before it is not taken for the file.
#[test]
fn a_read_that_fails_in_the_middle_is_a_problem_of_the_file() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = disk();
    let (image, mounted) = (directory.path().join("image"), directory.path().join("m"));
    std::fs::create_dir(&mounted).unwrap();
    File::create(&image).unwrap().set_len(128 << 20).unwrap();
    let run = |program: &str, args: &[&std::ffi::OsStr]| {
        let done = std::process::Command::new(program).args(args).output();
        done.is_ok_and(|done| done.status.success())
    };
    let mount = || {
        run(
            "mount",
            &[
                "-o".as_ref(),
                "loop".as_ref(),
                image.as_ref(),
                mounted.as_ref(),
            ],
        )
    };
    let unmount = || assert!(run("umount", &[mounted.as_ref()]));
    // It checks the sums of what it reads: a block that was changed behind its back is EIO.
    if !run("mkfs.btrfs", &["-q".as_ref(), image.as_ref()]) || !mount() {
        eprintln!("no btrfs here: not tested");
        return;
    }
    let data = noise(3_000_000);
    std::fs::write(mounted.join("bad"), &data).unwrap();
    std::fs::write(mounted.join("good"), &data[1..]).unwrap();
    unmount();
    let mut bytes = std::fs::read(&image).unwrap();
    let marker = &data[1_500_000 & !4095..][..4096];
    let places = bytes.chunks_exact(4096).position(|block| block == marker);
    let at = places.expect("the file's block in the image") * 4096;
    bytes[at] ^= 1;
    std::fs::write(&image, bytes).unwrap();
    assert!(mount());
    let checked = std::panic::catch_unwind(|| {
        let dir = top(&mounted);
        let mut reader = reader(FsClass::Trusted);
        let mut kept = Kept::default();
        match reader.read_file(&dir, b"bad", &mut kept) {
            Err(ReadError::Item(problem)) => {
                assert_eq!((problem.reason, problem.errno), ("ReadFailed", libc::EIO));
                assert!(problem.detail.contains("at byte"), "{}", problem.detail);
            }
            other => panic!("{other:?}"),
        }
        // Nothing of it sticks to the next file.
        let mut kept = Kept::default();
        reader.read_file(&dir, b"good", &mut kept).unwrap();
        assert!(kept.bytes == data[1..]);
    });
    unmount();
    checked.unwrap();
}

#[test]
fn growing_and_shrinking_without_end_is_stored_as_inconsistent() {
    let directory = disk();
    let path = directory.path().join("f");
    let dir = top(directory.path());
    for grow in [true, false] {
        std::fs::write(&path, noise(4_000_000)).unwrap();
        let change = |_| {
            let mut file = OpenOptions::new().write(true).open(&path).unwrap();
            let length = file.metadata().unwrap().len();
            if grow {
                file.seek(std::io::SeekFrom::End(0)).unwrap();
                file.write_all(&[1; 1000]).unwrap();
            } else {
                file.set_len(length - 900_000).unwrap();
            }
        };
        let mut kept = Kept {
            trap: Some(Box::new(change)),
            ..Kept::default()
        };
        let outcome = reader(FsClass::Trusted)
            .read_file(&dir, b"f", &mut kept)
            .unwrap();
        assert!(outcome.stamp.inconsistent && outcome.stamp.racy);
        assert_eq!(outcome.problem.unwrap().reason, "ChangedWhileRead");
        assert_eq!(kept.restarts as u32, ATTEMPTS - 1);
        assert_eq!(kept.bytes.len() as u64, outcome.size);
        // Never more than there was at the first stat; what was read before the file was cut short
        // stays.
        let expected = if grow {
            4_000_000 + 1000 * u64::from(ATTEMPTS - 1)
        } else {
            BUFFER_BYTES as u64
        };
        assert_eq!(outcome.size, expected);
    }
}

#[test]
fn a_file_that_somebody_appends_to_faster_than_it_is_read_ends() {
    let directory = disk();
    let path = directory.path().join("f");
    std::fs::write(&path, noise(BUFFER_BYTES + 1)).unwrap();
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    // More than a piece takes away; each attempt finds a few times as much as the one before.
    let block = noise(65_536);
    let mut kept = Kept {
        trap: Some(Box::new(|_| file.write_all(&block).unwrap())),
        each_piece: true,
        ..Kept::default()
    };
    let dir = top(directory.path());
    let outcome = reader(FsClass::Trusted)
        .read_file(&dir, b"f", &mut kept)
        .unwrap();
    assert!(outcome.stamp.inconsistent);
    assert_eq!(kept.restarts as u32, ATTEMPTS - 1);
    assert!(outcome.size < std::fs::metadata(&path).unwrap().len());
}
