//! A Backup or a Restore from its making to its end: what is said of it on the way, and how its end ends a
//! command. The run is the cluster's: who stops waiting for it does not stop it.

use super::Cluster;
use super::api::{Answer, code, failure, failure_of_ours, text};
use super::kinds::Kind;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::bytes;
use crate::progress::Progress;
use crate::signals::interrupted;
use serde_json::Value;
use std::time::{Duration, Instant};

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the API server may be away meanwhile.
const AWAY: Duration = Duration::from_secs(120);

/// A run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its kind.
    pub kind: &'static Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Makes one; the object as the server took it.
pub async fn make(
    cluster: &Cluster,
    kind: &'static Kind,
    namespace: &str,
    object: &Value,
) -> Outcome<Run> {
    let made = cluster.create(kind, namespace, object).await;
    let made = made.map_err(|error| {
        let doing = format!(
            "create a {} in namespace {namespace}",
            text(&object["kind"])
        );
        failure_of_ours(cluster, kind, &doing, &error)
    })?;
    Ok(Run {
        kind,
        namespace: namespace.to_owned(),
        name: text(&made["metadata"]["name"]).to_owned(),
    })
}

impl Run {
    /// As it is said to people.
    pub fn label(&self) -> String {
        let one = self.kind.plural.trim_end_matches('s');
        format!("{one}/{}", self.name)
    }

    /// How to look at it later.
    pub fn look(&self) -> String {
        format!("kubectl get -n {} {}", self.namespace, self.label())
    }

    async fn get(&self, cluster: &Cluster) -> Answer<Value> {
        cluster.get(self.kind, &self.namespace, &self.name).await
    }

    /// Follows it to its end; the object as it is then.
    pub async fn follow(
        &self,
        cluster: &Cluster,
        timeout: Option<Duration>,
        quiet: bool,
    ) -> Outcome<Value> {
        tokio::select! {
            ended = self.until_ended(cluster, timeout, quiet) => ended,
            () = interrupted() => Err(Failure::with(
                Exit::Interrupted,
                format!("interrupted; {} goes on in the cluster: `{}`", self.label(), self.look()),
            )),
        }
    }

