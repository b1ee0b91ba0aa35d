//! Policies of files: what is read, every mistake with its place, what is protected by what.

use super::line::line_of;
use super::read::{Mistake, Schemas, read};
use super::source::{load, look};
use super::subjects::subjects;
use crate::kube::Picture;
use crate::kube::api::schema::{of_spec, steps};
use crate::policy::Outcome;
use holdfast_proto::v1::{AgentVolume, VolumeFacts};

const TWO: &str = "\
# Nightly, and the shop closely.
apiVersion: holdfast.dev/v1alpha1
kind: ClusterBackupPolicy
metadata: {name: nightly}
spec:
  selection:
    namespaces: {exclude: [tmp]}
    volumes:
      exclude: ['*/cache', scratch]
  schedule: {cron: '0 2 * * *', timeZone: Europe/Berlin}
---
---
apiVersion: holdfast.dev/v1alpha1
kind: BackupPolicy
metadata: {name: close, namespace: shop, labels: {team: a}}
spec:
  exposure: {maxAge: 5m}
";

fn mistakes(text: &str) -> Vec<String> {
    let (_, mistakes) = read(&Schemas::new(), "p.yaml", text);
    mistakes.iter().map(Mistake::to_string).collect()
}

/// A policy whose spec has these lines.
fn policy(spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!(
        "apiVersion: holdfast.dev/v1alpha1\nkind: ClusterBackupPolicy\nmetadata: {{name: p}}\nspec:\n  {spec}\n"
    )
}

fn listed(node: &str, name: &str, eligible: bool) -> (String, AgentVolume) {
    let volume = AgentVolume {
        facts: Some(VolumeFacts {
            name: name.into(),
            ..VolumeFacts::default()
        }),
        eligible,
        reason: if eligible { "" } else { "PathMissing" }.into(),
        detail: String::new(),
    };
    (node.to_owned(), volume)
}

#[test]
fn volumes_that_agents_list_are_protected_as_their_names_say() {
    let (found, wrong) = read(&Schemas::new(), "p.yaml", TWO);
    assert_eq!(wrong, []);
    let lines: Vec<_> = found.iter().map(|found| found.line).collect();
    assert_eq!(lines, [Some(4), Some(15)]);
    let volumes = [
        listed("a", "web", true),
        listed("a", "shop/orders", true),
        listed("a", "shop/cache", true),
        listed("a", "web/cache", true),
        listed("a", "scratch", true),
        listed("a", "tmp/x", true),
        listed("a", "gone", false),
        listed("b", "gone", true),
        listed("b", "broken", false),
    ];
    let (subjects, nodes) = subjects(&volumes);
    let policies = found.into_iter().map(|found| found.policy);
    let picture = Picture::of(policies, subjects, |name| nodes.get(name).cloned());
    let said = |name: &str| {
        let volume = picture.volumes.iter().find(|v| v.subject.id == name);
        match &volume.unwrap().decision.outcome {
            Outcome::Protected(policy) => policy.to_string(),
            Outcome::Unprotected { reason, .. } => reason.to_string(),
        }
    };
    let nightly = "ClusterBackupPolicy nightly";
    for (name, expected) in [
        ("web", nightly),
        ("shop/orders", "BackupPolicy shop/close"),
        ("shop/cache", "BackupPolicy shop/close"),
        ("web/cache", "NoPolicyMatches"),
        ("scratch", "NoPolicyMatches"),
        ("tmp/x", "ExcludedByPolicy"),
        ("gone", nightly),
        ("broken", "UnsupportedVolume"),
    ] {
        assert_eq!(said(name), expected, "{name}");
    }
    assert_eq!(nodes.get("gone").map(String::as_str), Some("b"));
    let explained = picture.explain("web/cache").unwrap();
    let verdict = &explained.policies[0].verdict;
    assert!(
        verdict.contains("spec.selection.volumes.exclude"),
        "{verdict}"
    );
    assert!(verdict.contains("'web/cache' is in"), "{verdict}");
}

