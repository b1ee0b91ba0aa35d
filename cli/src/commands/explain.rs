//! `holdfast explain VOLUME`: why a volume is protected by a policy, or is not.

use super::admin;
use crate::args::{Explain, Format, Global};
use crate::connect::{self, Access};
use crate::failure::Outcome;
use crate::output::{document, time};
use holdfast_proto::v1;
use serde_json::{Value, json};

/// Asks, and prints what was decided and what every policy contributed.
pub async fn run(global: &Global, options: Explain) -> Outcome<()> {
    all(global, &[options.volume]).await
}

/// The same of several volumes, one after the other. Of one that the coordinator does not know, that is said.
pub async fn all(global: &Global, volumes: &[String]) -> Outcome<()> {
    let connected = connect::open(global, Access::Read).await?;
    let mut documents = Vec::new();
    let mut last = Ok(());
    for volume in volumes {
        let request = v1::ExplainRequest {
            volume: volume.clone(),
        };
        match admin(&connected.channel).explain(request).await {
            Ok(reply) if matches!(global.output, Format::Json | Format::Yaml) => {
                documents.push(as_document(volume, &reply.into_inner()));
            }
            Ok(reply) => print(volume, &reply.into_inner()),
            Err(status) => last = Err(status.into()),
        }
    }
    match (documents.len(), volumes.len()) {
        (0, _) => {}
        (1, 1) => document(global.output, &documents[0])?,
        _ => document(global.output, &documents.into())?,
    }
    last
}

fn as_document(volume: &str, reply: &v1::ExplainReply) -> Value {
    let policies = reply.policies.iter();
    let policies: Vec<_> = policies
        .map(|one| json!({"policy": one.policy, "verdict": one.verdict}))
        .collect();
    json!({
        "volume": volume, "protected": reply.reason.is_empty(),
        "policy": reply.policy, "reason": reply.reason, "detail": reply.detail,
        "said": reply.said, "node": reply.node, "policies": policies,
        "problems": reply.problems, "hooks": reply.hooks,
        "next_run": (reply.next_run_ns != 0).then(|| time(reply.next_run_ns)),
    })
}

fn print(volume: &str, reply: &v1::ExplainReply) {
    if reply.reason.is_empty() {
        println!("{volume} is protected by {}", reply.policy);
    } else {
        println!(
            "{volume} is not protected: {} ({})",
            reply.detail, reply.reason
        );
    }
    if !reply.said.is_empty() {
        println!("  said by its own objects: {}", reply.said);
    }
    if !reply.node.is_empty() {
        println!("  read on node {}", reply.node);
    }
    if reply.next_run_ns != 0 {
        println!("  next run {}", time(reply.next_run_ns));
    }
    for one in &reply.policies {
        println!("  {} {}", one.policy, one.verdict);
    }
    for hook in &reply.hooks {
        println!("  hook: {hook}");
    }
    for problem in &reply.problems {
        println!("  problem: {problem}");
    }
}
