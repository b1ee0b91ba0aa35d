//! `kubectl holdfast backup [CLAIM…]`: makes a Backup for each claim, or one for a policy or a namespace, and
//! follows them if it is to wait.

use crate::args::{ClusterBackup, Format, Global};
use crate::cluster::Cluster;
use crate::cluster::api::{code, failure_of_ours, text};
use crate::cluster::kinds::{BACKUPS, CLUSTER_POLICIES, POLICIES};
use crate::cluster::names::{self, Named};
use crate::cluster::run::{self, Run};
use crate::failure::{Failure, Outcome};
use crate::output::document;
use serde_json::{Value, json};

/// Makes them, and waits.
pub async fn run(global: &Global, cluster: &Cluster, options: ClusterBackup) -> Outcome<()> {
    let wanted = wanted(cluster, &options).await?;
    let mut runs = Vec::new();
    for (namespace, prefix, spec) in wanted {
        let object = json!({
            "apiVersion": BACKUPS.api_version(), "kind": "Backup",
            "metadata": {
                "generateName": format!("{}-", prefix.chars().take(200).collect::<String>()),
                "namespace": namespace,
                "labels": {"app.kubernetes.io/created-by": "kubectl-holdfast"},
            },
            "spec": spec,
        });
        let made = run::make(cluster, &BACKUPS, &namespace, &object).await?;
        if !options.wait {
            say(global, &made, "started")?;
        }
        runs.push(made);
    }
    if !options.wait {
        return Ok(());
    }
    let mut worst = Ok(());
    for one in &runs {
        let ended = one.follow(cluster, options.timeout, global.quiet).await?;
        tell(global, one, &ended)?;
        worst = worse(worst, run::end(one, &ended));
    }
    worst
}

/// Namespace, beginning of the name, and spec of each.
async fn wanted(
    cluster: &Cluster,
    options: &ClusterBackup,
) -> Outcome<Vec<(String, String, Value)>> {
    let here = &cluster.namespace;
    if let Some(policy) = &options.policy {
        names::check("policy", policy)?;
        let kind = kind_of(cluster, here, policy).await?;
        let spec = json!({"policy": {"kind": kind, "name": policy}});
        return Ok(vec![(here.clone(), policy.clone(), spec)]);
    }
    if options.all {
        return Ok(vec![(here.clone(), "all".to_owned(), json!({}))]);
    }
    let claims = options.claims.iter();
    let named = claims.map(|text| {
        let (namespace, claim) = Named::claim(text, here)?;
        Ok((namespace, claim.clone(), json!({"claim": claim})))
    });
    named.collect()
}

/// Of a policy's two possible kinds the one that is there; that of the namespace goes first.
async fn kind_of(cluster: &Cluster, namespace: &str, name: &str) -> Outcome<&'static str> {
    for (kind, word) in [
        (&POLICIES, "BackupPolicy"),
        (&CLUSTER_POLICIES, "ClusterBackupPolicy"),
    ] {
        match cluster.get(kind, namespace, name).await {
            Ok(_) => return Ok(word),
            Err(error) if code(&error) == Some(404) => {}
            Err(error) => {
                let doing = format!("read {} {name}", kind.plural);
                return Err(failure_of_ours(cluster, kind, &doing, &error));
            }
        }
    }
    Err(Failure::failed(format!(
        "there is no policy {name}, neither in namespace {namespace} nor of the cluster; see `holdfast policies`"
    )))
}

/// One line for a run that was made.
pub fn say(global: &Global, run: &Run, what: &str) -> Outcome<()> {
    match global.output {
        Format::Json | Format::Yaml => document(
            global.output,
            &json!({"kind": run.kind.plural, "namespace": run.namespace, "name": run.name, "state": what}),
        ),
        Format::Name => {
            println!("{}", run.label());
            Ok(())
        }
        Format::Table | Format::Wide => {
            println!(
                "{} {what} in namespace {}; follow it: {} -w",
                run.label(),
                run.namespace,
                run.look()
            );
            Ok(())
        }
    }
}

/// What came of one that has ended.
pub fn tell(global: &Global, run: &Run, object: &Value) -> Outcome<()> {
    for problem in run::problems(object) {
        eprintln!("problem: {problem}");
    }
    match global.output {
        Format::Json | Format::Yaml => {
            let mut object = object.clone();
            if let Some(meta) = object["metadata"].as_object_mut() {
                meta.remove("managedFields");
            }
            document(global.output, &object)
        }
        Format::Name => {
            println!("{}", run.label());
            Ok(())
        }
        Format::Table | Format::Wide if global.quiet => Ok(()),
        Format::Table | Format::Wide => {
            let phase = text(&object["status"]["phase"]);
            println!("{}: {phase}: {}", run.label(), run::summary(object));
            Ok(())
        }
    }
}

/// The worse of two ends: a failure before what is incomplete.
fn worse(one: Outcome<()>, other: Outcome<()>) -> Outcome<()> {
    use crate::failure::Exit;
    match (one, other) {
        (Ok(()), other) => other,
        (one, Ok(())) => one,
        (Err(one), Err(other)) => match (one.exit, other.exit) {
            (Exit::Incomplete, exit) if exit != Exit::Incomplete => Err(other),
            _ => {
                eprintln!("holdfast: {}", other.message);
                Err(one)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn a_failure_is_worse_than_what_is_incomplete() {
        let incomplete = || Err(Failure::with(Exit::Incomplete, ""));
        let failed = || Err(Failure::failed(""));
        let exit = |end: Outcome<()>| end.map_err(|failure| failure.exit);
        assert_eq!(exit(worse(incomplete(), failed())), Err(Exit::Failed));
        assert_eq!(exit(worse(failed(), incomplete())), Err(Exit::Failed));
        assert_eq!(exit(worse(Ok(()), incomplete())), Err(Exit::Incomplete));
        assert_eq!(exit(worse(Ok(()), Ok(()))), Ok(()));
    }
}