#[test]
fn what_needs_a_cluster_is_refused_by_name_with_what_to_write_instead() {
    let schedule = "schedule: {cron: '@daily'}\n";
    for (field, instead) in [
        (
            "namespaceSelector: {matchLabels: {a: b}}",
            "selection.namespaces.include",
        ),
        (
            "podSelector: {matchLabels: {a: b}}",
            "selection.volumes.include",
        ),
        (
            "claimSelector: {matchLabels: {a: b}}",
            "selection.volumes.include",
        ),
        ("annotations: [{key: a}]", "selection.volumes.include"),
        ("storageClasses: [fast]", "selection.volumes.include"),
        ("drivers: [x]", "selection.volumes.include"),
        ("accessModes: [ReadWriteOnce]", "selection.volumes.include"),
        ("minSize: 1Gi", "selection.volumes.include"),
        ("maxSize: 1Gi", "selection.volumes.include"),
        ("kinds: [EmptyDir]", "selection.volumes.include"),
        ("mode: Annotated", "selection.volumes.include"),
    ] {
        let text = policy(&format!("{schedule}selection:\n  {field}"));
        let said = mistakes(&text);
        let name = field.split(':').next().unwrap();
        assert_eq!(said.len(), 1, "{said:?}");
        let start = format!("p.yaml:7: ClusterBackupPolicy p: spec.selection.{name}: ");
        assert!(said[0].starts_with(&start), "{}", said[0]);
        assert!(
            said[0].contains("cluster") && said[0].contains(instead),
            "{}",
            said[0]
        );
    }
}

#[test]
fn every_field_of_the_schema_is_taken_or_refused() {
    let schema = of_spec::<crate::kube::api::ClusterBackupPolicy>();
    // One that somebody adds is refused until `fields` names it: nothing is accepted and ignored.
    for path in ["/properties", "/properties/selection/properties"] {
        let fields = schema.pointer(path).and_then(|found| found.as_object());
        for name in fields.unwrap().keys() {
            let spec = match path {
                "/properties" => serde_json::json!({name: {}}),
                _ => serde_json::json!({"selection": {name: {}}}),
            };
            let mut wrong = Vec::new();
            super::fields::check(&schema, &spec, &mut wrong);
            let taken = [
                "selection",
                "schedule",
                "exposure",
                "windows",
                "priority",
                "deadline",
                "startingDeadline",
                "files",
                "changeDetection",
                "limits",
                "suspend",
                "mode",
                "namespaces",
                "volumes",
            ];
            assert_eq!(
                wrong.is_empty(),
                taken.contains(&&name[..]),
                "{name}: {wrong:?}"
            );
        }
    }
}

#[test]
fn all_mistakes_come_at_once_with_their_lines() {
    let text = "\
apiVersion: holdfast.dev/v1
kind: BackupPolicy
metadata:
  name: Daily
  uid: 4
spec:
  schedule:
    cron: 61 * * * *
    timeZone: Mars
  windows:
    - start: '22:00'
      duration: 2h
    - start: '25:00'
      duration: 2h
status: {}
---
apiVersion: holdfast.dev/v1alpha1
kind: ClusterBackupPolicy
metadata: {name: typed, namespace: shop}
spec:
  schedul: {cron: '@daily'}
  priority: high
  suspend: 'no'
  exposure: {}
  selection:
    namespaces: [a]
    mode: Some
";
    let said = mistakes(text);
    let first = "BackupPolicy default/Daily";
    let second = "ClusterBackupPolicy typed";
    for expected in [
        "p.yaml:1: BackupPolicy default/Daily: apiVersion: must be holdfast.dev/v1alpha1"
            .to_owned(),
        format!("p.yaml:4: {first}: metadata.name: must be"),
        format!("p.yaml:5: {first}: metadata.uid: is an API server's"),
        format!("p.yaml:8: {first}: spec.schedule.cron: "),
        format!("p.yaml:9: {first}: spec.schedule.timeZone: "),
        format!("p.yaml:13: {first}: spec.windows[1].start: "),
        format!("p.yaml:15: {first}: status: is what a cluster is told"),
        format!("p.yaml:19: {second}: metadata.namespace: a ClusterBackupPolicy has none"),
        format!("p.yaml:21: {second}: spec.schedul: is no field here; there are: "),
        format!("p.yaml:22: {second}: spec.priority: must be a whole number"),
        format!("p.yaml:23: {second}: spec.suspend: must be true or false"),
        format!("p.yaml:24: {second}: spec.exposure.maxAge: is missing"),
        format!("p.yaml:26: {second}: spec.selection.namespaces: must be a mapping"),
        format!(
            "p.yaml:27: {second}: spec.selection.mode: is 'Some'; write one of: All, Annotated"
        ),
    ] {
        let count = said
            .iter()
            .filter(|said| said.starts_with(&expected))
            .count();
        assert_eq!(count, 1, "{expected}\n{}", said.join("\n"));
    }
    assert_eq!(said.len(), 14, "{}", said.join("\n"));
}

