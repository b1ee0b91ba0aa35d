//! Runs pre- and post-hooks, once each, and says how it went.

use super::exec::{self, End, ExecError, Known, Running};
use super::record::Unfinished;
use super::resolve::Place;
use super::script::{By, Mark, Script};
use super::{Failure, http};
use crate::kube::api::Watchdog;
use crate::policy::hooks::{Action, Request, Step, Target};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use std::time::Duration;

/// How long the start of a watchdog may take, besides the hook.
const START: Duration = Duration::from_secs(10);
/// How long an answer of the API may take.
const ANSWER: Duration = Duration::from_secs(30);

/// What hooks are run with.
#[derive(Clone)]
pub struct Actor {
    /// The cluster.
    pub client: Client,
}

/// A pre-hook that has ended well.
pub struct Frozen {
    /// Goes on until the watchdog has ended.
    pub running: Option<Running>,
    /// Of a container without a writable directory: the watchdog and the pre-hook.
    pub processes: Option<(String, String)>,
}

/// A pre-hook that failed.
pub struct NotFrozen {
    /// Why.
    pub failure: Failure,
    /// Whether it may have been begun: then the post-hook must run.
    pub maybe_begun: bool,
    /// Its connection, as long as it lasts.
    pub running: Option<Running>,
}

/// How an attempt at a post-hook went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was run.
    Ran(By),
    /// Its pod is gone.
    Gone,
    /// It was run and failed.
    Failed(String),
    /// It cannot be run now, says an API that answers.
    Unable(String),
    /// The API cannot be reached.
    Away(String),
}

/// Whether a hook is run with a watchdog in the container: its commands, if so.
pub fn watched(place: &Place) -> Option<(&[String], &Step, &[String])> {
    let (pre, post) = (place.hook.pre.as_ref()?, place.hook.post.as_ref()?);
    match (&pre.action, &post.action, place.hook.watchdog) {
        (Action::Exec(before), Action::Exec(after), Watchdog::On) => Some((before, post, after)),
        _ => None,
    }
}

impl Actor {
    /// Runs a pre-hook; `token`: with a watchdog of this word.
    pub async fn freeze(&self, place: &Place, token: Option<&str>) -> Result<Frozen, NotFrozen> {
        let nothing = Frozen {
            running: None,
            processes: None,
        };
        let Some(step) = &place.hook.pre else {
            return Ok(nothing);
        };
        // What is under the name may have become another pod since the places were looked up.
        let there = self.is_there((&place.namespace, &place.pod, &place.uid));
        if is_in_pod(step)
            && let Err(outcome) = there.await
        {
            let why = match outcome {
                Outcome::Unable(why) | Outcome::Away(why) | Outcome::Failed(why) => why,
                Outcome::Gone | Outcome::Ran(_) => "the pod is gone".to_owned(),
            };
            return Err(not_frozen(place, "HookFailed", &why, false, None));
        }
        match (&step.action, token, watched(place)) {
            (Action::Http(request), ..) => {
                let after = place.hook.post.as_ref().map(|_| place.hook.unfreeze_after);
                let sent = self.request(request, &place.ip, after, step.timeout).await;
                match sent {
                    Ok(()) => Ok(nothing),
                    Err(why) => Err(not_frozen(place, "HookFailed", &why, true, None)),
                }
            }
            (Action::Exec(_), Some(token), Some((before, post, after))) => {
                let script = Script {
                    unfreeze_after: place.hook.unfreeze_after,
                    post_timeout: post.timeout,
                    ..Script::new(token, before, after)
                };
                self.watched_freeze(place, step, &script).await
            }
            (Action::Exec(command), ..) => {
                let at = at(&place.namespace, &place.pod, &place.pre);
                match self.exec(at, command, step.timeout).await {
                    Ok(_) => Ok(nothing),
                    Err((error, why)) => {
                        // One that was refused may have begun: there are refusals that come after it.
                        let begun = !matches!(error, Some(ExecError::Gone | ExecError::Forbidden));
                        Err(not_frozen(place, reason(error.as_ref()), &why, begun, None))
                    }
                }
            }
        }
    }

