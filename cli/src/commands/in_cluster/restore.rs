//! `kubectl holdfast restore CLAIM`: into a new claim, over the claim itself, or into a directory of this host.
//! Which of them is never guessed.

use super::backup::{say, tell};
use crate::args::{ClusterRestore, Global, Restore};
use crate::cluster::Cluster;
use crate::cluster::kinds::RESTORES;
use crate::cluster::names::{self, Named};
use crate::cluster::run;
use crate::failure::{Exit, Failure, Outcome};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};

/// Makes a Restore, and follows it; or restores here.
pub async fn run(global: &Global, cluster: &Cluster, options: ClusterRestore) -> Outcome<()> {
    if let Some(target) = options.target.clone() {
        let restore = Restore {
            snapshot: selector(&options, &cluster.namespace)?,
            target,
            in_place: false,
            delete: false,
            special: options.special,
            dry_run: options.dry_run,
            strict: false,
            node: None,
        };
        return crate::commands::restore::run(global, restore).await;
    }
    let (namespace, claim) = Named::claim(&options.claim, &cluster.namespace)?;
    if options.to_claim.is_none() && !options.in_place {
        return Err(Failure::usage(format!(
            "say where {namespace}/{claim} is to be restored to:\n  \
             --to-claim NEW   into a new claim, which leaves {claim} as it is (the safe way)\n  \
             --in-place       over what {claim} holds now, after a snapshot of it\n  \
             --target DIR     into a directory of this host"
        )));
    }
    let (into, object) = object(&options, &namespace, &claim)?;
    if options.in_place && !options.dry_run && !options.yes {
        confirm(&namespace, &claim)?;
    }
    let made = run::make(cluster, &RESTORES, &into, &object).await?;
    if !options.wait && !options.dry_run {
        return say(global, &made, "started");
    }
    let ended = made.follow(cluster, options.timeout, global.quiet).await?;
    tell(global, &made, &ended)?;
    run::end(&made, &ended)
}

/// The snapshot of a claim, as the verbs that read snapshots name it.
fn selector(options: &ClusterRestore, namespace: &str) -> Outcome<String> {
    let text = &options.claim;
    if let Some(id) = &options.snapshot {
        let path = text
            .split_once(":/")
            .map_or(String::new(), |(_, path)| format!(":/{path}"));
        return Ok(format!("{id}{path}"));
    }
    let (head, path) = match text.split_once(":/") {
        Some((head, path)) => (head, format!(":/{path}")),
        None => (&text[..], String::new()),
    };
    let is_id = head.len() >= 4 && head.bytes().all(|byte| byte.is_ascii_hexdigit());
    if head.contains('@') || (is_id && options.as_of.is_none()) {
        return names::selector(text, namespace);
    }
    let at = options.as_of.as_deref().unwrap_or("latest");
    Ok(format!("{}@{at}{path}", names::volume(head, namespace)?))
}

/// The namespace that the Restore belongs to, and itself.
fn object(options: &ClusterRestore, namespace: &str, claim: &str) -> Outcome<(String, Value)> {
    let into = options.to_namespace.as_deref().unwrap_or(namespace);
    for name in [
        &options.to_claim,
        &options.to_namespace,
        &options.storage_class,
    ] {
        name.iter()
            .try_for_each(|name| names::check("name", name))?;
    }
    let mut source = match &options.snapshot {
        Some(id) => json!({"snapshot": id.to_ascii_lowercase()}),
        None if into == namespace => json!({"claim": {"name": claim}}),
        None => json!({"claim": {"name": claim, "namespace": namespace}}),
    };
    if let Some(at) = as_of(options.as_of.as_deref())? {
        source["asOf"] = json!(at.to_string());
    }
    let target = match &options.to_claim {
        Some(name) => {
            let mut new = json!({"name": name});
            if let Some(class) = &options.storage_class {
                new["storageClassName"] = json!(class);
            }
            json!({"newClaim": new})
        }
        None => json!({"existingClaim": {"name": claim}}),
    };
    let mut spec = json!({"source": source, "target": target});
    if let Some(path) = &options.path {
        let path = path.trim_matches('/');
        if path.is_empty() {
            return Err(Failure::usage(
                "--path names a file or directory of the volume; leave it out for all",
            ));
        }
        spec["path"] = json!(path);
    }
    for (field, is_set) in [
        ("scaleDown", options.scale_down),
        ("deleteExtras", options.delete),
        ("special", options.special),
        ("verify", options.verify),
        ("rollback", options.rollback),
        ("dryRun", options.dry_run),
    ] {
        if is_set {
            spec[field] = json!(true);
        }
    }
    let prefix: String = claim.chars().take(200).collect();
    let object = json!({
        "apiVersion": RESTORES.api_version(), "kind": "Restore",
        "metadata": {
            "generateName": format!("{prefix}-"), "namespace": into,
            "labels": {"app.kubernetes.io/created-by": "kubectl-holdfast"},
        },
        "spec": spec,
    });
    Ok((into.to_owned(), object))
}