#[test]
fn what_is_no_policy_is_said() {
    for (text, expected) in [
        ("kind: [", "p.yaml:"),
        ("a: 1\na: 2\n", "duplicate"),
        ("- a\n", "is no object"),
        (
            "apiVersion: v1\nkind: List\nitems: []\n",
            "kind: must be BackupPolicy",
        ),
        (
            "apiVersion: holdfast.dev/v1alpha1\nkind: BackupPolicy\nmetadata: {name: a}\n",
            "spec: is missing",
        ),
        (
            &policy("suspend: true"),
            "needs exactly one of schedule and exposure",
        ),
        (
            &policy("schedule: {cron: '@daily', jitter: }"),
            "spec.schedule.jitter: is empty",
        ),
    ] {
        let said = mistakes(text).join("\n");
        assert!(said.contains(expected), "{text}: {said}");
    }
    assert_eq!(mistakes(""), [""; 0]);
    assert_eq!(mistakes("---\n# nothing\n"), [""; 0]);
}

#[test]
fn lines_are_those_of_the_fields() {
    let text = "a: 1\nb:\n  c:\n    - d: 2\n    - e:\n        f: 3\n---\nb: {c: [1,\n  2]}\n";
    for (document, path, line) in [
        (0, "a", 1),
        (0, "b", 2),
        (0, "b.c", 3),
        (0, "b.c[0].d", 4),
        (0, "b.c[1].e.f", 6),
        // What is not there is where it would be.
        (0, "b.c[1].e.g", 5),
        (0, "x.y", 1),
        (1, "b.c[1]", 9),
    ] {
        assert_eq!(line_of(text, document, &steps(path)), Some(line), "{path}");
    }
}

#[test]
fn the_files_of_a_directory_are_read_together() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
    write("a.yaml", TWO);
    write("notes.txt", "no policy");
    write(".hidden.yaml", "no policy");
    let loaded = load(home.path()).unwrap();
    assert_eq!(
        loaded.names(),
        ["ClusterBackupPolicy nightly", "BackupPolicy shop/close"]
    );
    assert_eq!(loaded.since.len(), 2);
    let before = look(home.path()).unwrap();
    assert_eq!(before, loaded.seen);
    write("b.yml", &policy("schedule: {cron: x}"));
    write("c.yml", TWO);
    assert_ne!(look(home.path()).unwrap(), before);
    let mistakes = load(home.path()).unwrap_err().0;
    assert_eq!(mistakes.len(), 3, "{mistakes:?}");
    assert!(
        mistakes[0].contains("b.yml:5: ClusterBackupPolicy p: spec.schedule.cron"),
        "{mistakes:?}"
    );
    let twice = "c.yml:4: ClusterBackupPolicy nightly: is at ";
    assert!(
        mistakes[1].contains(twice) && mistakes[1].contains("a.yaml:4"),
        "{mistakes:?}"
    );
    // A file of its own.
    assert_eq!(load(&home.path().join("a.yaml")).unwrap().names().len(), 2);
    assert!(load(&home.path().join("gone")).is_err());
}
