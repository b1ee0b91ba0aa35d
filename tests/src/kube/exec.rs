//! `pods/NAME/exec`: runs the command here, in the directory that stands for the pod's containers, with their
//! output on channels and the end as a status. Where the other side goes away the command is killed, as a node
//! may do; what it has started itself lives on.

use super::socket::{self, Socket};
use axum::body::Body;
use axum::extract::Query;
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// Serves a request for a command.
pub fn open(parts: Parts, room: Option<PathBuf>, mut cuts: watch::Receiver<u64>) -> Response<Body> {
    let words = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
    let words = words.map(|Query(words)| words).unwrap_or_default();
    let words = words.into_iter().filter(|(name, _)| name == "command");
    let command: Vec<String> = words.map(|(_, word)| word).collect();
    let Some(room) = room else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if !socket::is_asked(&parts) || command.is_empty() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    cuts.mark_unchanged();
    socket::open(parts, move |socket| serve(socket, command, room, cuts))
}

async fn serve(
    mut socket: Socket,
    command: Vec<String>,
    room: PathBuf,
    mut cuts: watch::Receiver<u64>,
) {
    let mut child = match start(&command, &room) {
        Ok(child) => child,
        Err(error) => {
            let said = format!("exec: \"{}\": {error}", command[0]);
            let status = json!({"status": "Failure", "reason": "InternalError", "message": said});
            return end(socket, &status).await;
        }
    };
    let (Some(mut out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
        return;
    };
    let (mut of_out, mut of_err) = ([0; 4096], [0; 4096]);
    let (mut has_out, mut has_err) = (true, true);
    let mut code = None;
    while has_out || has_err || code.is_none() {
        tokio::select! {
            read = out.read(&mut of_out), if has_out => match read {
                Ok(count @ 1..) => { socket.send(1, &of_out[..count]).await; }
                _ => has_out = false,
            },
            read = err.read(&mut of_err), if has_err => match read {
                Ok(count @ 1..) => { socket.send(2, &of_err[..count]).await; }
                _ => has_err = false,
            },
            ended = child.wait(), if code.is_none() => {
                code = Some(ended.ok().and_then(|ended| ended.code()).unwrap_or(137));
            }
            came = socket.next() => if came.is_none() { return kill(child).await },
            _ = cuts.changed() => return kill(child).await,
        }
    }
    let status = match code.unwrap_or(137) {
        0 => json!({"status": "Success"}),
        code => json!({
            "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
    };
    end(socket, &status).await;
}

fn start(command: &[String], room: &Path) -> std::io::Result<Child> {
    // An image without a shell.
    if command[0] == "/bin/sh" && room.join("no-shell").exists() {
        return Err(std::io::ErrorKind::NotFound.into());
    }
    Command::new(&command[0])
        .args(&command[1..])
        .current_dir(room)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

async fn kill(mut child: Child) {
    let _ = child.kill().await;
}

async fn end(mut socket: Socket, status: &Value) {
    socket.send(3, status.to_string().as_bytes()).await;
    socket.close().await;
}
