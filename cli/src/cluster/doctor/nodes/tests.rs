//! What is said of nodes, from what their agents said.

use super::*;
use holdfast_proto::v1::{KernelLimit, StatusReply, Trouble};
use serde_json::json;

fn well() -> AgentCondition {
    let limits = [
        ("fs.fanotify.max_user_marks", 8192),
        ("fs.fanotify.max_user_groups", 128),
        ("fs.inotify.max_user_watches", 1000),
        ("fs.inotify.max_user_instances", 8),
    ];
    let limits = limits.map(|(name, value)| KernelLimit {
        name: name.to_owned(),
        value,
    });
    AgentCondition {
        journal: "fanotify".to_owned(),
        landlock: 5,
        limits: limits.into(),
        kernel: "6.8.0-31-generic".to_owned(),
        kubelet_pods: "/var/lib/kubelet/pods".to_owned(),
        ..AgentCondition::default()
    }
}

fn told(agents: Vec<(&str, Option<AgentCondition>)>) -> Told {
    let info = |(node, condition): (&str, Option<AgentCondition>)| AgentInfo {
        node: node.to_owned(),
        version: "1.2.0".to_owned(),
        condition,
        ..AgentInfo::default()
    };
    Told {
        status: StatusReply {
            version: "1.2.0".to_owned(),
            agent_infos: agents.into_iter().map(info).collect(),
            ..StatusReply::default()
        },
        ..Told::default()
    }
}

/// The findings of one check: state, nodes and detail.
fn of<'f>(found: &'f [Finding], check: &str) -> Vec<(State, String, &'f str)> {
    let of = found.iter().filter(|one| one.check == check);
    of.map(|one| (one.state, one.nodes.join(","), &*one.detail))
        .collect()
}

#[test]
fn nodes_that_are_well_are_one_line() {
    let restoring = AgentCondition {
        journal: "off".to_owned(),
        ..well()
    };
    let agents = vec![
        ("a", Some(well())),
        ("b", Some(well())),
        ("restore/0123", Some(restoring)),
    ];
    let found = of_agents(&told(agents));
    let detail = "version 1.2.0, Linux 6.8.0-31-generic, changes by fanotify (fs.fanotify.max_user_marks 8192), \
                  restricted by Landlock 5, pods' volumes below /var/lib/kubelet/pods, where later mounts show";
    assert_eq!(found.len(), 1);
    assert_eq!(
        of(&found, CONNECTED),
        [(State::Good, "a,b".to_owned(), detail)]
    );
}

#[test]
fn what_is_wrong_is_told_by_node_with_what_to_do() {
    let trouble = |reason: &str| Trouble {
        reason: reason.to_owned(),
        detail: "it is so".to_owned(),
    };
    let broken = |reason: &str| {
        Some(AgentCondition {
            troubles: vec![trouble(reason)],
            ..well()
        })
    };
    let agents = vec![
        ("a", broken("KubeletDirectoryMissing")),
        ("b", broken("MountPropagationMissing")),
        ("c", broken("KubeletDirectoryMissing")),
        ("d", broken("SomethingNew")),
        ("e", None),
    ];
    let found = of_agents(&told(agents));
    for (check, nodes, detail) in [
        ("kubelet root", "a,c", "it is so (KubeletDirectoryMissing)"),
        (
            "mount propagation",
            "b",
            "it is so (MountPropagationMissing)",
        ),
        ("agent readiness", "d", "it is so (SomethingNew)"),
    ] {
        assert_eq!(
            of(&found, check),
            [(State::Bad, nodes.to_owned(), detail)],
            "{check}"
        );
    }
    let silent = of(&found, CONNECTED);
    assert!(silent.contains(&(
        State::Note,
        "e".to_owned(),
        "connected, and has said nothing of itself yet"
    )));
    // Nothing is said of mounts that would be wrong.
    assert!(!silent[0].2.contains("later mounts show"), "{silent:?}");
    let wrong = found.iter().filter(|one| one.state != State::Good);
    assert!(wrong.clone().count() > 3);
    wrong.for_each(|one| assert!(!one.mend.is_empty() && !one.why.is_empty(), "{one:?}"));
}

