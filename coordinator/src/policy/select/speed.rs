//! 10,000 volumes against 1,000 policies. Run with `--release -- --ignored --nocapture`.

use super::Policies;
use super::tests::{namespace, policy, subject};
use crate::kube::api::{LabelSelector, Names};
use std::time::Instant;

fn measure(name: &str, policies: &Policies) {
    let namespaces: Vec<_> = (0..100)
        .map(|index| namespace(&format!("team-{index}")))
        .collect();
    let subjects: Vec<_> = (0..10_000)
        .map(|index| subject(&namespaces[index % 100], &format!("claim-{index}")))
        .collect();
    let began = Instant::now();
    let decisions = policies.decide_all(&subjects);
    let took = began.elapsed();
    let protected = decisions
        .iter()
        .filter(|decision| decision.policy().is_some())
        .count();
    let overruled: usize = decisions
        .iter()
        .map(|decision| decision.overruled.len())
        .sum();
    println!("{name}: {took:?}, {protected} protected, {overruled} overruled");
}

#[test]
#[ignore = "a measurement"]
fn ten_thousand_volumes_against_a_thousand_policies() {
    let labels = |value: String| {
        Some(LabelSelector {
            match_labels: [("app".to_owned(), value)].into(),
            ..LabelSelector::default()
        })
    };
    let began = Instant::now();
    let mixed = Policies::new((0..1000).map(|index| match index % 2 {
        0 => policy(&format!("team-{}/p-{index}", index % 100), |spec| {
            spec.selection.claim_selector = labels(format!("app-{}", index % 7));
        }),
        _ => policy(&format!("p-{index}"), |spec| {
            let include = vec![format!("team-{}*", index % 50), "x-*".to_owned()];
            spec.selection.namespaces = Some(Names {
                include,
                exclude: vec!["kube-*".to_owned()],
            });
        }),
    }));
    println!("read: {:?}", began.elapsed());
    measure("half of namespaces, half by globs", &mixed);
    let labelled = Policies::new((0..1000).map(|index| {
        policy(&format!("p-{index}"), |spec| {
            spec.selection.claim_selector = labels(format!("app-{index}"))
        })
    }));
    measure("all of the cluster, by labels that do not match", &labelled);
    let everything = Policies::new((0..1000).map(|index| policy(&format!("p-{index}"), |_| {})));
    measure("all of the cluster, and all match", &everything);
}
