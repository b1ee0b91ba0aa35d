//! The kinds of objects that are asked for: where they are, and what people call them.

/// A kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// `api/v1`, or `apis/GROUP/VERSION`.
    pub root: &'static str,
    /// As paths and rights name it.
    pub plural: &'static str,
    /// Whether its objects are in namespaces.
    pub is_namespaced: bool,
}

const fn kind(root: &'static str, plural: &'static str, is_namespaced: bool) -> Kind {
    Kind {
        root,
        plural,
        is_namespaced,
    }
}

const CORE: &str = "api/v1";
const APPS: &str = "apis/apps/v1";
const OURS: &str = "apis/holdfast.dev/v1alpha1";
const REVIEWS: &str = "apis/authorization.k8s.io/v1";

/// Pods.
pub const PODS: Kind = kind(CORE, "pods", true);
/// Nodes.
pub const NODES: Kind = kind(CORE, "nodes", false);
/// Events.
pub const EVENTS: Kind = kind(CORE, "events", true);
/// ConfigMaps.
pub const CONFIG_MAPS: Kind = kind(CORE, "configmaps", true);
/// Services.
pub const SERVICES: Kind = kind(CORE, "services", true);
/// DaemonSets.
pub const DAEMON_SETS: Kind = kind(APPS, "daemonsets", true);
/// StatefulSets.
pub const STATEFUL_SETS: Kind = kind(APPS, "statefulsets", true);
/// Policies of namespaces.
pub const POLICIES: Kind = kind(OURS, "backuppolicies", true);
/// Policies of the cluster.
pub const CLUSTER_POLICIES: Kind = kind(OURS, "clusterbackuppolicies", false);
/// How volumes are protected.
pub const PROTECTIONS: Kind = kind(OURS, "volumeprotections", true);
/// Runs.
pub const BACKUPS: Kind = kind(OURS, "backups", true);
/// Restores.
pub const RESTORES: Kind = kind(OURS, "restores", true);
/// Definitions of kinds.
pub const DEFINITIONS: Kind = kind(
    "apis/apiextensions.k8s.io/v1",
    "customresourcedefinitions",
    false,
);
/// What the user may do.
pub const SELF_REVIEWS: Kind = kind(REVIEWS, "selfsubjectaccessreviews", false);
/// What somebody else may do.
pub const REVIEWS_OF_OTHERS: Kind = kind(REVIEWS, "subjectaccessreviews", false);

impl Kind {
    /// Its API group; empty: the core.
    pub fn group(&self) -> &'static str {
        let mut parts = self.root.split('/');
        match (parts.next(), parts.next()) {
            (Some("apis"), Some(group)) => group,
            _ => "",
        }
    }

    /// Its group and version, as objects carry it.
    pub fn api_version(&self) -> &'static str {
        self.root.split_once('/').map_or("", |(_, rest)| rest)
    }

    /// The path of its objects, or of one.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut path = format!("/{}", self.root);
        if let Some(namespace) = namespace.filter(|_| self.is_namespaced) {
            path.push_str(&format!("/namespaces/{namespace}"));
        }
        path.push('/');
        path.push_str(self.plural);
        if let Some(name) = name {
            path.push('/');
            path.push_str(name);
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(PODS.path(None, None), "/api/v1/pods");
        assert_eq!(
            PODS.path(Some("a"), Some("b")),
            "/api/v1/namespaces/a/pods/b"
        );
        assert_eq!(NODES.path(Some("a"), None), "/api/v1/nodes");
        assert_eq!(
            BACKUPS.path(Some("a"), None),
            "/apis/holdfast.dev/v1alpha1/namespaces/a/backups"
        );
        assert_eq!((PODS.group(), BACKUPS.group()), ("", "holdfast.dev"));
        assert_eq!(BACKUPS.api_version(), "holdfast.dev/v1alpha1");
        assert_eq!(PODS.api_version(), "v1");
    }
}
