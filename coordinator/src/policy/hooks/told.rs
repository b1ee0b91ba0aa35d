//! Hooks in words, for people.

use super::{Action, Hook, Source, Step, Target, chosen, of_pod};
use crate::policy::labels::Labels;

/// What runs around a volume's runs, for people: a line for each hook.
pub fn explain(policy: &[Hook], pods: &[(&str, &Labels)]) -> Vec<String> {
    let mut lines = Vec::new();
    for (pod, annotations) in pods {
        let own = of_pod(annotations, pod).0;
        let is_own = own.is_some();
        for hook in chosen(policy, own) {
            lines.push(format!("pod {pod}: {}", describe(&hook)));
        }
        let general = policy.iter().filter(|hook| hook.pods.is_none());
        for hook in general.filter(|_| is_own) {
            let name = &hook.name;
            lines.push(format!(
                "pod {pod}: not hook {name} of the policy, since the pod has its own"
            ));
        }
    }
    let selecting = policy.iter().filter(|hook| hook.pods.is_some());
    lines.extend(selecting.map(|hook| format!("pods that it selects: {}", describe(hook))));
    lines
}

fn describe(hook: &Hook) -> String {
    let from = match hook.source {
        Source::Policy => format!("hook {} of the policy", hook.name),
        Source::Annotations => "hook of its annotations".to_owned(),
        Source::VeleroAnnotations => "hook of its Velero annotations".to_owned(),
    };
    let mut parts = vec![from];
    for (word, step) in [("before", &hook.pre), ("after", &hook.post)] {
        if let Some(step) = step {
            parts.push(format!("{word}: {}", what(step)));
        }
    }
    parts.join("; ")
}

/// An action, for people.
fn what(step: &Step) -> String {
    match (&step.action, &step.container) {
        (Action::Exec(command), Some(container)) => {
            format!("runs {} in container {container}", command.join(" "))
        }
        (Action::Exec(command), None) => format!("runs {}", command.join(" ")),
        (Action::Http(request), _) => {
            let method = format!("{:?}", request.method).to_uppercase();
            match &request.target {
                Target::Pod(port, path) => format!("{method} :{port}{path}"),
                Target::Url(url) => format!("{method} {url}"),
            }
        }
    }
}
