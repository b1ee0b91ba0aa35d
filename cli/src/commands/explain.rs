//! `holdfast explain VOLUME`: why a volume of the cluster is protected, or is not.

use super::admin;
use crate::args::{Explain, Format, Global};
use crate::connect::{self, Access};
use crate::failure::Outcome;
use crate::output::document;
use holdfast_proto::v1;
use serde_json::json;

/// Asks, and prints what was decided and what every policy contributed.
pub async fn run(global: &Global, options: Explain) -> Outcome<()> {
    let connected = connect::open(global, Access::Read).await?;
    let request = v1::ExplainRequest {
        volume: options.volume.clone(),
    };
    let reply = admin(&connected.channel)
        .explain(request)
        .await?
        .into_inner();
    if matches!(global.output, Format::Json | Format::Yaml) {
        let policies = reply.policies.iter();
        let policies: Vec<_> = policies
            .map(|one| json!({"policy": one.policy, "verdict": one.verdict}))
            .collect();
        return document(
            global.output,
            &json!({
                "volume": options.volume, "protected": reply.reason.is_empty(),
                "policy": reply.policy, "reason": reply.reason, "detail": reply.detail,
                "said": reply.said, "node": reply.node, "policies": policies,
                "problems": reply.problems,
            }),
        );
    }
    if reply.reason.is_empty() {
        println!("{} is protected by {}", options.volume, reply.policy);
    } else {
        println!(
            "{} is not protected: {} ({})",
            options.volume, reply.detail, reply.reason
        );
    }
    if !reply.said.is_empty() {
        println!("  said by its own objects: {}", reply.said);
    }
    if !reply.node.is_empty() {
        println!("  read on node {}", reply.node);
    }
    for one in &reply.policies {
        println!("  {} {}", one.policy, one.verdict);
    }
    for problem in &reply.problems {
        println!("  problem: {problem}");
    }
    Ok(())
}
