//! Writes tar archives (POSIX.1-2001 pax interchange format) with xattrs; it never reads one.
//!
//! Whatever a ustar field cannot hold exactly goes into a pax record: long or non-ASCII names, sizes
//! above 8 GiB, large ids, fractions of seconds, xattrs as `SCHILY.xattr.NAME`.

use std::io::{self, Write};

/// What one member is; the archive's own type letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One member's header.
#[derive(Debug, Clone)]
pub struct Header<'a> {
    pub member: Member,
    pub path: &'a [u8],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_ns: i64,
    /// Bytes that follow through `data`.
    pub size: u64,
    /// Target of a symlink or hard link.
    pub link: &'a [u8],
    pub major: u32,
    pub minor: u32,
    pub xattrs: Vec<(&'a [u8], &'a [u8])>,
}

/// An archive being written.
pub struct TarWriter<W: Write> {
    out: W,
    left: u64,
    padding: usize,
}

const BLOCK: usize = 512;

impl<W: Write> TarWriter<W> {
    /// An archive on this output.
    pub fn new(out: W) -> Self {
        Self {
            out,
            left: 0,
            padding: 0,
        }
    }

    /// Starts a member; exactly `size` bytes must follow through `data`.
    pub fn member(&mut self, header: &Header<'_>) -> io::Result<()> {
        self.end_member()?;
        let records = pax_records(header);
        if !records.is_empty() {
            let block = ustar(
                b'x',
                b"PaxHeaders/entry",
                0o644,
                0,
                0,
                records.len() as u64,
                0,
                b"",
                0,
                0,
            );
            self.out.write_all(&block)?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let letter = match header.member {
            Member::File => b'0',
            Member::HardLink => b'1',
            Member::Symlink => b'2',
            Member::CharDevice => b'3',
            Member::BlockDevice => b'4',
            Member::Directory => b'5',
            Member::Fifo => b'6',
        };
        let seconds = header.mtime_ns.div_euclid(1_000_000_000).max(0) as u64;
        let block = ustar(
            letter,
            header.path,
            header.mode,
            header.uid,
            header.gid,
            header.size,
            seconds,
            header.link,
            header.major,
            header.minor,
        );
        self.out.write_all(&block)?;
        self.left = header.size;
        self.padding = (BLOCK - (header.size % BLOCK as u64) as usize) % BLOCK;
        Ok(())
    }

    /// Bytes of the member begun last.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::other("more bytes than the member's header promised"))?;
        self.out.write_all(bytes)
    }

    /// Zero bytes of the member begun last.
    pub fn zeros(&mut self, mut count: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        while count > 0 {
            let step = count.min(ZEROS.len() as u64);
            self.data(&ZEROS[..step as usize])?;
            count -= step;
        }
        Ok(())
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_member()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn end_member(&mut self) -> io::Result<()> {
        if self.left != 0 {
            return Err(io::Error::other(
                "fewer bytes than the member's header promised",
            ));
        }
        let padding = std::mem::take(&mut self.padding);
        self.out.write_all(&[0; BLOCK][..padding])
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        self.out.write_all(&[0; BLOCK][..padding])
    }
}

/// The pax records that this header needs.
fn pax_records(header: &Header<'_>) -> Vec<u8> {
    let mut records = Vec::new();
    if header.path.len() > 100 || !header.path.is_ascii() {
        record(&mut records, b"path", header.path);
    }
    if header.link.len() > 100 || !header.link.is_ascii() {
        record(&mut records, b"linkpath", header.link);
    }
    if header.size > 0o77_777_777_777 {
        record(&mut records, b"size", header.size.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], header.uid), (b"gid", header.gid)] {
        if id > 0o7_777_777 {
            record(&mut records, key, id.to_string().as_bytes());
        }
    }
    if header.mtime_ns % 1_000_000_000 != 0
        || !(0..=0o77_777_777_777).contains(&(header.mtime_ns / 1_000_000_000))
    {
        let sign = if header.mtime_ns < 0 { "-" } else { "" };
        let ns = header.mtime_ns.unsigned_abs();
        let text = format!("{sign}{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
        record(&mut records, b"mtime", text.as_bytes());
    }
    // A NUL is not a name that a record could hold; everything else is exact by its length.
    for (name, value) in &header.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", *name].concat(), value);
    }
    records
}

