//! The walk against streams that are and are not trees.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

type Never = io::Error;

/// Runs a stream of (path, is directory); what was accepted, refused, and all steps.
fn run(stream: &[(&str, bool)], tolerant: bool) -> (Vec<String>, Vec<String>, Vec<String>) {
    let (mut accepted, mut refused, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    let mut walk = Walk::new(&std::env::temp_dir().into());
    if tolerant {
        walk.tolerate_missing_parents();
    }
    let mut act = |step: Step| -> Result<(), Never> {
        steps.push(match step {
            Step::ListingEnds => "listed".to_owned(),
            Step::Enter { path, record } => {
                assert_eq!(record, path.as_bytes());
                format!("+{path}")
            }
            Step::EnterLost { path } => format!("?{path}"),
            Step::Leave => "-".to_owned(),
        });
        Ok(())
    };
    for (path, directory) in stream {
        let path = RelPath::new(*path).unwrap();
        match walk.accept(&path, &mut act).unwrap() {
            Ok(()) => {
                accepted.push(path.to_string());
                if *directory {
                    walk.directory(path.name(), path.as_bytes()).unwrap();
                }
            }
            Err(_) => refused.push(path.to_string()),
        }
    }
    walk.finish(&mut act).unwrap();
    (accepted, refused, steps)
}

#[test]
fn directories_are_entered_once_and_left_after_all_below() {
    let stream = [
        ("a", true),
        ("b", false),
        ("c", true),
        ("a/d", true),
        ("a/e", false),
        ("a/d/f", false),
    ];
    let (accepted, refused, steps) = run(&stream, false);
    assert_eq!(accepted.len(), 6);
    assert!(refused.is_empty());
    let expected = [
        "listed", "+a", "listed", "+a/d", "listed", "-", "-", "+c", "listed", "-", "-",
    ];
    assert_eq!(steps, expected);
}

#[test]
fn what_is_no_tree_is_refused() {
    type Case = (&'static [(&'static str, bool)], &'static [&'static str]);
    let cases: [Case; 7] = [
        (&[("a", false), ("a", false)], &["a"]),
        (&[("b", false), ("a", false)], &["a"]),
        (&[("a", false), ("a/x", false)], &["a/x"]),
        (&[("q/x", false), ("z", false)], &["q/x"]),
        (&[("a", true), ("a/b", true), ("c", false)], &["c"]),
        (
            &[("a", true), ("c", true), ("c/x", false), ("a/x", false)],
            &["a/x"],
        ),
        (&[("a", true), ("a/x/y", false), ("a/z", false)], &["a/x/y"]),
    ];
    for (stream, expected) in cases {
        let (_, refused, steps) = run(stream, false);
        assert_eq!(refused, expected, "{stream:?}");
        let entered = steps.iter().filter(|s| s.starts_with('+')).count();
        let left = steps.iter().filter(|s| *s == "-").count();
        assert_eq!(entered + 1, left, "{stream:?}: {steps:?}");
    }
}

#[test]
fn lost_parents_are_made_up_only_after_damage() {
    let stream = [
        ("a", true),
        ("m/n/x", false),
        ("m/n/y", false),
        ("z", false),
    ];
    let (accepted, refused, steps) = run(&stream, true);
    assert_eq!(accepted, ["a", "m/n/x", "m/n/y"]);
    assert_eq!(refused, ["z"]);
    assert_eq!(steps.iter().filter(|s| s.starts_with('?')).count(), 2);
    // The stream has left the root's listing for good, so that z comes too late in any case.
    assert_eq!(run(&stream, false).1, ["m/n/x", "m/n/y", "z"]);
}

proptest! {
    #[test]
    fn every_tree_in_key_order_is_accepted(
        files in proptest::collection::btree_set("[ab.]x?(/[abc]{1,2}){0,3}", 1..40),
    ) {
        let mut paths = BTreeSet::new();
        for file in files.iter().filter_map(|f| RelPath::new(f.as_str()).ok()) {
            let mut at = Some(file);
            while let Some(path) = at.filter(|p| !p.is_root()) {
                at = path.parent();
                paths.insert(path);
            }
        }
        let text: Vec<String> = paths.iter().map(|p| p.to_string()).collect();
        let is_parent = |p: &str| text.iter().any(|q| q.starts_with(&format!("{p}/")));
        let stream: Vec<(&str, bool)> = text.iter().map(|p| (p.as_str(), is_parent(p))).collect();
        let (accepted, refused, steps) = run(&stream, false);
        prop_assert!(refused.is_empty(), "{refused:?}");
        prop_assert_eq!(accepted.len(), stream.len());
        let mut depth = 1i64;
        let mut entered = BTreeSet::new();
        for step in &steps {
            if let Some(path) = step.strip_prefix('+') {
                prop_assert!(entered.insert(path.to_owned()));
                depth += 1;
            } else if step == "-" {
                depth -= 1;
            }
        }
        prop_assert_eq!(depth, 0);
        prop_assert_eq!(entered.len(), stream.iter().filter(|(_, d)| *d).count());
    }
}
