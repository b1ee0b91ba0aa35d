use super::*;

const NOW: i64 = 1_800_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;

fn stat(age_ns: i64) -> StatKey {
    StatKey {
        size: 10,
        mtime_ns: NOW - 500 * SECOND,
        ctime_ns: NOW - age_ns,
        ino: 7,
        mode: 0o100644,
        uid: 1,
        gid: 2,
    }
}

fn evidence(age_ns: i64) -> Evidence {
    Evidence {
        before: stat(age_ns),
        after: stat(age_ns),
        read_bytes: 10,
        probed_ns: NOW,
        writers: Writers::None,
        trust: FilesystemTrust::Full,
        synced: Synced::NotDurably,
        clock_stepped: false,
    }
}

#[test]
fn a_stamp_is_clean_only_under_the_stated_conditions() {
    use FilesystemTrust::{Full, Never, WhenQuiet};
    use Writers::{MaybeSome, None};
    let ms = 1_000_000;
    let table = [
        // (writers, trust, age of ctime, clean)
        (None, Full, 20 * ms, false),
        (None, Full, 20 * ms + 1, true),
        (None, Full, -SECOND, false),
        (None, WhenQuiet, 21 * ms, true),
        (None, WhenQuiet, 19 * ms, false),
        (None, Never, 1000 * SECOND, false),
        (MaybeSome, Full, 21 * ms, false),
        (MaybeSome, Full, 3 * SECOND, false),
        (MaybeSome, Full, 3 * SECOND + 1, true),
        (MaybeSome, WhenQuiet, 1000 * SECOND, false),
        (MaybeSome, Never, 1000 * SECOND, false),
    ];
    for (writers, trust, age, clean) in table {
        let stamp = judge(&Evidence {
            writers,
            trust,
            ..evidence(age)
        });
        assert_eq!(!stamp.racy, clean, "{writers:?} {trust:?} {age}");
        assert!(!stamp.inconsistent);
    }
}

#[test]
fn a_future_mtime_or_a_stepped_clock_is_never_clean() {
    let mut future = evidence(100 * SECOND);
    future.before.mtime_ns = NOW + SECOND;
    future.after.mtime_ns = NOW + SECOND;
    assert!(judge(&future).racy);
    let stepped = judge(&Evidence {
        clock_stepped: true,
        ..evidence(100 * SECOND)
    });
    assert!(stepped.racy && !stepped.settled);
}

#[test]
fn any_difference_across_the_read_is_inconsistent() {
    let changes: [fn(&mut StatKey); 7] = [
        |stat| stat.size += 1,
        |stat| stat.mtime_ns -= 1,
        |stat| stat.ctime_ns -= 1,
        |stat| stat.ino += 1,
        |stat| stat.mode ^= 1,
        |stat| stat.uid += 1,
        |stat| stat.gid += 1,
    ];
    for change in changes {
        let mut moved = evidence(100 * SECOND);
        change(&mut moved.before);
        let stamp = judge(&moved);
        assert!(stamp.inconsistent && stamp.racy);
        assert_eq!(stamp.stat, moved.after);

        // The same seven decide at the next run.
        let stamp = judge(&evidence(100 * SECOND));
        let mut found = stamp.stat;
        change(&mut found);
        assert_eq!(
            unchanged(Some(&stamp), &found, Host::SameBoot),
            Verdict::Read(Reason::Differs)
        );
    }
    let short = Evidence {
        read_bytes: 9,
        ..evidence(100 * SECOND)
    };
    assert!(judge(&short).inconsistent);
}

#[test]
fn a_stamp_settles_by_age_or_by_a_durable_sync() {
    assert!(!judge(&evidence(60 * SECOND)).settled);
    assert!(judge(&evidence(60 * SECOND + 1)).settled);
    let synced = Evidence {
        synced: Synced::Durably,
        ..evidence(SECOND)
    };
    assert!(judge(&synced).settled);
}

#[test]
fn doubt_of_any_kind_is_a_read() {
    use Host::{BootedSince, SameBoot};
    // (racy, inconsistent, settled, host) → reason
    let table = [
        (false, false, true, SameBoot, None),
        (false, false, true, BootedSince, None),
        (false, false, false, SameBoot, None),
        (false, false, false, BootedSince, Some(Reason::Unsettled)),
        (true, false, true, SameBoot, Some(Reason::Racy)),
        (true, false, true, BootedSince, Some(Reason::Racy)),
        (true, false, false, SameBoot, Some(Reason::Racy)),
        (true, true, true, SameBoot, Some(Reason::Inconsistent)),
        (false, true, true, SameBoot, Some(Reason::Inconsistent)),
        (false, true, false, BootedSince, Some(Reason::Inconsistent)),
    ];
    for (racy, inconsistent, settled, host, reason) in table {
        let stamp = Stamp {
            stat: stat(SECOND),
            racy,
            inconsistent,
            settled,
        };
        let expected = reason.map_or(Verdict::Unchanged, Verdict::Read);
        assert_eq!(
            unchanged(Some(&stamp), &stamp.stat, host),
            expected,
            "{stamp:?} {host:?}"
        );
        assert_eq!(Stamp::decode(&stamp.encode()).unwrap(), stamp);
    }
    assert_eq!(
        unchanged(None, &stat(SECOND), SameBoot),
        Verdict::Read(Reason::NoStamp)
    );
}

#[test]
fn stamps_refuse_unknown_flags_and_lengths() {
    let bytes = judge(&evidence(SECOND)).encode();
    for length in 0..STAMP_BYTES {
        assert!(Stamp::decode(&bytes[..length]).is_err());
    }
    assert!(Stamp::decode(&[&bytes[..], &[0]].concat()).is_err());
    let mut unknown = bytes;
    unknown[0] |= 8;
    assert!(Stamp::decode(&unknown).is_err());
}
