//! What this process may and should restore of an entry's metadata. Pure decisions, and the counts of
//! what was passed over.
//!
//! Without `special`: no setuid or setgid bit on a file, no `security.capability`, no device. A setgid
//! bit on a directory only steers groups and is always restored. `trusted.*` needs `special` too. The
//! labels of SELinux, AppArmor, Smack and IMA belong to the system that restores, never to the snapshot;
//! what else is in `security.*` is not restored, and counted.

use super::meta::Meta;
use holdfast_format::entry::Kind;
use std::sync::atomic::{AtomicU64, Ordering};

/// A kind of thing that was not restored, for lack of a right or of permission to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Skip {
    /// Owner or group.
    Owners = 0,
    /// Device nodes.
    Devices = 1,
    /// `security.capability`.
    Capabilities = 2,
    /// setuid and setgid bits of files.
    SetId = 3,
    /// Other extended attributes, ACLs included.
    Xattrs = 4,
}

impl Skip {
    /// All kinds.
    pub const ALL: [Skip; 5] = [
        Skip::Owners,
        Skip::Devices,
        Skip::Capabilities,
        Skip::SetId,
        Skip::Xattrs,
    ];

    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Skip::Owners => "owner or group not restored (not permitted)",
            Skip::Devices => "device not restored (needs --special and the right to make devices)",
            Skip::Capabilities => "file capability not restored (needs --special and the right)",
            Skip::SetId => "setuid or setgid bit not restored (needs --special and the owner)",
            Skip::Xattrs => {
                "extended attribute not restored (not permitted or not supported; trusted.* needs --special)"
            }
        }
    }
}

/// Counts by kind.
#[derive(Debug, Default)]
pub struct Skipped([AtomicU64; 5]);

impl Skipped {
    /// One more.
    pub fn add(&self, kind: Skip) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The kinds that occurred, with counts.
    pub fn counts(&self) -> Vec<(Skip, u64)> {
        Skip::ALL
            .into_iter()
            .map(|kind| (kind, self.0[kind as usize].load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// What is done about an extended attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrRule {
    /// Set, replaced and removed like the snapshot says.
    Restore,
    /// Left as it is, and counted.
    NotAllowed(Skip),
    /// Left as it is.
    Never,
}

/// The rights of this process and the choices of the caller.
#[derive(Debug, Clone)]
pub struct Policy {
    special: bool,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    chown: bool,
    umask: u32,
}

impl Policy {
    /// Of this process.
    pub fn of_process(special: bool) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim).unwrap_or_default()
        };
        let capabilities = u64::from_str_radix(field("CapEff:"), 16).unwrap_or(0);
        let groups = rustix::process::getgroups().unwrap_or_default();
        Self {
            special,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: groups.into_iter().map(|group| group.as_raw()).collect(),
            chown: capabilities & 1 != 0, // CAP_CHOWN
            // Without the line (no /proc) every bit is taken to be masked, and set explicitly.
            umask: u32::from_str_radix(field("Umask:"), 8).unwrap_or(0o777),
        }
    }