    async fn watched_freeze(
        &self,
        place: &Place,
        step: &Step,
        script: &Script<'_>,
    ) -> Result<Frozen, NotFrozen> {
        if place.pre != place.post {
            let why = "its pre- and post-hook are in different containers, and a watchdog is in one: write \
                       watchdog: Off";
            return Err(not_frozen(place, "HookInvalid", why, false, None));
        }
        let at = at(&place.namespace, &place.pod, &place.pre);
        let command = script.freeze();
        let begun = tokio::time::timeout(
            ANSWER,
            exec::begin(&self.client, at, &command, script.token),
        );
        let mut running = match begun.await {
            Ok(Ok(running)) => running,
            Ok(Err(error)) => {
                let maybe = matches!(error, ExecError::Away(_));
                let why = error.to_string();
                return Err(not_frozen(place, reason(Some(&error)), &why, maybe, None));
            }
            Err(_) => {
                let why = "the cluster's API does not answer";
                return Err(not_frozen(place, "HookFailed", why, true, None));
            }
        };
        let has_said = |known: &Known| {
            let mut marks = known.marks.iter();
            marks.any(|mark| matches!(mark, Mark::Pre(_) | Mark::NoWatchdog | Mark::NoSleep))
        };
        let said = tokio::time::timeout(step.timeout + START, running.wait(has_said)).await;
        let Ok(known) = said else {
            let why = format!("it took longer than {}s", step.timeout.as_secs_f32());
            let why = with_output(why, &running.known());
            return Err(not_frozen(place, "HookFailed", &why, true, Some(running)));
        };
        let process =
            |wanted: fn(&Mark) -> Option<&String>| known.marks.iter().find_map(wanted).cloned();
        let watch = process(|mark| match mark {
            Mark::Watch(process) => Some(process),
            _ => None,
        });
        let run = process(|mark| match mark {
            Mark::Run(process) => Some(process),
            _ => None,
        });
        for mark in &known.marks {
            let (reason, why, begun) = match mark {
                Mark::Pre(0) => {
                    return Ok(Frozen {
                        running: Some(running),
                        processes: watch.map(|watch| (watch, run.unwrap_or_default())),
                    });
                }
                Mark::Pre(code) => ("HookFailed", ended(*code), true),
                Mark::NoWatchdog => (
                    "HookNoWatchdog",
                    "no watchdog could be started in the container (has it reached its limit of \
                     processes?), and without one nothing is frozen"
                        .to_owned(),
                    false,
                ),
                Mark::NoSleep => ("HookNeedsShell", needs_shell("sleep and mkdir"), false),
                _ => continue,
            };
            let why = with_output(why, &known);
            return Err(not_frozen(place, reason, &why, begun, Some(running)));
        }
        let (reason, why, begun) = match &known.end {
            Some(End::Exit(126 | 127)) => ("HookNeedsShell", needs_shell("/bin/sh"), false),
            Some(End::Refused(said)) if said.contains("/bin/sh") => {
                let why = format!("{}: {said}", needs_shell("/bin/sh"));
                ("HookNeedsShell", why, false)
            }
            Some(End::Refused(said)) => ("HookFailed", said.clone(), true),
            Some(End::Exit(code)) => ("HookFailed", ended(*code), true),
            Some(End::Cut) | None => (
                "HookFailed",
                "the connection was cut before it had ended".to_owned(),
                true,
            ),
        };
        let why = with_output(why, &known);
        Err(not_frozen(place, reason, &why, begun, None))
    }

    /// Tries to run a post-hook.
    pub async fn unfreeze(&self, record: &Unfinished) -> Outcome {
        let step = &record.post;
        let there = self.is_there((&record.namespace, &record.pod, &record.uid));
        if is_in_pod(step)
            && let Err(outcome) = there.await
        {
            return outcome;
        }
        let at = at(&record.namespace, &record.pod, &record.container);
        match (&step.action, &record.token) {
            (Action::Http(request), _) => {
                match self.request(request, &record.ip, None, step.timeout).await {
                    Ok(()) => Outcome::Ran(By::Own),
                    Err(why) => Outcome::Failed(why),
                }
            }
            (Action::Exec(command), Some(token)) => {
                let script = Script {
                    unfreeze_after: record.unfreeze_after,
                    post_timeout: step.timeout,
                    watch: &record.watch,
                    run: &record.run,
                    ..Script::new(token, &[], command)
                };
                self.watched_unfreeze(at, &script).await
            }
            (Action::Exec(command), None) => match self.exec(at, command, step.timeout).await {
                Ok(()) => Outcome::Ran(By::Own),
                Err((None | Some(ExecError::Late(_)), why)) => Outcome::Failed(why),
                Err((Some(ExecError::Away(_)), why)) => Outcome::Away(why),
                Err((Some(_), why)) => Outcome::Unable(why),
            },
        }
    }