/// Appends `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[allow(clippy::too_many_arguments)] // the fields of one fixed block, in its order
fn ustar(
    letter: u8,
    path: &[u8],
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: u64,
    link: &[u8],
    major: u32,
    minor: u32,
) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let cut = |bytes: &'_ [u8]| -> Vec<u8> {
        bytes
            .iter()
            .take(100)
            .map(|b| if b.is_ascii() { *b } else { b'_' })
            .collect()
    };
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &cut(path));
    put(100, octal(u64::from(mode), 7).as_bytes());
    put(108, octal(u64::from(uid), 7).as_bytes());
    put(116, octal(u64::from(gid), 7).as_bytes());
    put(124, octal(size, 11).as_bytes());
    put(136, octal(mtime, 11).as_bytes());
    put(148, b"        ");
    put(156, &[letter]);
    put(157, &cut(link));
    put(257, b"ustar\x0000");
    put(329, octal(u64::from(major), 7).as_bytes());
    put(337, octal(u64::from(minor), 7).as_bytes());
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A number as octal digits; what does not fit is written as the largest that does (a pax record holds it).
fn octal(value: u64, digits: usize) -> String {
    format!("{:0digits$o}", value.min((1 << (3 * digits)) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn gnu_tar_and_python_read_what_is_written() {
        let long = vec![b'n'; 300];
        let mut tar = TarWriter::new(Vec::new());
        let base = Header {
            member: Member::File,
            path: b"a",
            mode: 0o640,
            uid: 3_000_000,
            gid: 7,
            mtime_ns: 1_500_000_000,
            size: 3,
            link: b"",
            major: 0,
            minor: 0,
            xattrs: vec![(b"user.k", b"v\n=\xff")],
        };
        tar.member(&base).unwrap();
        tar.data(b"abc").unwrap();
        tar.member(&Header {
            path: &long,
            size: 1000,
            xattrs: vec![],
            mtime_ns: -1,
            ..base.clone()
        })
        .unwrap();
        tar.zeros(1000).unwrap();
        tar.member(&Header {
            member: Member::Symlink,
            path: "ü".as_bytes(),
            size: 0,
            link: b"t",
            xattrs: vec![],
            ..base.clone()
        })
        .unwrap();
        let bytes = tar.finish().unwrap();
        let script = "import sys,tarfile,io\nt=tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read()),errors='surrogateescape')\n\
             for m in t: print(m.name[:3],m.size,m.uid,m.mtime,m.linkname,m.isfile(),repr(m.pax_headers.get('SCHILY.xattr.user.k')))\n";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines[0], "a 3 3000000 1.5  True 'v\\n=\\udcff'");
        assert!(
            lines[1].starts_with("nnn 1000 3000000 -1e-09"),
            "{}",
            lines[1]
        );
        assert!(
            lines[2].starts_with("ü 0 3000000 1.5 t False"),
            "{}",
            lines[2]
        );
    }

    #[test]
    fn promised_sizes_are_kept() {
        let mut tar = TarWriter::new(Vec::new());
        let header = Header {
            member: Member::File,
            path: b"a",
            mode: 0,
            uid: 0,
            gid: 0,
            mtime_ns: 0,
            size: 3,
            link: b"",
            major: 0,
            minor: 0,
            xattrs: vec![],
        };
        tar.member(&header).unwrap();
        assert!(tar.data(b"abcd").is_err());
        assert!(tar.member(&header).is_err());
    }
}
