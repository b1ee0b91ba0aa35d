//! The hooks of a volume, read: from its policy, and from annotations of its pods.
//!
//! A pod that has hooks of its own in annotations gets those and none of the policy's that are for every pod of
//! the volume: who made the pod knows best how it is made quiet. Ours are heard before Velero's, and not mixed
//! with them. A hook of the policy with a `podSelector` runs in any case: somebody meant these pods.

mod told;

pub use told::explain;

use crate::kube::api::{
    HookAction, HookSpec, HttpAction, HttpMethod, LabelSelector, OnError, PolicySpec, Watchdog,
};
use crate::policy::error::Errors;
use crate::policy::labels::{Labels, Selector};
use crate::policy::validate::Scope;
use crate::policy::values::duration;
use crate::policy::words::Problem;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an action may take if nothing is said.
const TIMEOUT: Duration = Duration::from_secs(30);
/// And at most.
const MAX_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a freeze may last if nothing is said.
const UNFREEZE: Duration = Duration::from_secs(600);
/// And at most.
const MAX_UNFREEZE: Duration = Duration::from_secs(3600);
/// Hooks of a policy.
pub const MAX_HOOKS: usize = 16;
/// Bytes of a command with its arguments: it travels in the address of a request.
const MAX_COMMAND: usize = 16 * 1024;

const OURS: [&str; 2] = [
    "pre.hook.backup.holdfast.dev/",
    "post.hook.backup.holdfast.dev/",
];
const VELERO: [&str; 2] = ["pre.hook.backup.velero.io/", "post.hook.backup.velero.io/"];
const K8UP: &str = "k8up.io/backupcommand";
const WORDS: [&str; 6] = [
    "command",
    "container",
    "on-error",
    "timeout",
    "unfreeze-after",
    "watchdog",
];

/// A pair of actions around a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// Where it is from.
    pub source: Source,
    /// The pods it is for; `None`: those that use the volume.
    pub pods: Option<LabelSelector>,
    /// Before.
    pub pre: Option<Step>,
    /// After.
    pub post: Option<Step>,
    /// What becomes of the run if `pre` fails.
    pub on_error: OnError,
    /// How long after `pre` was begun `post` runs in any case.
    pub unfreeze_after: Duration,
    /// Whether `pre` leaves a watchdog in the container.
    pub watchdog: Watchdog,
}

/// Where a hook is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The policy.
    Policy,
    /// Annotations of ours on the pod.
    Annotations,
    /// Velero's annotations on the pod.
    VeleroAnnotations,
}

/// One action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// In which container; `None`: the pod's usual one.
    pub container: Option<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// A command.
    Exec(Vec<String>),
    /// A request.
    Http(Request),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Where to.
    pub target: Target,
    /// Its method.
    pub method: HttpMethod,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// The status that means success; `None`: any from 200 to 299.
    pub expected: Option<u16>,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// A port and a path of the pod.
    Pod(u16, String),
    /// Anywhere: only a ClusterBackupPolicy says so.
    Url(String),
}

/// Reads the hooks of a policy, and notes mistakes.
pub fn read(spec: &PolicySpec, scope: Scope, errors: &mut Errors) -> Vec<Hook> {
    if spec.hooks.len() > MAX_HOOKS {
        let message = format!("has more than {MAX_HOOKS} hooks");
        errors.add("spec.hooks", message);
    }
    let mut hooks: Vec<Hook> = Vec::new();
    for (index, hook) in spec.hooks.iter().enumerate() {
        let path = format!("spec.hooks[{index}]");
        if hooks.iter().any(|other| other.name == hook.name) {
            let message = format!("'{}' is the name of an earlier hook", hook.name);
            errors.add(format!("{path}.name"), message);
        }
        hooks.push(read_one(&path, hook, scope, errors));
    }
    hooks
}

