//! The keys of all dedup domains, opened with the key of the repository, and the domains' namespaces.
//!
//! Keys are only ever added. A generation's keys are in the object with the highest master; one that
//! cannot be opened is remembered and named when it is needed, and stops nothing else.

use crate::repo::error::{RepoError, Result};
use crate::repo::kek::random;
use crate::repo::marks;
use crate::repo::store::{Store, several};
use crate::repo::writer::Writer;
use bytes::Bytes;
use futures::StreamExt;
use holdfast_format::FormatError;
use holdfast_format::id::{DomainId, RepositoryId};
use holdfast_format::mark::{Mark, MarkRecord};
use holdfast_format::names::{DOMAINS, ObjectName};
use holdfast_format::seal::{
    DomainKeys, Header, IdKey, Kek, KeyMaterial, KeyRef, MAX_SEALED_OBJECT_BYTES, ObjectKind,
    SealingMaster, open_object, seal_object,
};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use zeroize::Zeroizing;

/// What volumes without a namespace have in common.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A dedup domain as the repository knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Domain {
    /// Its id.
    pub id: DomainId,
    /// The generation that new snapshots lie in.
    pub generation: u32,
    /// What its volumes have in common.
    pub namespace: String,
}

/// The keys of a repository. Shared by everything that seals and opens.
pub struct Keyring {
    repository: RepositoryId,
    kek: Kek,
    keys: RwLock<HashMap<(DomainId, u32), Slot>>,
    domains: RwLock<Option<HashMap<String, Domain>>>,
    /// Only one domain is made at a time.
    making: tokio::sync::Mutex<()>,
}

enum Slot {
    Open { master: u32, keys: Arc<DomainKeys> },
    Damaged { name: String, detail: String },
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(secret)")
    }
}

impl Keyring {
    /// The keys in the store.
    pub(super) async fn load(store: &Store, repository: RepositoryId, kek: Kek) -> Result<Self> {
        let keyring = Self {
            repository,
            kek,
            keys: RwLock::default(),
            domains: RwLock::default(),
            making: tokio::sync::Mutex::default(),
        };
        keyring.refresh(store).await?;
        Ok(keyring)
    }

    /// Adds keys that were stored since: for a reader beside a running coordinator.
    pub async fn refresh(&self, store: &Store) -> Result<()> {
        let mut newest: HashMap<(DomainId, u32), u32> = HashMap::new();
        for found in store.list(DOMAINS).await? {
            if let Some(ObjectName::DomainKeys {
                domain,
                generation,
                master,
            }) = found.name
            {
                let known = newest.entry((domain, generation)).or_insert(master);
                *known = master.max(*known);
            }
        }
        let unknown = newest.into_iter().filter(|((domain, generation), master)| {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            match keys.get(&(*domain, *generation)) {
                Some(Slot::Open { master: open, .. }) => open < master,
                _ => true,
            }
        });
        let unknown: Vec<_> = unknown.collect();
        let read = unknown
            .into_iter()
            .map(|((domain, generation), master)| async move {
                let name = ObjectName::DomainKeys {
                    domain,
                    generation,
                    master,
                };
                let slot = match self.read(store, &name, domain, generation).await {
                    Ok(keys) => Slot::Open {
                        master,
                        keys: Arc::new(keys),
                    },
                    Err(error) if error.is_damage() => Slot::Damaged {
                        name: name.to_string(),
                        detail: error.to_string(),
                    },
                    Err(error) => return Err(error),
                };
                Ok(((domain, generation), slot))
            });
        let mut read = std::pin::pin!(several(futures::stream::iter(read)));
        while let Some(loaded) = read.next().await {
            let (key, slot) = loaded?;
            if let Slot::Damaged { name, detail } = &slot {
                tracing::error!(object = name, detail, "keys of a domain cannot be read");
            }
            let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
            keys.insert(key, slot);
        }
        Ok(())
    }

    async fn read(
        &self,
        store: &Store,
        name: &ObjectName,
        domain: DomainId,
        generation: u32,
    ) -> Result<DomainKeys> {
        let stored = store
            .get_limited(name, MAX_SEALED_OBJECT_BYTES as u64)
            .await?;
        let plain = self.open_own(ObjectKind::DomainKeys, &stored);
        let plain = Zeroizing::new(plain.map_err(|error| RepoError::of_object(name, error))?);
        let keys = DomainKeys::decode(&plain).map_err(|error| RepoError::of_object(name, error))?;
        if (keys.domain, keys.generation) != (domain, generation) {
            return Err(RepoError::ObjectDamaged {
                name: name.to_string(),
                detail: "it holds the keys of another domain".into(),
            });
        }
        Ok(keys)
    }