    /// Whether the very pod is there: namespace, name and uid.
    async fn is_there(&self, (namespace, name, uid): (&str, &str, &str)) -> Result<(), Outcome> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let got = tokio::time::timeout(ANSWER, api.get_opt(name)).await;
        let pod = match got {
            Ok(Ok(pod)) => pod,
            Ok(Err(error)) => {
                return Err(match exec::read_error(&error) {
                    ExecError::Away(why) => Outcome::Away(why),
                    error => Outcome::Unable(error.to_string()),
                });
            }
            Err(_) => {
                return Err(Outcome::Away(
                    "the cluster's API does not answer".to_owned(),
                ));
            }
        };
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
        let is_there = pod.is_some_and(|pod| {
            let has_ended = matches!(phase(&pod).as_deref(), Some("Succeeded" | "Failed"));
            pod.metadata.uid.as_deref() == Some(uid) && !has_ended
        });
        if is_there { Ok(()) } else { Err(Outcome::Gone) }
    }

    async fn watched_unfreeze(&self, at: exec::Place<'_>, script: &Script<'_>) -> Outcome {
        let command = script.unfreeze();
        let begun = tokio::time::timeout(
            ANSWER,
            exec::begin(&self.client, at, &command, script.token),
        );
        let mut running = match begun.await {
            Ok(Ok(running)) => running,
            Ok(Err(ExecError::Away(why))) => return Outcome::Away(why),
            Ok(Err(error)) => return Outcome::Unable(error.to_string()),
            Err(_) => return Outcome::Away("the cluster's API does not answer".to_owned()),
        };
        // Somebody else may be at it, and the pre-hook may have to be ended.
        let limit = 2 * script.post_timeout + ANSWER;
        let Ok(known) = tokio::time::timeout(limit, running.wait(|_| false)).await else {
            return Outcome::Failed(format!("it took longer than {}s", limit.as_secs()));
        };
        for mark in &known.marks {
            return match mark {
                Mark::Post(by) => Outcome::Ran(*by),
                Mark::Failed(code) => Outcome::Failed(with_output(ended(*code), &known)),
                Mark::Again => {
                    Outcome::Failed("the pre-hook still runs and cannot be ended".to_owned())
                }
                _ => continue,
            };
        }
        match known.end {
            Some(End::Refused(why)) => Outcome::Unable(why),
            Some(End::Exit(code)) => Outcome::Unable(with_output(ended(code), &known)),
            Some(End::Cut) | None => {
                Outcome::Away("the connection was cut before it had ended".to_owned())
            }
        }
    }

    /// Runs a plain command. `None` as the error: it was run and failed.
    async fn exec(
        &self,
        at: exec::Place<'_>,
        command: &[String],
        timeout: Duration,
    ) -> Result<(), (Option<ExecError>, String)> {
        let known = |error: ExecError| {
            let why = error.to_string();
            (Some(error), why)
        };
        let run = async {
            let mut running = exec::begin(&self.client, at, command, "")
                .await
                .map_err(known)?;
            let ended = running.wait(|_| false).await;
            Ok((ended, running))
        };
        let late = |_| known(ExecError::Late(timeout));
        let (run, _) = tokio::time::timeout(timeout, run).await.map_err(late)??;
        match run.end.clone() {
            Some(End::Exit(0)) => Ok(()),
            Some(End::Exit(code)) => Err((None, with_output(ended(code), &run))),
            Some(End::Refused(why)) => Err(known(ExecError::Refused(why))),
            Some(End::Cut) | None => {
                let why = "the connection was cut before it had ended".to_owned();
                Err(known(ExecError::Away(why)))
            }
        }
    }

    async fn request(
        &self,
        request: &Request,
        ip: &str,
        unfreeze_after: Option<Duration>,
        timeout: Duration,
    ) -> Result<(), String> {
        http::send(request, ip, unfreeze_after, timeout).await
    }
}

/// Whether a hook acts on its pod, and not on an address of its own.
fn is_in_pod(step: &Step) -> bool {
    !matches!(
        &step.action,
        Action::Http(request) if matches!(request.target, Target::Url(_))
    )
}

fn at<'a>(namespace: &'a str, pod: &'a str, container: &'a str) -> exec::Place<'a> {
    exec::Place {
        namespace,
        pod,
        container,
    }
}

fn not_frozen(
    place: &Place,
    reason: &'static str,
    why: &str,
    maybe_begun: bool,
    running: Option<Running>,
) -> NotFrozen {
    // Arguments and addresses may hold what is not for everybody's eyes.
    let does = match place.hook.pre.as_ref().map(|step| &step.action) {
        Some(Action::Exec(command)) => {
            format!("runs {}", command.first().map_or("", String::as_str))
        }
        Some(Action::Http(_)) => "sends a request".to_owned(),
        None => String::new(),
    };
    let (hook, pod) = (&place.hook.name, &place.pod);
    NotFrozen {
        failure: Failure::new(
            reason,
            format!("pre-hook {hook} in pod {pod} ({does}): {why}"),
        ),
        maybe_begun,
        running,
    }
}

fn reason(error: Option<&ExecError>) -> &'static str {
    match error {
        Some(ExecError::Forbidden) => "HookNotAllowed",
        _ => "HookFailed",
    }
}

fn needs_shell(what: &str) -> String {
    format!(
        "the image has no {what}, which the watchdog needs that ends the freeze whatever happens: use an http \
         hook, or write watchdog: Off to do without it"
    )
}

fn ended(code: i32) -> String {
    match code {
        126 => "it could not be executed (exit code 126)".to_owned(),
        127 => "there is no such command in the image (exit code 127)".to_owned(),
        code => format!("it ended with exit code {code}"),
    }
}

fn with_output(why: String, known: &Known) -> String {
    match known.output() {
        output if output.is_empty() => why,
        output => format!("{why}; its output ends with: {output}"),
    }
}