#[test]
fn versions_clocks_kernels_and_sources_are_judged() {
    let mut told = told(vec![
        ("a", Some(well())),
        (
            "b",
            Some(AgentCondition {
                journal: "inotify".to_owned(),
                journal_detail: "fanotify: EPERM".to_owned(),
                ..well()
            }),
        ),
        (
            "c",
            Some(AgentCondition {
                journal: "none".to_owned(),
                journal_detail: "inotify: EMFILE".to_owned(),
                landlock: 0,
                landlock_detail: "this kernel does not have Landlock".to_owned(),
                kernel: "4.18.0-553.el8.x86_64".to_owned(),
                ..well()
            }),
        ),
        (
            "d",
            Some(AgentCondition {
                journal: "off".to_owned(),
                journal_detail: "journal.source is off".to_owned(),
                ..well()
            }),
        ),
        ("e", None),
    ]);
    let infos = &mut told.status.agent_infos;
    infos[0].version = "1.1.0".to_owned();
    infos[1].clock_ahead_ns = 90_000_000_000;
    infos[2].clock_ahead_ns = -3_600_000_000_000;
    // It has not said what its clock is.
    infos[4].clock_ahead_ns = 3_600_000_000_000;
    let found = of_agents(&told);
    let note = |node: &str, detail: &'static str| (State::Note, node.to_owned(), detail);
    assert_eq!(
        of(&found, "agent version"),
        [note("a", "version 1.1.0, and the coordinator's is 1.2.0")]
    );
    assert_eq!(
        of(&found, "clocks of nodes"),
        [
            note("b", "its clock is 90s ahead of the coordinator's"),
            note("c", "its clock is 60m behind the coordinator's"),
        ]
    );
    assert_eq!(
        of(&found, "kernel"),
        [(
            State::Bad,
            "c".to_owned(),
            "it runs Linux 4.18.0-553.el8.x86_64"
        )]
    );
    assert_eq!(
        of(&found, "change journal"),
        [
            note(
                "b",
                "changes come by inotify and by nothing better: fanotify: EPERM"
            ),
            note("c", "changes cannot be followed: inotify: EMFILE"),
        ]
    );
    assert_eq!(
        of(&found, "Landlock"),
        [note(
            "c",
            "the agent is not restricted: this kernel does not have Landlock"
        )]
    );
}

#[test]
fn limits_are_told_before_and_when_they_are_reached() {
    let inotify = AgentCondition {
        journal: "inotify".to_owned(),
        ..well()
    };
    let agents = vec![
        ("a", Some(well())),
        ("b", Some(inotify.clone())),
        ("c", Some(inotify)),
    ];
    let mut told = told(agents);
    let volume = |node: &str, journal: &str, reason: &str, watched: u64| VolumeInfo {
        agent: node.to_owned(),
        state: Some(VolumeState {
            journal: journal.to_owned(),
            reason: reason.to_owned(),
            watched_directories: watched,
            ..VolumeState::default()
        }),
        ..VolumeInfo::default()
    };
    told.volumes = vec![
        volume("a", "trusted", "", 4000),
        volume("b", "trusted", "", 601),
        volume("c", "trusted", "", 5),
        volume("c", "walk", "WatchLimit", 0),
        volume("c", "walk", "InstanceLimit", 0),
        volume("c", "walk", "InstanceLimit", 0),
    ];
    let found = of_agents(&told);
    let of_limits = of(&found, "watch limits");
    let details: Vec<(&str, &str)> = of_limits
        .iter()
        .map(|(_, node, detail)| (&**node, *detail))
        .collect();
    assert_eq!(
        details,
        [
            (
                "b",
                "the agent uses 601 of 1000 (fs.inotify.max_user_watches)"
            ),
            (
                "c",
                "1 volume is walked for want of room: the agent uses 5 of 1000 (fs.inotify.max_user_watches)"
            ),
            (
                "c",
                "2 volumes are walked for want of room: the agent uses 1 of 8 (fs.inotify.max_user_instances)"
            ),
        ]
    );
    let one = found
        .iter()
        .find(|one| one.check == "watch limits")
        .unwrap();
    assert!(one.mend.contains("fs.inotify.max_user_watches = 4000"));
}

#[test]
fn nodes_for_which_nobody_speaks_are_named_with_what_is_known() {
    let node = |name: &str, ready: &str| {
        json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        })
    };
    let windows = json!({"metadata": {"name": "w", "labels": {"kubernetes.io/os": "windows"}}});
    let nodes = [
        node("a", "True"),
        node("b", "True"),
        node("c", "Unknown"),
        node("d", "True"),
        windows,
    ];
    let pod = |node: &str, ready: &str| {
        json!({
            "spec": {"nodeName": node},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
        })
    };
    let pods = [
        pod("a", "True"),
        pod("b", "False"),
        pod("c", "True"),
        pod("d", "True"),
        json!({"spec": {}}),
    ];
    let connected = ["a".to_owned()];
    let found = unconnected(&connected, Some(&pods), &nodes);
    let bad = |node: &str, detail: &'static str| (State::Bad, node.to_owned(), detail);
    assert_eq!(
        of(&found, CONNECTED),
        [
            bad(
                "b",
                "none; of the agent's pod: it runs, and is not ready yet"
            ),
            bad("c", "none: the node is not ready"),
            bad("d", "none, though the agent's pod is ready"),
        ]
    );
    // Where pods are not known, each node that could have one should.
    let found = unconnected(&connected, None, &nodes);
    assert_eq!(
        of(&found, CONNECTED),
        [bad("b,d", "none"), bad("c", "none: the node is not ready")]
    );
    // And without nodes too, those that have a pod.
    assert_eq!(unconnected(&connected, Some(&pods[..2]), &[]).len(), 1);
    assert!(unconnected(&connected, None, &[]).is_empty());
}
