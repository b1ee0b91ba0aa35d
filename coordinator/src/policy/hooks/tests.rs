//! Mistakes have their fields, and it is defined who is heard.

use super::*;
use crate::kube::api::ExecAction;

fn exec(words: &[&str]) -> Option<HookAction> {
    Some(HookAction {
        exec: Some(ExecAction {
            command: words.iter().map(|word| (*word).to_owned()).collect(),
        }),
        http: None,
    })
}

fn http(change: impl Fn(&mut HttpAction)) -> Option<HookAction> {
    let mut http = HttpAction {
        port: Some(8080),
        ..HttpAction::default()
    };
    change(&mut http);
    Some(HookAction {
        exec: None,
        http: Some(http),
    })
}

fn freeze() -> HookSpec {
    HookSpec {
        name: "freeze".to_owned(),
        pre: exec(&["fsfreeze", "-f", "/data"]),
        post: exec(&["fsfreeze", "-u", "/data"]),
        ..HookSpec::default()
    }
}

fn mistakes(scope: Scope, hooks: Vec<HookSpec>) -> (Vec<Hook>, String) {
    let spec = PolicySpec {
        hooks,
        ..PolicySpec::default()
    };
    let mut errors = Errors::default();
    let hooks = read(&spec, scope, &mut errors);
    let said: Vec<String> = errors.into_vec().iter().map(ToString::to_string).collect();
    (hooks, said.join("; "))
}

#[test]
fn a_hook_is_read_with_what_is_usual() {
    let (hooks, said) = mistakes(Scope::Namespace, vec![freeze()]);
    assert_eq!(said, "");
    let hook = &hooks[0];
    assert_eq!(hook.unfreeze_after, Duration::from_secs(600));
    assert_eq!(hook.pre.as_ref().unwrap().timeout, Duration::from_secs(30));
    assert_eq!(
        (hook.on_error, hook.watchdog),
        (OnError::Fail, Watchdog::On)
    );
}

#[test]
fn each_mistake_has_its_field() {
    type Change = fn(&mut HookSpec);
    let cases: [(Change, &str); 14] = [
        (|h| h.name.clear(), "spec.hooks[0].name"),
        (|h| (h.pre, h.post) = (None, None), "neither pre nor post"),
        (
            |h| h.pre = exec(&[]),
            "spec.hooks[0].pre.exec.command: is empty",
        ),
        (
            |h| h.post = exec(&[""]),
            "spec.hooks[0].post.exec.command: is empty",
        ),
        (|h| h.pre = exec(&["a\0b"]), "NUL"),
        (
            |h| h.pre = Some(HookAction::default()),
            "spec.hooks[0].pre: must have either",
        ),
        (
            |h| h.timeout = Some("11m".to_owned()),
            "spec.hooks[0].timeout",
        ),
        (
            |h| h.timeout = Some("0s".to_owned()),
            "spec.hooks[0].timeout",
        ),
        (
            |h| h.unfreeze_after = Some("2h".to_owned()),
            "spec.hooks[0].unfreezeAfter",
        ),
        (|h| h.post = http(|_| {}), "watchdog: Off"),
        (
            |h| {
                h.pre = None;
                h.post = http(|http| {
                    (http.port, http.url) = (None, Some("http://169.254.169.254/".to_owned()));
                });
            },
            "spec.hooks[0].post.http.url: belongs to a ClusterBackupPolicy",
        ),
        (
            |h| h.post = http(|http| http.port = None),
            "must have either port or url",
        ),
        (
            |h| h.post = http(|http| http.path = Some("x".to_owned())),
            "must begin with /",
        ),
        (
            |h| h.post = http(|http| http.expected_status = Some(99)),
            "expectedStatus",
        ),
    ];
    for (change, expected) in cases {
        let mut hook = freeze();
        change(&mut hook);
        let (_, said) = mistakes(Scope::Namespace, vec![hook]);
        assert!(said.contains(expected), "{said:?} has no {expected:?}");
    }
    let (_, said) = mistakes(Scope::Namespace, vec![freeze(), freeze()]);
    assert!(said.contains("spec.hooks[1].name"), "{said}");
    let mut elsewhere = freeze();
    elsewhere.pre = None;
    elsewhere.post = http(|http| {
        (http.port, http.url) = (None, Some("https://hooks.example/x".to_owned()));
    });
    assert_eq!(mistakes(Scope::Cluster, vec![elsewhere]).1, "");
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pairs = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    pairs.collect()
}

fn command(hook: &Hook) -> Vec<String> {
    match &hook.pre.as_ref().unwrap().action {
        Action::Exec(command) => command.clone(),
        Action::Http(_) => panic!("a command"),
    }
}

