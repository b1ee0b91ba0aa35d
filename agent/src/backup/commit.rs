//! The last step of a run: one and the same mount until the end, then the coordinator's word.

use super::{Run, blocking};
use crate::error::{Error, Result};
use crate::mount::{Identity, MountWatch};
use crate::upload::SessionRef;
use holdfast_format::wire::SnapshotInfo;
use holdfast_proto::v1 as proto;
use holdfast_runtime::backoff::Backoff;

impl Run<'_> {
    /// Refuses what was not read from one and the same mount.
    pub(super) async fn check_mount(&self, before: Identity, mut watch: MountWatch) -> Result<()> {
        let path = self.volume.path.clone();
        let volume = self.volume.facts.name.to_string();
        blocking(move || {
            let unmounted = |detail: String| Error::VolumeUnmounted {
                volume: volume.clone(),
                detail,
            };
            let after = Identity::at(&path).map_err(|error| unmounted(error.to_string()))?;
            if after != before {
                return Err(unmounted("another mount is there now".to_owned()));
            }
            if !before.is_exact() && watch.changed().unwrap_or(true) {
                let detail = "the mount table changed, and this kernel cannot tell mounts apart";
                return Err(unmounted(detail.to_owned()));
            }
            Ok(())
        })
        .await
    }

    /// Commits; where the answer is lost, asks again: the same session has the same snapshot.
    pub(super) async fn commit(
        &self,
        session: &SessionRef,
        last_seq: u64,
        signals: proto::Signals,
    ) -> Result<SnapshotInfo> {
        let mut backoff = Backoff::new(self.options.retry.backoff);
        let mut tries = 1;
        loop {
            self.cancel.check()?;
            let request = proto::CommitRequest {
                session: session.session.clone(),
                lease_epoch: session.lease_epoch,
                last_seq,
                stats: Some(self.progress.view().stats()),
                signals: Some(signals.clone()),
            };
            match self.client.commit(request).await {
                Ok(reply) => {
                    let info = reply.snapshot.ok_or_else(|| Error::Protocol {
                        what: "commit",
                        rule: "the answer names no snapshot".to_owned(),
                    })?;
                    return SnapshotInfo::try_from(info).map_err(|source| Error::Answer {
                        what: "commit",
                        source,
                    });
                }
                Err(error @ Error::Disconnected { .. }) if tries < self.options.retry.tries => {
                    tries += 1;
                    tracing::warn!(%error, "the commit's answer was lost; asking again");
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
