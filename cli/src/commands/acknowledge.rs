//! `holdfast acknowledge SNAPSHOT`: takes a suspicious snapshot as it is, so that older ones may go again.

use super::{admin, select};
use crate::args::{Acknowledge, Format, Global};
use crate::connect::{self, Access, Connected};
use crate::failure::{Failure, Outcome};
use crate::output::{self, time};
use crate::suspicion;
use holdfast_proto::v1;

/// Acknowledges exactly one snapshot; one that was acknowledged before stays so.
pub async fn run(global: &Global, options: Acknowledge) -> Outcome<()> {
    let connected = connect::open(global, Access::Write).await?;
    let done = acknowledge(global, options, &connected).await;
    // A claim that is not given back keeps others out.
    connected.close().await;
    done
}

async fn acknowledge(global: &Global, options: Acknowledge, connected: &Connected) -> Outcome<()> {
    let (_, id, selection) = select(&connected.channel, &options.snapshot).await?;
    if !selection.path.is_root() {
        return Err(Failure::usage(
            "a snapshot is acknowledged whole: leave the path out",
        ));
    }
    let request = v1::AcknowledgeRequest {
        snapshot: id.as_bytes().to_vec().into(),
        actor: actor(),
    };
    let reply = admin(&connected.channel).acknowledge(request).await?;
    let reply = reply.into_inner();
    let info = reply.snapshot.unwrap_or_default();
    if matches!(global.output, Format::Json | Format::Yaml) {
        return output::document(global.output, &output::snapshot(&info));
    }
    if !global.quiet {
        let name = info.facts.clone().unwrap_or_default().name;
        let (id, made) = (id.short(), time(info.received_ns));
        let who = suspicion::by_whom(&info);
        match reply.already {
            true => println!("{id} of {name}, {made}, was acknowledged {who}"),
            false => println!(
                "acknowledged {id} of {name}, {made}: {}",
                suspicion::what(&info)
            ),
        }
    }
    Ok(())
}

/// Who types, for those who ask later.
fn actor() -> String {
    let user = ["USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    match user {
        Some(user) => format!("{user}@{}", connect::node()),
        None => connect::node(),
    }
}