const PRE: &str = "pre.hook.backup.holdfast.dev/command";
const VELERO_PRE: &str = "pre.hook.backup.velero.io/command";

#[test]
fn ours_are_heard_before_veleros_and_neither_is_mixed() {
    let (hook, problems) = of_pod(
        &labels(&[
            (PRE, r#"["fsfreeze", "-f", "/data"]"#),
            (VELERO_PRE, "/bin/velero"),
            ("post.hook.backup.velero.io/command", "/bin/thaw"),
        ]),
        "db-0",
    );
    let hook = hook.unwrap();
    assert_eq!(problems, []);
    assert_eq!(command(&hook), ["fsfreeze", "-f", "/data"]);
    assert_eq!((hook.source, &hook.post), (Source::Annotations, &None));
}

#[test]
fn veleros_mean_what_velero_makes_of_them() {
    let (hook, problems) = of_pod(
        &labels(&[
            (VELERO_PRE, "/sbin/fsfreeze --freeze /data"),
            ("pre.hook.backup.velero.io/container", "db"),
            ("pre.hook.backup.velero.io/on-error", "Continue"),
            ("pre.hook.backup.velero.io/timeout", "1m30s"),
            (
                "post.hook.backup.velero.io/command",
                r#"["/bin/thaw", "now"]"#,
            ),
        ]),
        "db-0",
    );
    let hook = hook.unwrap();
    assert_eq!(problems, []);
    // A text that is no list is one word.
    assert_eq!(command(&hook), ["/sbin/fsfreeze --freeze /data"]);
    let pre = hook.pre.unwrap();
    assert_eq!(pre.container.as_deref(), Some("db"));
    assert_eq!(pre.timeout, Duration::from_secs(90));
    assert_eq!(hook.on_error, OnError::Continue);
    assert_eq!(hook.post.unwrap().timeout, TIMEOUT);
}

#[test]
fn what_is_not_understood_is_told() {
    for (key, value, reason, said) in [
        (PRE, r#"["unclosed"#, "HookInvalid", "no JSON list"),
        (PRE, "", "HookInvalid", "is empty"),
        (
            "pre.hook.backup.holdfast.dev/on-error",
            "Maybe",
            "HookInvalid",
            "neither Fail nor",
        ),
        (
            "pre.hook.backup.holdfast.dev/timeout",
            "1h",
            "HookInvalid",
            "30s is taken",
        ),
        (
            "pre.hook.backup.holdfast.dev/watchdog",
            "no",
            "HookInvalid",
            "neither On nor Off",
        ),
        (
            "post.hook.backup.holdfast.dev/comand",
            "x",
            "HookInvalid",
            "is not known",
        ),
        (
            "k8up.io/backupcommand",
            "pg_dump",
            "HookUnsupported",
            "not supported",
        ),
    ] {
        let mut annotations = labels(&[(PRE, "/bin/freeze")]);
        annotations.insert(key.to_owned(), value.to_owned());
        let (_, problems) = of_pod(&annotations, "db-0");
        assert_eq!(problems.len(), 1, "{key}: {problems:?}");
        assert_eq!(problems[0].reason, reason, "{key}");
        let message = &problems[0].message;
        assert!(
            message.contains(said) && message.contains(key) && message.contains("db-0"),
            "{message}"
        );
    }
    assert_eq!(of_pod(&Labels::new(), "db-0"), (None, Vec::new()));
}

#[test]
fn a_pods_own_hooks_replace_the_general_ones_of_the_policy_and_no_others() {
    let mut selecting = freeze();
    selecting.name = "others".to_owned();
    selecting.pod_selector = Some(LabelSelector::default());
    let (policy, said) = mistakes(Scope::Namespace, vec![freeze(), selecting]);
    assert_eq!(said, "");
    let names = |hooks: Vec<Hook>| hooks.into_iter().map(|hook| hook.name).collect::<Vec<_>>();
    assert_eq!(names(chosen(&policy, None)), ["freeze"]);
    let annotations = labels(&[(PRE, "/bin/own")]);
    let own = of_pod(&annotations, "db-0").0;
    assert_eq!(names(chosen(&policy, own)), ["annotations"]);
    let none = Labels::new();
    let lines = explain(&policy, &[("db-0", &annotations), ("db-1", &none)]);
    assert_eq!(
        lines,
        [
            "pod db-0: hook of its annotations; before: runs /bin/own",
            "pod db-0: not hook freeze of the policy, since the pod has its own",
            "pod db-1: hook freeze of the policy; before: runs fsfreeze -f /data; after: runs fsfreeze -u /data",
            "pods that it selects: hook others of the policy; before: runs fsfreeze -f /data; after: runs \
             fsfreeze -u /data",
        ]
    );
}
