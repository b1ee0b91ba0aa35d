//! Stamps: what was known of a file when it was read, and whether it may be skipped now.
//!
//! The whole rule is here and pure. `judge` decides, after a read, what the stamp is worth; `unchanged`
//! decides, at the next run, whether the file must be read. Any doubt is a read. Stat values are compared
//! for equality only, never for order; the one comparison with a clock is at the time of the read.

use crate::coding::Reader;
use crate::error::FormatError;

/// A stamp's change times must be older than this before the probe, in nanoseconds, for a file that
/// nobody had open for writing: more than one tick of the coarsest kernel clock (10 ms at 100 Hz).
pub const QUIET_MARGIN_NS: i64 = 20_000_000;
/// The same for a file that somebody had open for writing: longer than a write in flight should last.
pub const BUSY_MARGIN_NS: i64 = 3_000_000_000;
/// A stamp whose ctime is older than this at the read is settled: the kernel has written its data back.
pub const SETTLED_AGE_NS: i64 = 60_000_000_000;

/// The seven values that must all be equal for a read to be skipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct StatKey {
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Change time, nanoseconds since the epoch.
    pub ctime_ns: i64,
    /// Inode number.
    pub ino: u64,
    /// Mode as stat gives it, with the type bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What an index keeps of a file it has read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Stamp {
    /// Stat after the read.
    pub stat: StatKey,
    /// A later write may not show in the stat values: never skip on equality.
    pub racy: bool,
    /// The file changed while it was read, even at the last try.
    pub inconsistent: bool,
    /// Data and times have reached the disk together: a power cut does not part them.
    pub settled: bool,
}

/// Length of an encoded stamp, in bytes.
pub const STAMP_BYTES: usize = 1 + 8 * 4 + 4 * 3;

const RACY: u8 = 1;
const INCONSISTENT: u8 = 2;
const SETTLED: u8 = 4;

impl Stamp {
    /// Its bytes, for an index.
    pub fn encode(&self) -> [u8; STAMP_BYTES] {
        let mut flags = 0;
        for (set, bit) in [
            (self.racy, RACY),
            (self.inconsistent, INCONSISTENT),
            (self.settled, SETTLED),
        ] {
            flags |= if set { bit } else { 0 };
        }
        let mut out = [0; STAMP_BYTES];
        let stat = &self.stat;
        out[0] = flags;
        out[1..9].copy_from_slice(&stat.size.to_le_bytes());
        out[9..17].copy_from_slice(&stat.mtime_ns.to_le_bytes());
        out[17..25].copy_from_slice(&stat.ctime_ns.to_le_bytes());
        out[25..33].copy_from_slice(&stat.ino.to_le_bytes());
        out[33..37].copy_from_slice(&stat.mode.to_le_bytes());
        out[37..41].copy_from_slice(&stat.uid.to_le_bytes());
        out[41..45].copy_from_slice(&stat.gid.to_le_bytes());
        out
    }

    /// The stamp with these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("stamp", bytes);
        let flags = reader.u8()?;
        if flags & !(RACY | INCONSISTENT | SETTLED) != 0 {
            return Err(reader.wrong("unknown flag"));
        }
        let stamp = Self {
            stat: StatKey {
                size: reader.u64()?,
                mtime_ns: reader.i64()?,
                ctime_ns: reader.i64()?,
                ino: reader.u64()?,
                mode: reader.u32()?,
                uid: reader.u32()?,
                gid: reader.u32()?,
            },
            racy: flags & RACY != 0,
            inconsistent: flags & INCONSISTENT != 0,
            settled: flags & SETTLED != 0,
        };
        reader.finish()?;
        Ok(stamp)
    }
}

/// What the writer probe said before the read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Writers {
    /// Nobody had the file open or mapped for writing.
    None,
    /// Somebody had, or the probe could not tell.
    MaybeSome,
}

/// What the filesystem's stat values can be trusted with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FilesystemTrust {
    /// ext4, xfs, btrfs: a write that is complete shows in ctime.
    Full,
    /// A local filesystem that is not one of those: trusted for quiet files only.
    WhenQuiet,
    /// Remote, or tmpfs without leases: always read.
    Never,
}

/// How the file was synced before it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Synced {
    /// Not at all, or by `sync_file_range`, which waits for data only: that never settles.
    NotDurably,
    /// By fdatasync or syncfs.
    Durably,
}

/// What is known when a file has been read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// Stat before the read.
    pub before: StatKey,
    /// Stat after the read.
    pub after: StatKey,
    /// Bytes that the read gave.
    pub read_bytes: u64,
    /// Realtime clock just before the writer probe, nanoseconds since the epoch.
    pub probed_ns: i64,
    /// Answer of the writer probe.
    pub writers: Writers,
    /// Trust in the filesystem.
    pub trust: FilesystemTrust,
    /// Sync before the read.
    pub synced: Synced,
    /// The realtime clock was stepped by more than 10 ms while the file was read.
    pub clock_stepped: bool,
}

/// What the stamp of a read is worth. `inconsistent` asks for another try.
pub fn judge(evidence: &Evidence) -> Stamp {
    let stat = evidence.after;
    let inconsistent = evidence.before != stat || evidence.read_bytes != stat.size;
    let newest = stat.ctime_ns.max(stat.mtime_ns);
    let older_than = |margin: i64| newest < evidence.probed_ns.saturating_sub(margin);
    let clean = !inconsistent
        && !evidence.clock_stepped
        && match (evidence.trust, evidence.writers) {
            (FilesystemTrust::Never, _) => false,
            (_, Writers::None) => older_than(QUIET_MARGIN_NS),
            (FilesystemTrust::Full, Writers::MaybeSome) => older_than(BUSY_MARGIN_NS),
            (FilesystemTrust::WhenQuiet, Writers::MaybeSome) => false,
        };
    let old = stat.ctime_ns < evidence.probed_ns.saturating_sub(SETTLED_AGE_NS);
    Stamp {
        stat,
        racy: !clean,
        inconsistent,
        settled: evidence.synced == Synced::Durably || (old && !evidence.clock_stepped),
    }
}

/// Whether this run stands where the run that made the stamp stood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Host {
    /// Same node, same boot of its kernel.
    SameBoot,
    /// Another node, or booted since: data that had not settled may be older than its times.
    BootedSince,
}

/// What to do with a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Verdict {
    /// Its bytes are those the stamp was made of.
    Unchanged,
    /// It must be read, for this reason.
    Read(Reason),
}

/// Why a file must be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Reason {
    /// No stamp is known.
    NoStamp,
    /// One of the seven values differs.
    Differs,
    /// The stamp is racy.
    Racy,
    /// The stamp is of a read that saw the file move.
    Inconsistent,
    /// The stamp had not settled before the machine booted again.
    Unsettled,
}

/// Whether a file that looks like `found` may be skipped, given its stamp.
pub fn unchanged(stamp: Option<&Stamp>, found: &StatKey, host: Host) -> Verdict {
    let reason = match stamp {
        None => Reason::NoStamp,
        Some(stamp) if stamp.stat != *found => Reason::Differs,
        Some(stamp) if stamp.inconsistent => Reason::Inconsistent,
        Some(stamp) if stamp.racy => Reason::Racy,
        Some(stamp) if !stamp.settled && host == Host::BootedSince => Reason::Unsettled,
        Some(_) => return Verdict::Unchanged,
    };
    Verdict::Read(reason)
}

#[cfg(test)]
mod tests;
