//! `kubectl holdfast` waits for what the controllers do: its runs end as the objects do, and hold what they say.

use super::cluster;
use holdfast_tests::cli::{Ended, binary};
use holdfast_tests::oracle::assert_same;
use holdfast_tests::processes::without_variables;
use std::process::Command;

#[test]
fn a_backup_and_a_restore_are_waited_for_to_their_end() {
    let cluster = cluster();
    let home = &cluster.processes.home;
    let plugin = home.at("kubectl-holdfast");
    std::os::unix::fs::symlink(binary("holdfast"), &plugin).unwrap();
    let run = |args: &[&str]| -> Ended {
        let mut command = Command::new(&plugin);
        without_variables(&mut command);
        command
            .env("KUBECONFIG", home.at("kubeconfig"))
            .env_remove("KUBERNETES_SERVICE_HOST")
            .args(args);
        command.output().expect("it starts").into()
    };
    cluster.spoil();
    let spoiled = cluster.copy("spoiled");
    let count = cluster.processes.snapshots().len();
    let ended = run(&["backup", "orders", "-n", "shop", "--wait"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(cluster.processes.snapshots().len(), count + 1);

    cluster.spoil();
    let args = [
        "restore",
        "orders",
        "-n",
        "shop",
        "--to-claim",
        "back",
        "--special",
        "--wait",
    ];
    let ended = run(&args);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_same(&spoiled, &cluster.roots.join("pv-back"));

    // One that fails says why, and its exit code does too.
    let ended = run(&args);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended.stderr.contains("ClaimExists") || ended.text().contains("ClaimExists"),
        "{ended:?}"
    );
    cluster.assert_clean();
}
