//! `holdfast key`: the ways to a repository's key.

use crate::args::{Format, Global, Key};
use crate::connect;
use crate::failure::{Failure, Outcome};
use crate::output::document;
use holdfast_coordinator::repo::kek;
use serde_json::json;

/// Adds a passphrase, or lists.
pub async fn run(global: &Global, command: Key) -> Outcome<()> {
    let url = global
        .repo
        .as_deref()
        .ok_or_else(|| Failure::usage("say where: --repo URL (or HOLDFAST_REPO)"))?;
    let repository = connect::open_repository(global, url).await?;
    let store = repository.store();
    match command {
        Key::AddPassphrase {
            new_passphrase_file,
        } => {
            let passphrase = connect::read_passphrase(&new_passphrase_file)?;
            let key = connect::read_key(global, store, repository.config()).await?;
            let hash = holdfast_format::keyslot::PassphraseHash::DEFAULT;
            kek::add_passphrase(store, repository.config(), &key, &passphrase, hash)
                .await
                .map_err(|e| connect::failure(e.into()))?;
            if !global.quiet {
                println!(
                    "added: this passphrase opens repository {} now, with --passphrase-file",
                    repository.id()
                );
            }
        }
        Key::List => {
            let file = connect::key_file(global, repository.id());
            let there = if file.exists() { "there" } else { "not there" };
            let passphrases = kek::count_passphrases(store)
                .await
                .map_err(|e| connect::failure(e.into()))?;
            if matches!(global.output, Format::Json | Format::Yaml) {
                let found = json!({
                    "key_file": file.display().to_string(), "is_there": file.exists(), "passphrases": passphrases,
                });
                return document(global.output, &found);
            }
            if global.output == Format::Name {
                println!("{}", file.display());
                return Ok(());
            }
            println!("key file     {} ({there})", file.display());
            println!("passphrases  {passphrases}");
        }
    }
    Ok(())
}
