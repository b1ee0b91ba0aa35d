//! `holdfast init`: a repository, its key file, and what to do with it.

use crate::args::{Format, Global, Init};
use crate::create::{create_repository, existing};
use crate::failure::{Failure, Outcome};
use crate::output::document;
use serde_json::json;

/// Creates it.
pub async fn run(global: &Global, options: &Init) -> Outcome<()> {
    let url = global
        .repo
        .as_deref()
        .ok_or_else(|| Failure::usage("say where: --repo URL (or HOLDFAST_REPO)"))?;
    if options.if_missing
        && let Some(found) = existing(global, url).await?
    {
        if !global.quiet {
            eprintln!("{url} holds repository {}", found.id);
        }
        return Ok(());
    }
    let (repository, key) = create_repository(global, url).await?;
    let id = repository.id().to_string();
    match global.output {
        Format::Json | Format::Yaml => document(
            global.output,
            &json!({"repository": id, "store": repository.store().url_redacted(), "key_file": key.display().to_string()}),
        ),
        Format::Name => {
            println!("{id}");
            Ok(())
        }
        Format::Table | Format::Wide => Ok(()),
    }
}
