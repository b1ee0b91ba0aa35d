//! Makes a repository, its key file and what opens it. What fails leaves nothing behind.

use crate::args::Global;
use crate::connect::failure;
use crate::failure::{Exit, Failure, Outcome};
use crate::places::{check_home, key_file, read_passphrase, refuse_key_of_another};
use holdfast_coordinator::repo::{CreateOptions, Repository, Store, StoreOptions, StoreUrl, kek};
use holdfast_format::id::RepositoryId;
use holdfast_format::keys::Kek;
use holdfast_format::keyslot::PassphraseHash;
use holdfast_format::repository::RepositoryConfig;
use holdfast_runtime::clock::{Clock, SystemClock};
use std::path::PathBuf;

/// The repository that is there already, if any. Where a passphrase is named that is to open it and no
/// passphrase does yet, because the run that made it was killed, the key file adds it.
pub async fn existing(global: &Global, url: &str) -> Outcome<Option<RepositoryConfig>> {
    let absent = matches!(StoreUrl::parse(url), Ok(StoreUrl::Directory(dir)) if !dir.exists());
    if absent {
        return Ok(None);
    }
    let store = Store::open(url, &StoreOptions::default()).map_err(|e| failure(e.into()))?;
    let Some(found) = find(&store).await? else {
        return Ok(None);
    };
    let Some(file) = global.passphrase_file.as_deref() else {
        return Ok(Some(found));
    };
    let passphrase = read_passphrase(file)?;
    let slots = kek::count_passphrases(&store).await;
    if slots.map_err(|e| failure(e.into()))? > 0 {
        let opened = kek::unlock(&store, &found, &passphrase).await;
        opened.map_err(|e| failure(e.into()))?;
        return Ok(Some(found));
    }
    let key = kek::read_key_file(&key_file(global, found.id)).map_err(|e| failure(e.into()))?;
    let hash = PassphraseHash::DEFAULT;
    let added = kek::add_passphrase(&store, &found, &key, &passphrase, hash).await;
    added.map_err(|e| failure(e.into()))?;
    Ok(Some(found))
}

/// The repository in a store; `None` where there is none.
async fn find(store: &Store) -> Outcome<Option<RepositoryConfig>> {
    match Repository::find(store).await {
        Ok(found) => Ok(Some(found)),
        Err(error) => {
            let failure = failure(error.into());
            match failure.exit {
                Exit::NoRepository => Ok(None),
                _ => Err(failure),
            }
        }
    }
}

/// Makes a repository and its key file; the key is on disk before anything is in the store. Where a
/// passphrase is named, it opens the repository too. What fails leaves nothing behind.
pub async fn create_repository(global: &Global, url: &str) -> Outcome<(Repository, PathBuf)> {
    // The key file is made whatever else opens the repository.
    check_home(&Global {
        passphrase_file: None,
        ..global.clone()
    })?;
    let passphrase = global.passphrase_file.as_deref().map(read_passphrase);
    let passphrase = passphrase.transpose()?;
    let made = match StoreUrl::parse(url) {
        Ok(StoreUrl::Directory(dir)) if !dir.exists() => Some(dir),
        _ => None,
    };
    let created = create_in(global, url, passphrase.as_deref()).await;
    if let (Err(_), Some(dir)) = (&created, made) {
        // Only where it is empty.
        let _ = std::fs::remove_dir(dir);
    }
    created
}

async fn create_in(
    global: &Global,
    url: &str,
    passphrase: Option<&str>,
) -> Outcome<(Repository, PathBuf)> {
    let store =
        Store::open_or_create(url, &StoreOptions::default()).map_err(|e| failure(e.into()))?;
    if let Some(found) = find(&store).await? {
        return Err(Failure::with(
            Exit::Refused,
            format!("{url} already holds repository {}", found.id),
        ));
    }
    let id = RepositoryId::from_bytes(kek::random().map_err(|e| failure(e.into()))?);
    let path = key_file(global, id);
    let is_old = path.exists();
    let key: Kek = if is_old {
        refuse_key_of_another(&path)?;
        kek::read_key_file(&path).map_err(|e| failure(e.into()))?
    } else {
        let key = kek::generate().map_err(|e| failure(e.into()))?;
        kek::create_key_file(&path, &id, &key).map_err(|e| failure(e.into()))?;
        key
    };
    let options = CreateOptions {
        id,
        created_ns: SystemClock::new().now_ns(),
        profile: None,
        inline_limit: None,
    };
    let repository = match Repository::create(store.clone(), key, &options).await {
        Ok(repository) => repository,
        Err(error) => {
            let absent = Repository::find(&store)
                .await
                .map_err(|e| failure(e.into()));
            // A reply that was lost may hide a repository, whose only key this is.
            if !is_old && absent.is_err_and(|e| e.exit == Exit::NoRepository) {
                let _ = std::fs::remove_file(&path);
            }
            return Err(failure(error.into()));
        }
    };
    // Said with --quiet too: without it nobody knows what to keep.
    eprintln!("the key of repository {id} is {}", path.display());
    if let Some(passphrase) = passphrase {
        let key = kek::read_key_file(&path).map_err(|e| failure(e.into()))?;
        let hash = PassphraseHash::DEFAULT;
        kek::add_passphrase(&store, repository.config(), &key, passphrase, hash)
            .await
            .map_err(|e| failure(e.into()))?;
    }
    if !global.quiet {
        let at = repository.store().url_redacted();
        eprintln!("created it at {at}");
        if passphrase.is_some() {
            eprintln!("  WITHOUT THIS FILE OR THE PASSPHRASE NOBODY CAN READ THE BACKUPS.");
        } else {
            eprintln!(
                "  WITHOUT THIS FILE NOBODY CAN READ THE BACKUPS. Keep a copy in another place,"
            );
            eprintln!("  or add a passphrase:");
            eprintln!("  holdfast key add-passphrase --new-passphrase-file FILE --repo {at}");
        }
    }
    Ok((repository, path))
}
