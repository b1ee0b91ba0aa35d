//! The key-encryption key outside the repository: in a key file, or under passphrases.
//!
//! A key file is text, 0600, and never stands beside the repository; one that others may read is
//! refused. A passphrase slot lies in the repository: whoever has the passphrase needs no file.

use crate::repo::error::{RepoError, Result};
use crate::repo::store::{Store, several};
use crate::repo::writer::Writer;
use argon2::{Algorithm, Argon2, Params, Version};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use holdfast_format::id::{RepositoryId, hex, unhex};
use holdfast_format::keyslot::{KeySlot, PassphraseHash};
use holdfast_format::names::{ObjectName, SLOTS};
use holdfast_format::repository::RepositoryConfig;
use holdfast_format::seal::Kek;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use zeroize::{Zeroize, Zeroizing};

/// First word of the line that holds the key.
const KEY_WORD: &str = "holdfast-key-1";
/// A key file is two lines and a comment.
const MAX_KEY_FILE_BYTES: u64 = 4096;
/// Longest passphrase, in bytes.
const MAX_PASSPHRASE_BYTES: usize = 4096;

/// Random bytes of the system.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(RepoError::Internal {
            doing: "get random bytes",
        }),
    }
}

/// A new random key.
pub fn generate() -> Result<Kek> {
    let mut bytes = random()?;
    let kek = Kek::from_bytes(bytes);
    bytes.zeroize();
    Ok(kek)
}

/// Writes a key file that does not exist yet, 0600, with its directories (0700); durable.
pub fn create_key_file(path: &Path, repository: &RepositoryId, kek: &Kek) -> Result<()> {
    let wrong = |detail: &str| RepoError::KeyFile {
        path: path.to_owned(),
        detail: detail.to_owned(),
    };
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|error| RepoError::io("create directory", parent, error))?;
    }
    let text = Zeroizing::new(format!(
        "# Key of Holdfast repository {repository}.\n\
         # Without it the backups cannot be read by anybody. Keep a copy in another place.\n\
         {KEY_WORD} {} {}\n",
        &*Zeroizing::new(hex(kek.as_bytes())),
        hex(&kek.fingerprint())
    ));
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(wrong("exists already, and is never overwritten"));
        }
        Err(error) => return Err(RepoError::io("create key file", path, error)),
    };
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| super::local::sync_parent(path))
        .map_err(|error| RepoError::io("write key file", path, error))
}

/// Reads a key file. Refuses one that others than its owner and group may read, and one with a typing
/// error.
pub fn read_key_file(path: &Path) -> Result<Kek> {
    let wrong = |detail: String| RepoError::KeyFile {
        path: path.to_owned(),
        detail,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(wrong(
                "does not exist; name the file with --key-file or HOLDFAST_KEY_FILE".into(),
            ));
        }
        Err(error) => return Err(RepoError::io("open key file", path, error)),
    };
    // Asked of the open file: what is checked is what is read.
    let found = file
        .metadata()
        .map_err(|error| RepoError::io("look at key file", path, error))?;
    if !found.is_file() {
        return Err(wrong("is not a file".into()));
    }
    let mode = found.mode() & 0o777;
    if mode & 0o027 != 0 {
        return Err(wrong(format!(
            "mode {mode:04o} lets others use the key; run: chmod 600 {}",
            path.display()
        )));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_KEY_FILE_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| RepoError::io("read key file", path, error))?;
    parse_key(&text).map_err(|detail| wrong(detail.into()))
}

fn parse_key(text: &str) -> Result<Kek, &'static str> {
    let mut keys = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (Some(line), None) = (keys.next(), keys.next()) else {
        return Err("must hold exactly one key");
    };
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [KEY_WORD, key, check] = words[..] else {
        return Err("is not a key file of this version of holdfast");
    };
    let bytes = Zeroizing::new(unhex(key).unwrap_or_default());
    let kek = Kek::try_from(&bytes[..]).map_err(|_| "the key is not 64 hexadecimal digits")?;
    if hex(&kek.fingerprint()) != check.to_ascii_lowercase() {
        return Err("the key does not match its check: it was typed or copied wrongly");
    }
    Ok(kek)
}

/// Adds a passphrase to the repository; the key must be its own.
pub async fn add_passphrase(
    store: &Store,
    config: &RepositoryConfig,
    kek: &Kek,
    passphrase: &str,
    hash: PassphraseHash,
) -> Result<()> {
    if config.check_key(kek).is_err() {
        return Err(RepoError::WrongKey {
            given: "the key",
            repository: config.id,
        });
    }
    let salt = random()?;
    let hashed = hash_passphrase(passphrase, hash, salt).await?;
    let stored = KeySlot::seal(&config.id, hash, salt, &hashed, kek)?;
    let writer = Writer::new(store.clone());
    writer.slot(random()?, Bytes::from(stored)).await
}

/// The key under a passphrase: tries every slot. Slots that cannot be read are skipped as long as
/// another one opens.
pub async fn unlock(store: &Store, config: &RepositoryConfig, passphrase: &str) -> Result<Kek> {
    let listed = store.list(SLOTS).await?;
    let names = listed.iter().filter_map(|found| found.name);
    let read = names.map(|name| async move {
        let bytes = store.get_limited(&name, MAX_KEY_FILE_BYTES).await?;
        KeySlot::decode(&bytes).map_err(|error| RepoError::of_object(name, error))
    });
    let slots: Vec<Result<KeySlot>> = several(futures::stream::iter(read)).collect().await;
    if slots.is_empty() {
        return Err(RepoError::Passphrase {
            detail: format!(
                "repository {} has no passphrase; use its key file",
                config.id
            ),
        });
    }
    let mut damage = None;
    for slot in slots {
        let slot = match slot {
            Ok(slot) => slot,
            Err(error) => {
                damage = Some(error);
                continue;
            }
        };
        let hashed = hash_passphrase(passphrase, slot.hash, slot.salt).await?;
        if let Ok(kek) = slot.open(&config.id, &hashed) {
            return Ok(kek);
        }
    }
    Err(damage.unwrap_or(RepoError::WrongKey {
        given: "the passphrase",
        repository: config.id,
    }))
}

/// How many passphrases open the repository.
pub async fn count_passphrases(store: &Store) -> Result<usize> {
    let slots: Vec<ObjectName> = futures::stream::iter(store.list(SLOTS).await?)
        .filter_map(|found| std::future::ready(found.name))
        .map(Ok::<_, RepoError>)
        .try_collect()
        .await?;
    Ok(slots.len())
}

/// Argon2id on a thread of its own: it takes a core and the memory it was told to take.
async fn hash_passphrase(
    passphrase: &str,
    hash: PassphraseHash,
    salt: [u8; 32],
) -> Result<Zeroizing<[u8; 32]>> {
    if passphrase.is_empty() || passphrase.len() > MAX_PASSPHRASE_BYTES {
        return Err(RepoError::Passphrase {
            detail: format!("must have 1 to {MAX_PASSPHRASE_BYTES} bytes"),
        });
    }
    let passphrase = Zeroizing::new(passphrase.to_owned());
    let work = move || {
        let params = Params::new(hash.memory_kib, hash.passes, hash.lanes, Some(32)).ok()?;
        let mut out = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), &salt, &mut *out)
            .ok()?;
        Some(out)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Some(hashed)) => Ok(hashed),
        _ => Err(RepoError::Internal {
            doing: "hash a passphrase",
        }),
    }
}

#[cfg(test)]
mod tests;