/// A time as it was typed: RFC 3339, a date (its last second, UTC), or the newest.
fn as_of(text: Option<&str>) -> Outcome<Option<Timestamp>> {
    let Some(text) = text.filter(|text| *text != "latest") else {
        return Ok(None);
    };
    let of_date = |date: Date| {
        let end = date.at(23, 59, 59, 0).to_zoned(TimeZone::UTC);
        end.map(|end| end.timestamp()).ok()
    };
    let date = text.parse::<Date>().ok().filter(|_| text.len() == 10);
    let found = match date {
        Some(date) => of_date(date),
        None => text.parse().ok(),
    };
    found.map(Some).ok_or_else(|| {
        Failure::usage(format!(
            "--as-of {text:?} is no time: use RFC 3339 (2026-11-21T10:00:00Z), a date (2026-11-21, UTC) or latest"
        ))
    })
}

/// Asks, at a terminal; elsewhere --yes must have been said.
fn confirm(namespace: &str, claim: &str) -> Outcome<()> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::with(
            Exit::Refused,
            format!(
                "a restore in place overwrites what {namespace}/{claim} holds, and there is no terminal to ask at: \
                 give --yes"
            ),
        ));
    }
    eprint!("This overwrites what {namespace}/{claim} holds now. Type the claim's name to go on: ");
    std::io::stderr().flush()?;
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed)?;
    match typed.trim() == claim {
        true => Ok(()),
        false => Err(Failure::with(Exit::Refused, "nothing was done")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{ClusterCli, ClusterCommand};
    use clap::Parser;

    fn options(line: &str) -> ClusterRestore {
        let words = ["holdfast", "restore"].into_iter().chain(line.split(' '));
        match ClusterCli::try_parse_from(words).unwrap().command {
            ClusterCommand::Restore(options) => options,
            other => panic!("{other:?}"),
        }
    }

    fn spec(line: &str) -> Value {
        object(&options(line), "shop", "db").unwrap().1["spec"].take()
    }

    #[test]
    fn every_option_is_in_the_object() {
        assert_eq!(
            spec(
                "db --as-of 2026-11-21 --to-claim db-2 --storage-class fast --path /etc/x/ --verify"
            ),
            json!({
                "source": {"claim": {"name": "db"}, "asOf": "2026-11-21T23:59:59Z"},
                "target": {"newClaim": {"name": "db-2", "storageClassName": "fast"}},
                "path": "etc/x", "verify": true,
            })
        );
        assert_eq!(
            spec(
                "db --in-place --scale-down --delete --dry-run --rollback --special --as-of latest"
            ),
            json!({
                "source": {"claim": {"name": "db"}}, "target": {"existingClaim": {"name": "db"}},
                "scaleDown": true, "deleteExtras": true, "dryRun": true, "rollback": true, "special": true,
            })
        );
        let (into, made) = object(
            &options("db --to-claim db --to-namespace test"),
            "shop",
            "db",
        )
        .unwrap();
        assert_eq!(into, "test");
        assert_eq!(made["spec"]["source"]["claim"]["namespace"], "shop");
        assert_eq!(
            spec("db --snapshot 0A1b2c --to-claim x")["source"],
            json!({"snapshot": "0a1b2c"})
        );
    }

    #[test]
    fn what_would_mean_nothing_is_refused() {
        for line in [
            "db --to-claim a --in-place",
            "db --to-claim a --scale-down",
            "db --in-place --to-namespace b",
            "db --in-place --storage-class b",
            "db --to-claim a --delete",
            "db --as-of latest --snapshot 0a1b --in-place",
            "db --target d --wait",
            "db --target d --path x",
            "db --in-place --timeout 1m",
            "db --in-place --rollback",
        ] {
            let words = ["holdfast", "restore"].into_iter().chain(line.split(' '));
            assert!(ClusterCli::try_parse_from(words).is_err(), "{line}");
        }
        for wrong in ["yesterday", "2026-13-01", "2026-11-21T10:00:00"] {
            assert_eq!(as_of(Some(wrong)).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn here_a_snapshot_is_named_by_claim_time_or_id() {
        for (line, expected) in [
            ("db --target d", "shop/db@latest"),
            ("pvc/db:/etc --target d", "shop/db@latest:/etc"),
            ("db --as-of 2026-11-21 --target d", "shop/db@2026-11-21"),
            ("bank/db@latest:/etc --target d", "bank/db@latest:/etc"),
            ("0a1b2c3d:/x --target d", "0a1b2c3d:/x"),
            ("db --snapshot 0a1b --target d", "0a1b"),
        ] {
            assert_eq!(
                selector(&options(line), "shop").unwrap(),
                expected,
                "{line}"
            );
        }
    }
}
