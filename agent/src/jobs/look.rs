//! Looks for this node's volumes, at intervals and as soon as something may have changed, and says how they
//! are told to the coordinator. What the coordinator's plan says of them is joined in.

use super::work::Works;
use crate::metrics::AgentMetrics;
use crate::settings::ServeSettings;
use crate::volumes::{self, Hints, Plan, PlanFile, Troubles, VolumeCandidate, VolumeWatch};
use holdfast_proto::v1 as proto;
use holdfast_runtime::readiness::Readiness;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio::time::{Instant, Interval};

/// One for an agent; it lives longer than a subscription.
#[derive(Debug)]
pub struct Looker {
    watch: Arc<Mutex<VolumeWatch>>,
    hints: Hints,
    plan: Option<Arc<Plan>>,
    planned: Notify,
    troubles: Troubles,
    readiness: Option<Readiness>,
}

impl Looker {
    /// Nothing is watched before the first look.
    pub fn new(settings: &ServeSettings, readiness: Option<Readiness>) -> Self {
        let (watch, hints) = volumes::watch(settings.volumes.clone());
        let kept = settings.plan.as_ref().and_then(PlanFile::load);
        Self {
            watch: Arc::new(Mutex::new(watch)),
            hints,
            plan: kept.map(Arc::new),
            planned: Notify::new(),
            troubles: Troubles::new(),
            readiness,
        }
    }

    /// What keeps this node's volumes from being found, as of the last look.
    pub fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    fn tell(&mut self, metrics: &AgentMetrics, troubles: Troubles) {
        for (reason, detail) in &troubles {
            if self.troubles.get(reason) != Some(detail) {
                tracing::error!(reason, detail, "not ready");
            }
        }
        if troubles.is_empty() && !self.troubles.is_empty() {
            tracing::info!("what kept the agent from its work is gone");
        }
        metrics.troubled(troubles.keys().copied());
        if let Some(readiness) = &self.readiness {
            readiness.set_troubles(troubles.clone());
        }
        self.troubles = troubles;
    }

    /// Goes by another plan from now on, and looks again at once.
    pub fn take(&mut self, settings: &ServeSettings, sent: proto::NodePlan) {
        let plan = match Plan::try_from(sent.clone()) {
            Ok(plan) => plan,
            Err(error) => {
                tracing::error!(%error, "the plan for this node breaks a rule; the one before stays");
                return;
            }
        };
        if let Some(file) = &settings.plan
            && let Err(error) = file.keep(&sent)
        {
            tracing::warn!(%error, "the plan for this node cannot be kept for the next start");
        }
        self.plan = Some(Arc::new(plan));
        self.planned.notify_one();
    }

    /// Returns at the next tick, or when something may have changed before.
    pub async fn due(&mut self, ticks: &mut Interval) {
        tokio::select! {
            _ = ticks.tick() => {}
            () = self.planned.notified() => {}
            () = self.hints.changed() => {}
        }
    }

    /// What this node has now, for the coordinator and for the jobs to come.
    pub async fn look(
        &mut self,
        settings: &ServeSettings,
        metrics: &AgentMetrics,
        works: &mut Works,
    ) -> Vec<proto::AgentVolume> {
        let (wanted, watch) = (settings.volumes.clone(), self.watch.clone());
        let plan = self.plan.clone();
        let began = Instant::now();
        let found = tokio::task::spawn_blocking(move || {
            // What is watched first is either seen by this look, or told of later. A watch that broke is
            // made again.
            watch.lock().unwrap_or_else(PoisonError::into_inner).set();
            let found = volumes::discover(&wanted, plan.as_deref());
            (found, volumes::troubles(&wanted, plan.as_deref()))
        });
        let found = found.await.map(|(found, troubles)| {
            self.tell(metrics, troubles);
            found
        });
        self.hints.looked(began.elapsed());
        match found {
            Ok(Ok(found)) => works.set_volumes(found),
            Ok(Err(error)) => tracing::error!(%error, "volumes could not be looked for"),
            Err(error) => tracing::error!(%error, "the search for volumes broke"),
        }
        // After a failed search those known before still stand.
        let known = works.volumes();
        let eligible = known
            .iter()
            .filter(|volume| volume.eligible.is_ok())
            .count();
        metrics.volumes.set(eligible as i64);
        metrics
            .volumes_left_out
            .set((known.len() - eligible) as i64);
        known.iter().map(listed).collect()
    }
}

fn listed(volume: &VolumeCandidate) -> proto::AgentVolume {
    let (reason, detail) = match &volume.eligible {
        Ok(()) => (String::new(), volume.note.clone().unwrap_or_default()),
        Err(why) => (why.reason.as_str().to_owned(), why.detail.clone()),
    };
    proto::AgentVolume {
        facts: Some(volume.facts.clone().into()),
        eligible: volume.eligible.is_ok(),
        reason,
        detail,
    }
}
