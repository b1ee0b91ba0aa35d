//! What a policy asks for before and after its runs: commands in containers, requests to pods.

use super::common::{LabelSelector, duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A pair of actions around every run of a volume: in each pod that uses it, or in each that is selected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.pre) || has(self.post)",
    "message": "at least one of pre and post must be given",
}, {
    "rule": "!(has(self.pre) && has(self.pre.exec) && has(self.post) && has(self.post.http)) || (has(self.watchdog) && self.watchdog == 'Off')",
    "message": "the watchdog in the container cannot send a request: give post an exec, or write watchdog: Off",
}]))]
pub struct HookSpec {
    /// Its name, in events and reports.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// The pods of the volume's namespace that it is for. None: those that use the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// The container in which commands run. None: the pod's default container, else its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub container: Option<String>,
    /// What is done before the volume is read, such as a freeze.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre: Option<HookAction>,
    /// What is done after it was read, whatever happened meanwhile, such as the end of the freeze.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post: Option<HookAction>,
    /// How long each of them may take; at most 10m. Usually 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration")]
    pub timeout: Option<String>,
    /// What becomes of the run if `pre` fails. That `post` failed is told in any case.
    #[serde(default)]
    pub on_error: OnError,
    /// So long after `pre` was begun `post` runs although the run goes on; by the watchdog in the container if
    /// nobody else does. From 1s to 1h; usually 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration")]
    pub unfreeze_after: Option<String>,
    /// Whether `pre` leaves a process in the container that runs `post` if nobody else does. It needs /bin/sh in
    /// the image. With Off only the coordinator sees to it that `post` runs.
    #[serde(default)]
    pub watchdog: Watchdog,
}

/// What becomes of a run whose pre-hook fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnError {
    /// It is not made.
    #[default]
    Fail,
    /// It is made, and the failure is told.
    Continue,
}

/// Whether a process in the container sees to the post-hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Watchdog {
    /// It does.
    #[default]
    On,
    /// None does.
    Off,
}

/// Something that is done: a command or a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.exec) != has(self.http)",
    "message": "exactly one of exec and http must be given",
}]))]
pub struct HookAction {
    /// Runs a command in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecAction>,
    /// Sends a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpAction>,
}

/// A command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecAction {
    /// The command and its arguments. No shell reads it; one that is needed is named, as in
    /// `[sh, -c, "sync; sync"]`.
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096)))]
    pub command: Vec<String>,
}

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.port) != has(self.url)",
    "message": "exactly one of port and url must be given",
}, {
    "rule": "!has(self.path) || has(self.port)",
    "message": "path needs a port; a url has its own",
}]))]
pub struct HttpAction {
    /// The port of the pod, which is asked over http.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// The path at the pod. Usually `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = "^/"))]
    pub path: Option<String>,
    /// Any http or https address. Only in a ClusterBackupPolicy: who may write policies of a namespace must
    /// not make the coordinator ask elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = "^https?://"))]
    pub url: Option<String>,
    /// The method.
    #[serde(default)]
    pub method: HttpMethod,
    /// Headers of the request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub headers: BTreeMap<String, String>,
    /// The status that means success. None: any from 200 to 299.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 599))]
    pub expected_status: Option<i32>,
}

/// A request's method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum HttpMethod {
    Get,
    #[default]
    Post,
    Put,
    Patch,
    Delete,
}
