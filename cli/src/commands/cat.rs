//! `holdfast cat SNAPSHOT:/PATH`: one file's bytes on standard output, checked before they are written.

use super::select;
use crate::args::{Cat, Global};
use crate::connect::{self, Access};
use crate::content::Reader;
use crate::failure::{Failure, Outcome};
use crate::gaps::Gaps;
use holdfast_proto::v1;
use std::io::Write;

/// Writes it.
pub async fn run(global: &Global, options: Cat) -> Outcome<()> {
    let connected = connect::open(global, Access::Read).await?;
    let (info, id, selection) = select(&connected.channel, &options.snapshot).await?;
    if selection.path.is_root() {
        return Err(Failure::usage("name a file: SNAPSHOT:/PATH"));
    }
    let gaps = Gaps::new(&info, &selection.path);
    let mut reader = Reader::open(connected.channel.clone(), id).await?;
    let mut entries = reader.entries(selection.path.as_bytes()).await?;
    let file = match entries.next().await? {
        Some(file) => file,
        None => {
            entries.damage()?;
            return Err(gaps.missing(&selection.path));
        }
    };
    if file.entry.kind != v1::Kind::File as i32 {
        return Err(Failure::failed(format!(
            "{}: not a regular file; use `holdfast restore` or `dump`",
            selection.path
        )));
    }
    drop(entries);
    gaps.tell();
    let mut out = std::io::stdout().lock();
    let zeros = vec![0; 64 * 1024];
    reader
        .copy(&file, |piece| match piece {
            Ok(bytes) => out.write_all(bytes),
            Err(mut hole) => {
                while hole > 0 {
                    let step = hole.min(zeros.len() as u64);
                    out.write_all(&zeros[..step as usize])?;
                    hole -= step;
                }
                Ok(())
            }
        })
        .await?;
    out.flush()?;
    drop(out);
    connected.close().await;
    Ok(())
}
