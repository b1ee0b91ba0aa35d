//! Hooks of a policy that ask over http, and post-hooks that fail.

use super::{POD, bare};
use crate::cluster::{POLICIES, PROTECTIONS, policy};
use holdfast_tests::processes::until;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

#[test]
fn a_policys_hooks_ask_over_http_and_post_hooks_that_fail_are_seen() {
    let hooked = bare();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap();
            let request = String::from_utf8_lossy(&bytes[..count]).to_lowercase();
            let _ = sender.send(request);
            // The first attempt at the post-hook fails; a redirect is a failure too.
            let status = if number == 1 {
                "302 Found\r\nlocation: /elsewhere"
            } else {
                "204 No Content"
            };
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let mut pod = hooked.cluster.pod(POD);
    pod["status"]["podIP"] = json!("127.0.0.1");
    hooked.cluster.api.put("v1/pods", pod);
    let hour = Command::new("date").args(["-u", "+%H"]).output().unwrap();
    let hour: u32 = String::from_utf8(hour.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let spec = json!({
        "schedule": {"cron": format!("30 {} * * *", (hour + 12) % 24)},
        "selection": {"claimSelector": {"matchLabels": {"hooked": "yes"}}},
        "hooks": [{
            "name": "quiesce", "unfreezeAfter": "2m",
            "pre": {"http": {"port": port, "path": "/freeze", "headers": {"x-why": "backup"}}},
            "post": {"http": {"port": port, "path": "/thaw", "method": "PUT", "expectedStatus": 204}},
        }],
    });
    let mut claim = hooked
        .cluster
        .api
        .get("v1/persistentvolumeclaims", "shop", "uploads")
        .unwrap();
    claim["metadata"]["labels"]["hooked"] = json!("yes");
    hooked.cluster.api.put("v1/persistentvolumeclaims", claim);
    hooked.cluster.api.put(POLICIES, policy("daily", spec));
    // What was missed since the policy was made is made up for at once.
    let next = || requests.recv_timeout(Duration::from_secs(60)).unwrap();
    let freeze = next();
    assert!(freeze.starts_with("post /freeze "), "{freeze}");
    assert!(
        freeze.contains("x-why: backup") && freeze.contains("holdfast-unfreeze-after: 120"),
        "{freeze}"
    );
    assert!(next().starts_with("put /thaw "));
    // It failed, and is tried again.
    assert!(next().starts_with("put /thaw "));
    let found = hooked
        .cluster
        .until_phase(PROTECTIONS, "uploads", "Protected");
    assert!(!found["lastSuccess"]["snapshot"].is_null());
    hooked.until_told("HookPostFailed");
    hooked.until_told("HookPostDone");
    until("the protection names it", || {
        let problems = hooked.cluster.status(PROTECTIONS, "uploads")["problems"].to_string();
        problems.contains("HookPostFailed") && problems.contains("status 302")
    });
}
