//! A Backup that takes its snapshots along when it is deleted, where they must stay: they stay, it is told which and
//! what to do, and the Backup goes.

use super::{BACKUPS, EVENTS, with_namespace};
use holdfast_tests::processes::until;
use serde_json::json;
use std::fs;

/// Enough that losing most of them is suspicious.
const FILES: usize = 1200;

/// What is suspicious, and what came before it, is not forgotten with its Backup, which holds nothing up.
#[test]
fn suspicious_snapshots_stay_when_their_backups_are_deleted() {
    let cluster = with_namespace();
    let file = |n: usize| cluster.uploads.join(format!("file-{n}"));
    for n in 0..FILES {
        fs::write(file(n), format!("{n}")).unwrap();
    }
    let spec = || json!({"claim": "uploads", "deletionPolicy": "Delete"});
    cluster.backup("whole", spec());
    let whole = cluster.run_is("whole", "Completed");
    for n in 3..FILES {
        fs::remove_file(file(n)).unwrap();
    }
    cluster.backup("emptied", spec());
    let emptied = cluster.run_is("emptied", "Completed");
    let snapshots = cluster.processes.snapshots();
    let made = [&whole, &emptied].map(|said| said["results"][0]["snapshot"].clone());
    assert_eq!(json!(snapshots), json!(made));
    for name in ["emptied", "whole"] {
        cluster.api.ask_to_delete(BACKUPS, "shop", name);
    }
    for name in ["emptied", "whole"] {
        until(&format!("{name} is gone"), || {
            cluster.api.get(BACKUPS, "shop", name).is_none()
        });
        until("it is told what stays, and why", || {
            let events = cluster.api.all(EVENTS);
            let mut events = events.iter();
            events.any(|event| {
                let message = event["message"].as_str().unwrap_or_default();
                event["involvedObject"]["name"] == name
                    && event["reason"] == "SnapshotsKept"
                    && message.contains("suspicious")
                    && message.contains("holdfast acknowledge")
            })
        });
    }
    assert_eq!(cluster.processes.snapshots(), snapshots);
    // Nothing but the word of a person keeps them.
    let newest = snapshots.last().unwrap();
    cluster.processes.ok(["acknowledge", newest]);
    cluster.processes.ok(["forget", newest]);
}
