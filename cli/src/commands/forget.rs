//! `holdfast forget SNAPSHOT`: removes a snapshot's record. Space comes back with prune.

use super::{admin, select};
use crate::args::{Forget, Global};
use crate::connect::{self, Access, Connected};
use crate::failure::{Failure, Outcome};
use crate::output::time;
use holdfast_proto::v1;

/// Forgets exactly one snapshot.
pub async fn run(global: &Global, options: Forget) -> Outcome<()> {
    let connected = connect::open(global, Access::Write).await?;
    let forgotten = forget(global, options, &connected).await;
    // A claim that is not given back keeps others out.
    connected.close().await;
    forgotten
}

async fn forget(global: &Global, options: Forget, connected: &Connected) -> Outcome<()> {
    let (info, id, selection) = select(&connected.channel, &options.snapshot).await?;
    if !selection.path.is_root() {
        return Err(Failure::usage(
            "a snapshot is forgotten whole: leave the path out",
        ));
    }
    admin(&connected.channel)
        .forget(v1::ForgetRequest {
            snapshot: id.as_bytes().to_vec().into(),
        })
        .await?;
    if !global.quiet {
        let name = info.facts.unwrap_or_default().name;
        println!(
            "forgot {} of {name}, {}",
            id.short(),
            time(info.received_ns)
        );
    }
    Ok(())
}
