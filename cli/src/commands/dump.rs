//! `holdfast dump SNAPSHOT[:/PATH]`: a tar archive on standard output (pax, with xattrs).

use super::select;
use crate::args::{Dump, Global};
use crate::connect::{self, Access};
use crate::content::{FullEntry, Reader};
use crate::failure::{Failure, Outcome};
use crate::gaps::Gaps;
use crate::tar::{Header, Member, TarWriter};
use bytes::Bytes;
use holdfast_format::path::{RelPath, escape};
use holdfast_proto::v1::Kind;
use std::collections::BTreeMap;
use std::io::{BufWriter, IsTerminal, Write};

/// Writes it; memory grows only with the directories that wait for their place (siblings on the way down). Sockets are left out (tar has none) and said.
pub async fn run(global: &Global, options: Dump) -> Outcome<()> {
    if std::io::stdout().is_terminal() {
        return Err(Failure::usage(
            "standard output is a terminal: redirect the archive to a file or a pipe",
        ));
    }
    let connected = connect::open(global, Access::Read).await?;
    let (info, id, selection) = select(&connected.channel, &options.snapshot).await?;
    let gaps = Gaps::new(&info, &selection.path);
    let mut reader = Reader::open(connected.channel.clone(), id).await?;
    let mut entries = reader.entries(selection.path.as_bytes()).await?;
    let mut tar = TarWriter::new(BufWriter::with_capacity(1 << 20, std::io::stdout().lock()));
    let mut found = false;
    let mut waiting: BTreeMap<Vec<u8>, FullEntry> = BTreeMap::new();
    while let Some(file) = entries.next().await? {
        found = true;
        if file.entry.kind() == Kind::Socket {
            if !global.quiet {
                eprintln!(
                    "left out: {}: a socket cannot be archived",
                    escape(&file.entry.path)
                );
            }
            continue;
        }
        // In key order a directory's contents come after all its siblings; extractors expect them right
        // behind it (else they set its time too early), so its header waits for that place.
        let key = RelPath::new(file.entry.path.to_vec())
            .map_err(|e| Failure::failed(e.to_string()))?
            .to_key();
        while waiting
            .first_key_value()
            .is_some_and(|(place, _)| *place <= key)
        {
            if let Some((_, directory)) = waiting.pop_first() {
                member(&mut reader, &mut tar, &directory, &selection.path).await?;
            }
        }
        if file.entry.kind() == Kind::Directory && !file.entry.path.is_empty() {
            let path = RelPath::new(file.entry.path.to_vec())
                .map_err(|e| Failure::failed(e.to_string()))?;
            waiting.insert(path.subtree_prefix(), file);
            continue;
        }
        member(&mut reader, &mut tar, &file, &selection.path).await?;
    }
    for directory in waiting.into_values() {
        member(&mut reader, &mut tar, &directory, &selection.path).await?;
    }
    if !found {
        entries.damage()?;
        return Err(gaps.missing(&selection.path));
    }
    tar.finish()?;
    gaps.tell();
    let damage = entries.damage();
    connected.close().await;
    damage
}

async fn member<W: Write>(
    reader: &mut Reader,
    tar: &mut TarWriter<W>,
    file: &FullEntry,
    within: &RelPath,
) -> Outcome<()> {
    let entry = &file.entry;
    // A link to a name outside the dumped subtree would point at nothing: it is archived as a file.
    let linked = !entry.hardlink.is_empty()
        && RelPath::new(entry.hardlink.to_vec()).is_ok_and(|canonical| canonical.is_within(within));
    let mut path = if entry.path.is_empty() {
        b"./".to_vec()
    } else {
        [&b"./"[..], &entry.path].concat()
    };
    if entry.kind() == Kind::Directory && !path.ends_with(b"/") {
        path.push(b'/');
    }
    let hardlink = [&b"./"[..], &entry.hardlink].concat();
    let (member, link): (Member, &[u8]) = match entry.kind() {
        _ if linked => (Member::HardLink, &hardlink),
        Kind::Directory => (Member::Directory, b""),
        Kind::Symlink => (Member::Symlink, &entry.target),
        Kind::CharDevice => (Member::CharDevice, b""),
        Kind::BlockDevice => (Member::BlockDevice, b""),
        Kind::Fifo => (Member::Fifo, b""),
        _ => (Member::File, b""),
    };
    let mut values: Vec<(Bytes, Bytes)> = Vec::new();
    for xattr in &entry.xattrs {
        let value = reader.xattr(xattr).await?;
        values.push((xattr.name.clone(), value));
    }
    tar.member(&Header {
        member,
        path: &path,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime_ns: entry.mtime_ns,
        size: if member == Member::File {
            entry.size
        } else {
            0
        },
        link,
        major: major(entry.rdev),
        minor: minor(entry.rdev),
        xattrs: values.iter().map(|(n, v)| (&n[..], &v[..])).collect(),
    })?;
    if member == Member::File {
        reader
            .copy(file, |piece| match piece {
                Ok(bytes) => tar.data(bytes),
                Err(hole) => tar.zeros(hole),
            })
            .await?;
    }
    Ok(())
}

/// The kernel's `MAJOR` of a 64-bit device number (makedev(3)).
fn major(rdev: u64) -> u32 {
    ((rdev >> 8 & 0xfff) | (rdev >> 32 & !0xfff)) as u32
}

/// The kernel's `MINOR` of a 64-bit device number (makedev(3)).
fn minor(rdev: u64) -> u32 {
    ((rdev & 0xff) | (rdev >> 12 & !0xff)) as u32
}
