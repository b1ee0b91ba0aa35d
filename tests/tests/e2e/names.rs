//! One binary under three names is the program that it is called, as the image has it.

use holdfast_tests::cli::{Home, binary};
use std::process::Command;

#[test]
fn a_binary_is_what_it_is_called() {
    let home = Home::new();
    for name in ["holdfast", "holdfast-agent", "holdfast-coordinator"] {
        let link = home.at(name);
        std::os::unix::fs::symlink(binary("holdfast"), &link).unwrap();
        let ran = Command::new(&link).arg("--version").output().unwrap();
        let said = String::from_utf8(ran.stdout).unwrap();
        assert!(said.starts_with(&format!("{name} ")), "{said}");
        // And says the same as the program of its own.
        let own = Command::new(binary(name)).arg("--version").output();
        assert_eq!(said.as_bytes(), own.unwrap().stdout);
    }
}