fn read_one(path: &str, hook: &HookSpec, scope: Scope, errors: &mut Errors) -> Hook {
    if hook.name.is_empty() {
        errors.add(
            format!("{path}.name"),
            "is empty; write a name such as freeze",
        );
    }
    if let Some(selector) = &hook.pod_selector {
        Selector::read(&format!("{path}.podSelector"), selector, errors);
    }
    let mut span = |name: &str, text: &Option<String>, usual: Duration, least, most| {
        let path = format!("{path}.{name}");
        let read = text
            .as_ref()
            .map(|text| errors.check(&path, bounded(text, least, most)));
        read.flatten().unwrap_or(usual)
    };
    let timeout = span(
        "timeout",
        &hook.timeout,
        TIMEOUT,
        Duration::from_millis(1),
        MAX_TIMEOUT,
    );
    let second = Duration::from_secs(1);
    let unfreeze_after = span(
        "unfreezeAfter",
        &hook.unfreeze_after,
        UNFREEZE,
        second,
        MAX_UNFREEZE,
    );
    let mut step = |name: &str, action: &Option<HookAction>| {
        let action = action.as_ref()?;
        Some(Step {
            action: read_action(&format!("{path}.{name}"), action, scope, errors)?,
            container: hook.container.clone(),
            timeout,
        })
    };
    let (pre, post) = (step("pre", &hook.pre), step("post", &hook.post));
    if hook.pre.is_none() && hook.post.is_none() {
        errors.add(path, "has neither pre nor post; give it one of them");
    }
    if let (Some(pre), Some(post)) = (&pre, &post)
        && matches!(
            (&pre.action, &post.action),
            (Action::Exec(_), Action::Http(_))
        )
        && hook.watchdog == Watchdog::On
    {
        let message = "is a request, which the watchdog in the container cannot send; give it an exec, or \
                       write watchdog: Off";
        errors.add(format!("{path}.post"), message);
    }
    Hook {
        name: hook.name.clone(),
        source: Source::Policy,
        pods: hook.pod_selector.clone(),
        pre,
        post,
        on_error: hook.on_error,
        unfreeze_after,
        watchdog: hook.watchdog,
    }
}

fn bounded(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let read = duration(text)?;
    if read < least || read > most {
        let (least, most) = (least.as_secs().max(1), most.as_secs());
        return Err(format!("'{text}' is not from {least}s to {most}s"));
    }
    Ok(read)
}

fn read_action(
    path: &str,
    action: &HookAction,
    scope: Scope,
    errors: &mut Errors,
) -> Option<Action> {
    match (&action.exec, &action.http) {
        (Some(exec), None) => {
            let path = format!("{path}.exec.command");
            let command = errors.check(&path, check_command(&exec.command))?;
            Some(Action::Exec(command))
        }
        (None, Some(http)) => {
            let request = read_request(&format!("{path}.http"), http, scope, errors)?;
            Some(Action::Http(request))
        }
        _ => {
            errors.add(path, "must have either exec or http");
            None
        }
    }
}

fn check_command(command: &[String]) -> Result<Vec<String>, String> {
    if command.first().is_none_or(String::is_empty) {
        return Err("is empty; write a command such as [fsfreeze, --freeze, /data]".to_owned());
    }
    if command.iter().any(|word| word.contains('\0')) {
        return Err("has a NUL character".to_owned());
    }
    if command.iter().map(String::len).sum::<usize>() > MAX_COMMAND {
        let kib = MAX_COMMAND / 1024;
        return Err(format!(
            "is longer than {kib} KiB; put what it does into a script of the image"
        ));
    }
    Ok(command.to_vec())
}

fn read_request(
    path: &str,
    http: &HttpAction,
    scope: Scope,
    errors: &mut Errors,
) -> Option<Request> {
    for (name, value) in &http.headers {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let fits = !name.is_empty() && name.chars().all(is_token);
        if !fits || value.chars().any(|c| c.is_control() && c != '\t') {
            errors.add(format!("{path}.headers"), format!("'{name}' is no header"));
        }
    }
    let target = match (http.port, &http.url) {
        (Some(port), None) => {
            let port = u16::try_from(port).ok().filter(|port| *port > 0);
            let port = port.ok_or_else(|| "is no port; write a number from 1 to 65535".to_owned());
            let at = http.path.clone().unwrap_or_else(|| "/".to_owned());
            if !at.starts_with('/') || at.chars().any(|c| c.is_control() || c == ' ') {
                errors.add(
                    format!("{path}.path"),
                    "must begin with / and have no spaces",
                );
            }
            Target::Pod(errors.check(&format!("{path}.port"), port)?, at)
        }
        (None, Some(url)) => {
            let url = url.as_str();
            if scope == Scope::Namespace {
                let message =
                    "belongs to a ClusterBackupPolicy; a BackupPolicy names a port of its pods";
                errors.add(format!("{path}.url"), message);
            }
            if !(url.starts_with("http://") || url.starts_with("https://")) {
                errors.add(format!("{path}.url"), "must begin with http:// or https://");
            }
            Target::Url(url.to_owned())
        }
        _ => {
            errors.add(path, "must have either port or url");
            return None;
        }
    };
    let expected = http.expected_status.map(|status| {
        let status = u16::try_from(status)
            .ok()
            .filter(|s| (100..600).contains(s));
        status.ok_or_else(|| "is no status; write one such as 204".to_owned())
    });
    let expected = match expected {
        Some(status) => Some(errors.check(&format!("{path}.expectedStatus"), status)?),
        None => None,
    };
    Some(Request {
        target,
        method: http.method,
        headers: http.headers.clone(),
        expected,
    })
}