    async fn until_ended(
        &self,
        cluster: &Cluster,
        timeout: Option<Duration>,
        quiet: bool,
    ) -> Outcome<Value> {
        let began = Instant::now();
        let mut away: Option<Instant> = None;
        let mut said = String::new();
        let mut bar: Option<Progress> = None;
        loop {
            match self.get(cluster).await {
                Ok(object) => {
                    away = None;
                    if is_final(&object) {
                        return Ok(object);
                    }
                    let line = line(&object);
                    if line != said && !quiet {
                        bar = None;
                        eprintln!("{}: {line}", self.label());
                        said = line;
                    }
                    let done = &object["status"]["progress"];
                    if let Some(bytes_done) = done["bytesDone"].as_u64() {
                        let bar = bar.get_or_insert_with(|| Progress::new(self.label(), quiet));
                        let count = |field: &str| done[field].as_u64().unwrap_or(0);
                        bar.update(count("filesDone"), bytes_done, count("totalBytes"));
                    }
                }
                Err(error) if code(&error) == Some(404) => {
                    return Err(Failure::failed(format!(
                        "{} of namespace {} was deleted while it was waited for",
                        self.label(),
                        self.namespace
                    )));
                }
                Err(error) => {
                    let since = *away.get_or_insert_with(Instant::now);
                    let is_for_good = matches!(code(&error), Some(400..=499));
                    if is_for_good || since.elapsed() > AWAY {
                        let doing =
                            format!("look at {}, which goes on in the cluster", self.label());
                        return Err(failure(cluster, &doing, &error));
                    }
                }
            }
            if timeout.is_some_and(|timeout| began.elapsed() > timeout) {
                return Err(Failure::failed(format!(
                    "{} has not ended within {} s, and goes on: `{}`",
                    self.label(),
                    timeout.unwrap_or_default().as_secs(),
                    self.look()
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Whether nothing more will happen to it.
fn is_final(object: &Value) -> bool {
    matches!(
        text(&object["status"]["phase"]),
        "Completed" | "PartiallyFailed" | "Failed" | "RolledBack" | "Cancelled"
    )
}

/// How far it is, on one line.
fn line(object: &Value) -> String {
    let status = &object["status"];
    let mut said = match text(&status["phase"]) {
        "" => return "waits for the coordinator to see it".to_owned(),
        phase => phase.to_owned(),
    };
    let volumes = &status["volumes"];
    if let (Some(total), Some(done)) = (volumes["total"].as_i64(), volumes["done"].as_i64()) {
        said.push_str(&format!(", {done} of {total} volumes done"));
        if let Some(failed) = volumes["failed"].as_i64().filter(|failed| *failed > 0) {
            said.push_str(&format!(", {failed} failed"));
        }
    }
    for field in ["reason", "message"] {
        let word = text(&status[field]);
        if !word.is_empty() {
            said.push_str(if field == "reason" { ": " } else { ", " });
            said.push_str(word);
        }
    }
    said
}

/// What went wrong, line by line.
pub fn problems(object: &Value) -> Vec<String> {
    let status = &object["status"];
    let mut found = Vec::new();
    for result in status["results"].as_array().into_iter().flatten() {
        let phase = text(&result["phase"]);
        if !matches!(phase, "Completed" | "Running" | "Pending") {
            let why = [text(&result["reason"]), text(&result["detail"])];
            let why: Vec<&str> = why.into_iter().filter(|word| !word.is_empty()).collect();
            found.push(format!(
                "{} is {phase}: {}",
                text(&result["claim"]),
                why.join(", ")
            ));
        }
    }
    let listed = status["problems"].as_array();
    for problem in listed.into_iter().flatten() {
        found.push(format!(
            "{}: {} ({})",
            text(&problem["path"]),
            text(&problem["message"]),
            text(&problem["reason"])
        ));
    }
    let listed = listed.map_or(0, Vec::len) as u64;
    let count = status["problemCount"].as_u64().unwrap_or(listed);
    if count > listed {
        found.push(format!("and {} more paths", count - listed));
    }
    found
}

/// What was done, for people.
pub fn summary(object: &Value) -> String {
    let status = &object["status"];
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    if status["volumes"].is_object() {
        let volumes = &status["volumes"];
        return format!(
            "{} of {} volumes backed up, {} of files, {} added",
            number(&volumes["done"]),
            number(&volumes["total"]),
            bytes(number(&status["bytes"])),
            bytes(number(&status["addedBytes"]))
        );
    }
    let counts = &status["counts"];
    if !counts.is_object() {
        return String::new();
    }
    format!(
        "{} created, {} replaced, {} with metadata set, {} deleted, {} as they were; {} written",
        number(&counts["created"]),
        number(&counts["replaced"]),
        number(&counts["metadata"]),
        number(&counts["deleted"]),
        number(&counts["kept"]),
        bytes(number(&counts["writtenBytes"]))
    )
}

/// How a command ends whose run has ended so.
pub fn end(run: &Run, object: &Value) -> Outcome<()> {
    let status = &object["status"];
    let why = [text(&status["reason"]), text(&status["message"])];
    let why: Vec<&str> = why.into_iter().filter(|word| !word.is_empty()).collect();
    let why = match why.is_empty() {
        true => String::new(),
        false => format!(": {}", why.join(", ")),
    };
    let label = run.label();
    match text(&status["phase"]) {
        "Completed" => Ok(()),
        "PartiallyFailed" => Err(Failure::with(
            Exit::Incomplete,
            format!(
                "{label} is incomplete{why}; `{} -o yaml` has all of it",
                run.look()
            ),
        )),
        "RolledBack" => Err(Failure::failed(format!(
            "{label} failed, and the claim is as it was before{why}"
        ))),
        "Cancelled" => Err(Failure::failed(format!("{label} was cancelled{why}"))),
        _ => Err(Failure::failed(format!(
            "{label} failed{why}; `{} -o yaml` has all of it",
            run.look()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run() -> Run {
        Run {
            kind: &super::super::kinds::BACKUPS,
            namespace: "shop".to_owned(),
            name: "db-1".to_owned(),
        }
    }

    #[test]
    fn ends_are_exit_codes() {
        for (phase, exit) in [
            ("PartiallyFailed", Exit::Incomplete),
            ("Failed", Exit::Failed),
            ("RolledBack", Exit::Failed),
            ("Cancelled", Exit::Failed),
        ] {
            let object =
                json!({"status": {"phase": phase, "reason": "NodeGone", "message": "it went"}});
            assert!(is_final(&object));
            let failure = end(&run(), &object).unwrap_err();
            assert_eq!(failure.exit, exit, "{phase}");
            assert!(
                failure.message.contains("NodeGone, it went"),
                "{}",
                failure.message
            );
        }
        let done = json!({"status": {"phase": "Completed"}});
        assert!(is_final(&done) && end(&run(), &done).is_ok());
        for phase in ["", "Pending", "Running", "Restoring", "ScalingUp"] {
            assert!(!is_final(&json!({"status": {"phase": phase}})), "{phase}");
        }
    }

    #[test]
    fn how_far_it_is_and_what_went_wrong_is_said() {
        let object = json!({"status": {
            "phase": "Running", "volumes": {"total": 3, "done": 1, "failed": 1},
            "results": [
                {"claim": "a", "phase": "Completed"},
                {"claim": "b", "phase": "Failed", "reason": "NodeGone", "detail": "node-1"},
            ],
            "problems": [{"path": "x", "reason": "NoSpace", "message": "full"}], "problemCount": 3,
        }});
        assert_eq!(line(&object), "Running, 1 of 3 volumes done, 1 failed");
        assert_eq!(
            problems(&object),
            [
                "b is Failed: NodeGone, node-1",
                "x: full (NoSpace)",
                "and 2 more paths"
            ]
        );
        assert_eq!(line(&json!({})), "waits for the coordinator to see it");
    }
}