    /// The keys of a domain generation.
    pub fn domain(&self, domain: &DomainId, generation: u32) -> Result<Arc<DomainKeys>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        match keys.get(&(*domain, generation)) {
            Some(Slot::Open { keys, .. }) => Ok(keys.clone()),
            Some(Slot::Damaged { name, detail }) => Err(RepoError::ObjectDamaged {
                name: name.clone(),
                detail: detail.clone(),
            }),
            None => Err(RepoError::ObjectMissing {
                name: format!("{DOMAINS}{domain}/{generation}-*"),
            }),
        }
    }

    /// All domain generations whose keys are open, for rebuild.
    pub fn generations(&self) -> Vec<(DomainId, u32)> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.keys().copied().collect()
    }

    /// The master that a key reference names, with the domain's keys it is part of.
    pub(super) fn master(&self, key: &KeyRef) -> Result<Option<(Arc<DomainKeys>, u32)>> {
        match key {
            KeyRef::Kek => Ok(None),
            KeyRef::Domain {
                domain,
                generation,
                master,
            } => Ok(Some((self.domain(domain, *generation)?, *master))),
        }
    }

    /// Opens an object in one piece, whatever key it names.
    pub fn open(&self, name: &ObjectName, kind: ObjectKind, stored: &[u8]) -> Result<Vec<u8>> {
        let header = Header::decode(stored).map_err(|error| RepoError::of_object(name, error))?;
        let domain = self.master(&header.key)?;
        let opened = open_object(
            &self.repository,
            kind,
            |_| match &domain {
                None => Some(KeyMaterial::Kek(&self.kek)),
                Some((keys, master)) => keys.master(*master).map(KeyMaterial::Master),
            },
            stored,
        );
        opened.map_err(|error| RepoError::of_object(name, error))
    }

    fn open_own(&self, kind: ObjectKind, stored: &[u8]) -> Result<Vec<u8>, FormatError> {
        let own = |key: &KeyRef| match key {
            KeyRef::Kek => Some(KeyMaterial::Kek(&self.kek)),
            KeyRef::Domain { .. } => None,
        };
        open_object(&self.repository, kind, own, stored)
    }

    /// Seals an object in one piece with the repository's key.
    pub fn seal(&self, kind: ObjectKind, plain: &[u8]) -> Result<Bytes> {
        let header = Header {
            kind,
            key: KeyRef::Kek,
            salt: random()?,
        };
        let key = KeyMaterial::Kek(&self.kek);
        Ok(seal_object(&self.repository, &header, key, plain)?.into())
    }

    /// Seals an object in one piece with the current master of a domain.
    pub fn seal_in_domain(
        &self,
        keys: &DomainKeys,
        kind: ObjectKind,
        plain: &[u8],
    ) -> Result<Bytes> {
        let (master, key) = current(keys)?;
        let header = Header {
            kind,
            key,
            salt: random()?,
        };
        let key = KeyMaterial::Master(master);
        Ok(seal_object(&self.repository, &header, key, plain)?.into())
    }

    /// A domain that the catalog knows from its mark; the earliest known stays.
    pub fn learn(&self, domain: Domain) {
        let mut domains = self.domains.write().unwrap_or_else(PoisonError::into_inner);
        let domains = domains.get_or_insert_default();
        domains.entry(domain.namespace.clone()).or_insert(domain);
    }

    /// The domain of a namespace, made if there is none: first its keys, then the mark that names it.
    /// An empty namespace is [`DEFAULT_NAMESPACE`]. Keys without a mark, left by a crash between the
    /// two, are never used and harm nobody.
    pub(super) async fn ensure(
        &self,
        store: &Store,
        writer: &Writer,
        namespace: &str,
        now_ns: i64,
    ) -> Result<Domain> {
        let namespace = match namespace {
            "" => DEFAULT_NAMESPACE,
            namespace => namespace,
        };
        if let Some(known) = self.known(namespace) {
            return Ok(known);
        }
        let _one = self.making.lock().await;
        if self.known(namespace).is_none() {
            self.learn_from_marks(store).await?;
        }
        if let Some(known) = self.known(namespace) {
            return Ok(known);
        }
        let made = Domain {
            id: DomainId::from_bytes(random()?),
            generation: 1,
            namespace: namespace.to_owned(),
        };
        let keys = DomainKeys {
            domain: made.id,
            generation: made.generation,
            id_key: IdKey::from_bytes(random()?),
            masters: vec![SealingMaster::from_bytes(1, random()?)],
        };
        let sealed = self.seal(ObjectKind::DomainKeys, &keys.encode()?)?;
        writer
            .domain_keys(made.id, made.generation, 1, sealed)
            .await?;
        let record = MarkRecord {
            mark: Mark::Domain {
                id: made.id,
                generation: made.generation,
                namespace: made.namespace.clone(),
            },
            time_ns: now_ns,
            actor: String::new(),
        };
        writer
            .mark(self.seal(ObjectKind::Mark, &record.encode()?)?)
            .await?;
        let slot = Slot::Open {
            master: 1,
            keys: Arc::new(keys),
        };
        self.keys
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((made.id, made.generation), slot);
        self.learn(made.clone());
        Ok(made)
    }

    fn known(&self, namespace: &str) -> Option<Domain> {
        let domains = self.domains.read().unwrap_or_else(PoisonError::into_inner);
        domains.as_ref()?.get(namespace).cloned()
    }

    /// Of two marks for one namespace the earlier counts, then the lower domain id.
    async fn learn_from_marks(&self, store: &Store) -> Result<()> {
        let mut found = Vec::new();
        let mut marks = std::pin::pin!(marks::read_all(store, self));
        while let Some(read) = marks.next().await {
            match read {
                Ok((_, record)) => {
                    if let Mark::Domain {
                        id,
                        generation,
                        namespace,
                    } = record.mark
                    {
                        let domain = Domain {
                            id,
                            generation,
                            namespace,
                        };
                        found.push((record.time_ns, id, domain));
                    }
                }
                // A damaged mark may be this one: a second domain costs space, nothing else.
                Err(error) if error.is_damage() => tracing::error!(%error, "a mark is skipped"),
                Err(error) => return Err(error),
            }
        }
        found.sort_by_key(|(time_ns, id, _)| (*time_ns, *id));
        for (_, _, domain) in found {
            self.learn(domain);
        }
        Ok(())
    }
}

/// The master that new objects of a domain are sealed with, and how it is named.
pub fn current(keys: &DomainKeys) -> Result<(&SealingMaster, KeyRef)> {
    let master = keys.current().ok_or(RepoError::Internal {
        doing: "find a master of a domain",
    })?;
    let key = KeyRef::Domain {
        domain: keys.domain,
        generation: keys.generation,
        master: master.number,
    };
    Ok((master, key))
}
