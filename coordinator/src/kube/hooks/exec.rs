//! Runs a command in a container, through the API. Nothing is written to it; of its output the last bytes are
//! kept. Dropping a run cuts the connection; what becomes of the command then is the node's to say.

use super::script::{Mark, mark};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::AttachParams;
use kube::client::UpgradeConnectionError;
use kube::{Api, Client};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Output that is kept.
const KEPT: usize = 4096;
/// Longest line in which a mark is looked for.
const LINE: usize = 4096;
/// How long output may take to come after the end of its command.
const DRAIN: Duration = Duration::from_secs(1);
/// Marks of one run: a script sets fewer.
const MARKS: usize = 8;

/// Why a command was not run, or how it went is not known.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ExecError {
    /// There is no such pod.
    #[error("the pod is gone")]
    Gone,
    /// The API refuses.
    #[error(
        "the coordinator may not run commands in containers: allow it pods/exec, with the chart's value \
         coordinator.hooks.enabled"
    )]
    Forbidden,
    /// The API answers, and the command cannot be run.
    #[error("{0}")]
    Refused(String),
    /// The API cannot be reached, or the connection was cut.
    #[error("{0}")]
    Away(String),
    /// It took too long.
    #[error("it took longer than {}s", .0.as_secs_f32())]
    Late(Duration),
}

/// What is known of a run.
#[derive(Debug, Default, Clone)]
pub struct Known {
    /// The last of its output.
    tail: VecDeque<u8>,
    /// What a script said of itself.
    pub marks: Vec<Mark>,
    /// Its end.
    pub end: Option<End>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The command ended with this code.
    Exit(i32),
    /// It could not be run.
    Refused(String),
    /// The connection was cut.
    Cut,
}

impl Known {
    /// The last of its output, for people.
    pub fn output(&self) -> String {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

/// A command that runs.
pub struct Running {
    known: watch::Receiver<Known>,
    pump: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// Where a command runs.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The pod.
    pub pod: &'a str,
    /// The container.
    pub container: &'a str,
}

/// Begins a command. Lines with this token are marks of a script.
pub async fn begin(
    client: &Client,
    place: Place<'_>,
    command: &[String],
    token: &str,
) -> Result<Running, ExecError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), place.namespace);
    let params = AttachParams::default()
        .container(place.container)
        .stdin(false)
        .stdout(true)
        .stderr(true)
        .tty(false);
    let process = api.exec(place.pod, command.to_vec(), &params).await;
    let mut process = process.map_err(|error| read_error(&error))?;
    let (sender, known) = watch::channel(Known::default());
    let token = token.to_owned();
    let pump = tokio::spawn(async move {
        let (out, err) = (process.stdout(), process.stderr());
        let status = process.take_status();
        let status = async {
            match status {
                Some(status) => status.await,
                None => None,
            }
        };
        let reads = async {
            tokio::join!(read(out, &sender, Some(&token)), read(err, &sender, None));
        };
        // Where the connection breaks, the streams do not end; that there will be no status is known.
        let (mut status, mut reads) = (std::pin::pin!(status), std::pin::pin!(reads));
        let status = tokio::select! {
            status = &mut status => {
                let _ = tokio::time::timeout(DRAIN, reads).await;
                status
            }
            () = &mut reads => status.await,
        };
        sender.send_modify(|known| known.end = Some(read_status(status)));
        drop(process);
    });
    Ok(Running { known, pump })
}

impl Running {
    /// Waits until what is known is enough, or the run has ended.
    pub async fn wait(&mut self, enough: impl Fn(&Known) -> bool) -> Known {
        let reached = self
            .known
            .wait_for(|known| known.end.is_some() || enough(known))
            .await;
        match reached {
            Ok(known) => known.clone(),
            // The pump has died.
            Err(_) => Known {
                end: Some(End::Cut),
                ..Known::default()
            },
        }
    }

    /// What is known so far.
    pub fn known(&self) -> Known {
        self.known.borrow().clone()
    }
}