/// The hook that a pod's annotations ask for, and what is wrong with them.
pub fn of_pod(annotations: &Labels, pod: &str) -> (Option<Hook>, Vec<Problem>) {
    let mut problems = Vec::new();
    if annotations.is_empty() {
        return (None, problems);
    }
    if annotations.contains_key(K8UP) {
        problems.push(problem(
            "HookUnsupported",
            format!(
                "annotation {K8UP} of pod {pod} is not supported: a volume's files are backed up, not a \
                 command's output; let a pre-hook write the dump into the volume"
            ),
        ));
    }
    for (source, groups) in [
        (Source::Annotations, OURS),
        (Source::VeleroAnnotations, VELERO),
    ] {
        let says = |group: &str| annotations.keys().any(|key| key.starts_with(group));
        if !groups.iter().any(|group| says(group)) {
            continue;
        }
        let mut said = Said {
            annotations,
            pod,
            problems: &mut problems,
        };
        if let Some(hook) = said.read(source, groups) {
            return (Some(hook), problems);
        }
    }
    (None, problems)
}

struct Said<'a> {
    annotations: &'a Labels,
    pod: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl Said<'_> {
    fn read(&mut self, source: Source, [before, after]: [&str; 2]) -> Option<Hook> {
        if source == Source::Annotations {
            self.find_strangers([before, after]);
        }
        let (pre, post) = (self.step(before), self.step(after));
        if pre.is_none() && post.is_none() {
            return None;
        }
        let on_error = match self
            .annotations
            .get(&format!("{before}on-error"))
            .map(|word| &word[..])
        {
            None | Some("Fail") => OnError::Fail,
            Some("Continue") => OnError::Continue,
            Some(_) => {
                self.wrong(&format!("{before}on-error"), "is neither Fail nor Continue");
                OnError::Fail
            }
        };
        let (mut unfreeze_after, mut watchdog) = (UNFREEZE, Watchdog::On);
        if source == Source::Annotations {
            let second = Duration::from_secs(1);
            unfreeze_after = self.span(
                &format!("{before}unfreeze-after"),
                UNFREEZE,
                second,
                MAX_UNFREEZE,
            );
            let key = format!("{before}watchdog");
            match self.annotations.get(&key).map(|word| &word[..]) {
                None | Some("On") => {}
                Some("Off") => watchdog = Watchdog::Off,
                Some(_) => self.wrong(&key, "is neither On nor Off"),
            }
        }
        Some(Hook {
            name: "annotations".to_owned(),
            source,
            pods: None,
            pre,
            post,
            on_error,
            unfreeze_after,
            watchdog,
        })
    }

    fn step(&mut self, group: &str) -> Option<Step> {
        let key = format!("{group}command");
        let text = self.annotations.get(&key)?.trim();
        let command = if text.starts_with('[') {
            match serde_json::from_str(text) {
                Ok(command) => command,
                Err(error) => {
                    let why = format!("begins with '[' and is no JSON list of texts: {error}");
                    self.wrong(&key, &why);
                    // As Velero reads it.
                    vec![text.to_owned()]
                }
            }
        } else {
            vec![text.to_owned()]
        };
        let command = match check_command(&command) {
            Ok(command) => command,
            Err(why) => {
                self.wrong(&key, &why);
                return None;
            }
        };
        let least = Duration::from_millis(1);
        let container = self.annotations.get(&format!("{group}container"));
        Some(Step {
            action: Action::Exec(command),
            container: container.filter(|name| !name.is_empty()).cloned(),
            timeout: self.span(&format!("{group}timeout"), TIMEOUT, least, MAX_TIMEOUT),
        })
    }

    fn span(&mut self, key: &str, usual: Duration, least: Duration, most: Duration) -> Duration {
        let Some(text) = self.annotations.get(key) else {
            return usual;
        };
        bounded(text, least, most).unwrap_or_else(|why| {
            let usual = usual.as_secs();
            self.wrong(key, &format!("{why}; {usual}s is taken"));
            Duration::from_secs(usual)
        })
    }

    fn find_strangers(&mut self, groups: [&str; 2]) {
        let unknown = self.annotations.keys().filter(|key| {
            let rest = groups.iter().find_map(|group| key.strip_prefix(group));
            rest.is_some_and(|word| !WORDS.contains(&word))
        });
        let unknown: Vec<String> = unknown.cloned().collect();
        for key in unknown {
            self.wrong(&key, "is not known");
        }
    }

    fn wrong(&mut self, key: &str, why: &str) {
        let message = format!("annotation {key} of pod {}: {why}", self.pod);
        self.problems.push(problem("HookInvalid", message));
    }
}

fn problem(reason: &'static str, message: String) -> Problem {
    Problem { reason, message }
}

/// The hooks that run in a pod that uses the volume, in their order.
pub fn chosen(policy: &[Hook], own: Option<Hook>) -> Vec<Hook> {
    match own {
        Some(hook) => vec![hook],
        None => policy
            .iter()
            .filter(|hook| hook.pods.is_none())
            .cloned()
            .collect(),
    }
}

#[cfg(test)]
mod tests;