    /// Owner and group of what this process makes.
    pub fn created_as(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// Whether directories without write permission stop this process.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Whether setting this owner is worth trying.
    pub fn may_chown(&self, have: Option<(u32, u32)>, want: (u32, u32)) -> bool {
        if self.chown {
            return true;
        }
        // Without the capability: only our own files, and only to a group we are in.
        have.is_none_or(|have| have.0 == self.uid)
            && want.0 == self.uid
            && (want.1 == self.gid || self.groups.contains(&want.1))
    }

    /// Permission bits to set; `owned`: the inode has the owner that the snapshot says.
    pub fn mode(&self, want: &Meta, owned: bool, skipped: Option<&Skipped>) -> u32 {
        let special = want.mode & 0o6000;
        if want.kind == Kind::Directory || special == 0 || (self.special && owned) {
            return want.mode;
        }
        if let Some(skipped) = skipped {
            skipped.add(Skip::SetId);
        }
        want.mode & !0o6000
    }

    /// Mode to create a file with so that nothing has to be changed after, where that is possible.
    pub fn creation_mode(&self, want: &Meta) -> u32 {
        if (want.uid, want.gid) == self.created_as() {
            want.mode & 0o777 & !self.umask
        } else {
            // The owner comes first: until then nobody else may look.
            self.private_mode()
        }
    }

    /// The mode that something created with 0600 has.
    pub fn private_mode(&self) -> u32 {
        0o600 & !self.umask
    }

    /// Whether this kind may be made at all.
    pub fn may_make(&self, kind: Kind) -> bool {
        self.special || !matches!(kind, Kind::CharDevice | Kind::BlockDevice)
    }

    /// What is done about the attribute.
    pub fn xattr(&self, name: &[u8]) -> XattrRule {
        match name {
            b"security.capability" if self.special => XattrRule::Restore,
            b"security.capability" => XattrRule::NotAllowed(Skip::Capabilities),
            b"security.selinux" | b"security.ima" | b"security.evm" | b"security.apparmor" => {
                XattrRule::Never
            }
            _ if name.starts_with(b"security.SMACK64") => XattrRule::Never,
            _ if name.starts_with(b"trusted.") && self.special => XattrRule::Restore,
            _ if name.starts_with(b"trusted.") || name.starts_with(b"security.") => {
                XattrRule::NotAllowed(Skip::Xattrs)
            }
            _ => XattrRule::Restore,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn policy(special: bool, chown: bool) -> Policy {
        Policy {
            special,
            uid: 1000,
            gid: 1000,
            groups: vec![27],
            chown,
            umask: 0o022,
        }
    }

    fn meta(kind: Kind, mode: u32) -> Meta {
        Meta {
            kind,
            mode,
            uid: 1000,
            gid: 1000,
            mtime_ns: 0,
            size: 0,
            rdev: 0,
            target: Bytes::new(),
            xattrs: Vec::new(),
        }
    }

    #[test]
    fn setid_bits_need_special_and_the_owner() {
        let file = meta(Kind::File, 0o6755);
        let skipped = Skipped::default();
        assert_eq!(policy(false, true).mode(&file, true, Some(&skipped)), 0o755);
        assert_eq!(policy(true, true).mode(&file, false, Some(&skipped)), 0o755);
        assert_eq!(skipped.counts(), [(Skip::SetId, 2)]);
        assert_eq!(policy(true, true).mode(&file, true, None), 0o6755);
        let directory = meta(Kind::Directory, 0o2775);
        assert_eq!(policy(false, false).mode(&directory, false, None), 0o2775);
        assert_eq!(
            policy(false, true).mode(&meta(Kind::File, 0o1644), true, None),
            0o1644
        );
    }

    #[test]
    fn labels_are_never_restored_and_capabilities_only_with_special() {
        for name in [
            "security.selinux",
            "security.ima",
            "security.evm",
            "security.SMACK64EXEC",
        ] {
            assert_eq!(policy(true, true).xattr(name.as_bytes()), XattrRule::Never);
        }
        let (opaque, left_out) = (
            b"trusted.overlay.opaque",
            XattrRule::NotAllowed(Skip::Xattrs),
        );
        assert_eq!(policy(true, true).xattr(opaque), XattrRule::Restore);
        assert_eq!(policy(false, true).xattr(opaque), left_out);
        assert_eq!(policy(true, true).xattr(b"security.other"), left_out);
        let capability = b"security.capability";
        assert_eq!(policy(true, true).xattr(capability), XattrRule::Restore);
        assert_eq!(
            policy(false, true).xattr(capability),
            XattrRule::NotAllowed(Skip::Capabilities)
        );
        for name in [
            "user.a",
            "system.posix_acl_access",
            "system.posix_acl_default",
        ] {
            assert_eq!(
                policy(false, false).xattr(name.as_bytes()),
                XattrRule::Restore
            );
        }
    }

    #[test]
    fn owners_are_tried_only_where_they_can_be_set() {
        assert!(policy(false, true).may_chown(Some((0, 0)), (5, 5)));
        let user = policy(false, false);
        assert!(!user.may_chown(None, (0, 0)));
        assert!(user.may_chown(None, (1000, 27)));
        assert!(!user.may_chown(Some((0, 27)), (1000, 27)));
        assert_eq!(user.creation_mode(&meta(Kind::File, 0o666)), 0o644);
        assert_eq!(
            user.creation_mode(&Meta {
                uid: 0,
                ..meta(Kind::File, 0o666)
            }),
            0o600
        );
    }
}