async fn read(
    stream: Option<impl AsyncRead + Unpin>,
    known: &watch::Sender<Known>,
    token: Option<&str>,
) {
    let Some(mut stream) = stream else { return };
    let mut buffer = [0; 1024];
    let mut line = Vec::new();
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let mut kept = Vec::with_capacity(count);
        let mut marks = Vec::new();
        for byte in &buffer[..count] {
            match token {
                // A line of ours is not the hook's output; what may become one waits.
                Some(token) if *byte == b'\n' => {
                    match mark(&String::from_utf8_lossy(&line), token) {
                        Some(mark) => marks.push(mark),
                        None => kept.extend_from_slice(&line),
                    }
                    line.clear();
                    kept.push(b'\n');
                }
                Some(_) if line.len() < LINE => line.push(*byte),
                Some(_) => kept.push(*byte),
                None => kept.push(*byte),
            }
        }
        known.send_modify(|known| {
            keep(&mut known.tail, &kept);
            let room = MARKS.saturating_sub(known.marks.len());
            known.marks.extend(marks.into_iter().take(room));
        });
    }
    known.send_modify(|known| keep(&mut known.tail, &line));
}

fn keep(tail: &mut VecDeque<u8>, more: &[u8]) {
    tail.extend(&more[more.len().saturating_sub(KEPT)..]);
    let over = tail.len().saturating_sub(KEPT);
    tail.drain(..over);
}

/// The code of the command, which comes as an object.
fn read_status(status: Option<Status>) -> End {
    let Some(status) = status else {
        return End::Cut;
    };
    if status.status.as_deref() == Some("Success") {
        return End::Exit(0);
    }
    let causes = status
        .details
        .and_then(|details| details.causes)
        .unwrap_or_default();
    let code = causes
        .iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    match code.and_then(|cause| cause.message.as_deref()?.parse().ok()) {
        Some(code) => End::Exit(code),
        None => End::Refused(
            status
                .message
                .unwrap_or_else(|| "no reason is given".to_owned()),
        ),
    }
}

/// What an error of the API means for a hook.
pub fn read_error(error: &kube::Error) -> ExecError {
    let code = match error {
        kube::Error::Api(status) => Some(status.code),
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code)) => {
            Some(code.as_u16())
        }
        _ => None,
    };
    match code {
        Some(404) => ExecError::Gone,
        Some(403) => ExecError::Forbidden,
        Some(code @ 400..500) if code != 401 && code != 429 => {
            ExecError::Refused(format!("the cluster's API refuses it: {error}"))
        }
        _ => ExecError::Away(format!("the cluster's API cannot be asked: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn codes_come_from_the_status() {
        let status = |value| serde_json::from_value(value).unwrap();
        let failed = json!({
            "status": "Failure", "reason": "NonZeroExitCode", "message": "exit code 3",
            "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
        });
        let refused =
            json!({"status": "Failure", "reason": "InternalError", "message": "no /bin/sh"});
        for (value, expected) in [
            (json!({"status": "Success"}), End::Exit(0)),
            (failed, End::Exit(3)),
            (refused, End::Refused("no /bin/sh".to_owned())),
        ] {
            assert_eq!(read_status(Some(status(value))), expected);
        }
        assert_eq!(read_status(None), End::Cut);
    }

    #[tokio::test]
    async fn marks_are_taken_out_and_the_last_bytes_kept() {
        let (sender, known) = watch::channel(Known::default());
        let noise = "x".repeat(10_000);
        let text = format!("{noise}\n\nholdfast-abc pre 3\nthe end\nholdfast-xyz pre 0");
        read(Some(text.as_bytes()), &sender, Some("abc")).await;
        let known = known.borrow().clone();
        assert_eq!(known.marks, [Mark::Pre(3)]);
        assert!(known.output().ends_with("the end\nholdfast-xyz pre 0"));
        assert_eq!(known.tail.len(), KEPT);
    }
}
