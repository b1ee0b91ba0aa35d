//! Who may do what: the reviews that answer it, and the refusals that follow from it. Everybody may do everything
//! but what a test forbids.

use super::path::Target;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What is forbidden: who (the bearer token of a user, or the name of an account), and what, as `VERB KIND[/PART]`
/// with ` in NAMESPACE` where it is about one.
#[derive(Default)]
pub struct Forbidden(BTreeSet<(String, String)>);

impl Forbidden {
    /// Forbids it from now on.
    pub fn add(&mut self, who: &str, what: &str) {
        self.0.insert((who.to_owned(), what.to_owned()));
    }

    fn holds(&self, who: &str, what: &str, namespace: Option<&str>) -> bool {
        let exact = match namespace {
            None | Some("") => what.to_owned(),
            Some(namespace) => format!("{what} in {namespace}"),
        };
        let everywhere = format!("{what} anywhere");
        let is = |what: &str| self.0.contains(&(who.to_owned(), what.to_owned()));
        is(&exact) || is(&everywhere)
    }

    /// Whether a request is refused.
    pub fn refuses(&self, who: &str, verb: &str, target: &Target) -> bool {
        let part = match &target.part {
            Some(part) => format!("/{part}"),
            None => String::new(),
        };
        let what = format!("{verb} {}{part}", target.kind);
        self.holds(who, &what, target.namespace.as_deref())
    }

    /// The answer to a review, of the caller or of the user that it names.
    pub fn review(&self, caller: &str, mut review: Value) -> Value {
        let asked = &review["spec"]["resourceAttributes"];
        let text = |field: &str| asked[field].as_str().unwrap_or_default();
        let who = review["spec"]["user"].as_str().unwrap_or(caller);
        let kind = match text("group") {
            "" => format!("v1/{}", text("resource")),
            "apps" => format!("apps/v1/{}", text("resource")),
            group => format!("{group}/v1alpha1/{}", text("resource")),
        };
        let part = match text("subresource") {
            "" => String::new(),
            part => format!("/{part}"),
        };
        let what = format!("{} {kind}{part}", text("verb"));
        let refused = self.holds(who, &what, Some(text("namespace")));
        review["status"] = json!({"allowed": !refused});
        review
    }
}
