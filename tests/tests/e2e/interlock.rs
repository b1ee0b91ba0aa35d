//! A volume that was emptied takes nothing with it: the command line says so wherever it matters, older
//! snapshots stay until somebody has acknowledged the empty one, and a rebuilt catalog knows all of it.

use holdfast_tests::cli::Home;
use std::ffi::OsStr;
use std::fs;

const FILES: usize = 1200;

fn ids(home: &Home) -> Vec<String> {
    let listed = home.ok(["snapshots", "-o", "name"]).text();
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn an_emptied_volume_keeps_its_past_until_it_is_acknowledged() {
    let home = Home::new();
    let source = home.at("source");
    fs::create_dir(&source).expect("a directory");
    for n in 0..FILES {
        fs::write(source.join(format!("{n}")), format!("{n}")).expect("a file");
    }
    home.backup(&source, "web");
    for n in 3..FILES {
        fs::remove_file(source.join(format!("{n}"))).expect("a removal");
    }
    let emptied = home.backup(&source, "web");
    let [old, new] = &ids(&home)[..] else {
        panic!("not two snapshots");
    };
    let short = &new[..12];
    let warned = |stderr: &str| {
        for part in [
            &*format!("snapshot {short} of web"),
            "1197 of 1201 are gone (MassDeletion)",
            &*format!("`holdfast diff {} {short}`", &old[..12]),
            &*format!("`holdfast acknowledge {short}`"),
        ] {
            assert!(stderr.contains(part), "{part} in {stderr}");
        }
    };
    warned(&emptied.stderr);
    warned(&home.ok(["snapshots"]).stderr);
    let wide = home.ok(["snapshots", "-o", "wide"]).text();
    assert!(
        wide.contains("SCORE") && wide.contains("suspicious"),
        "{wide}"
    );
    let json = home.ok(["snapshots", "-o", "json"]).text();
    for part in [
        "\"suspicious\": true",
        "\"MassDeletion\"",
        "\"removed_files\": 1197",
    ] {
        assert!(json.contains(part), "{part} in {json}");
    }
    let status = home.ok(["status"]).text();
    assert!(status.contains("suspicious   1 snapshots"), "{status}");
    // The newest is the newest, and whoever restores it is told.
    let target = home.at("restored");
    let restore = [
        OsStr::new("restore"),
        "web@latest".as_ref(),
        "--target".as_ref(),
        target.as_os_str(),
    ];
    warned(&home.ok(restore).stderr);

    for rebuilt in [false, true] {
        if rebuilt {
            home.ok(["rebuild"]);
        }
        for id in [old, new] {
            let refused = home.ends(5, ["forget", id]).stderr;
            assert!(refused.contains("holdfast acknowledge"), "{refused}");
        }
    }
    let refused = home.ends(5, ["acknowledge", old]).stderr;
    assert!(refused.contains("not suspicious"), "{refused}");
    home.ends(2, ["acknowledge", "web@latest:/1"]);
    let mut acknowledge = home.command(["acknowledge", "web@latest"]);
    let done = acknowledge.env("USER", "ann").output().expect("it runs");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success() && said.contains("acknowledged"),
        "{done:?}"
    );
    let again = home.ok(["acknowledge", "web@latest"]).text();
    assert!(again.contains("was acknowledged by ann@"), "{again}");
    assert!(home.ok(["snapshots"]).stderr.is_empty());
    home.ok(["rebuild"]);
    let wide = home.ok(["snapshots", "-o", "wide"]).text();
    assert!(wide.contains("acknowledged"), "{wide}");
    let json = home.ok(["snapshots", "-o", "json"]).text();
    assert!(json.contains("\"by\": \"ann@"), "{json}");
    home.ok(["forget", old]);
    assert_eq!(ids(&home), std::slice::from_ref(new));
}
