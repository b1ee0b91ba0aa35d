//! Runs of a volume: none begins while another one of it is under way, whoever asked for that; and how a Backup ended
//! arrives, whatever the API took of it at first.

use super::*;
use crate::kube::api::{API_VERSION, Backup};
use crate::kube::guard::{self, Mounting};
use crate::kube::runs::facts::BackupFacts;
use crate::kube::runs::{Runs, Writes};
use crate::kube::statuses::Wanted;
use crate::kube::world::Change;
use std::collections::HashMap;
use std::sync::Mutex;
use tokio::sync::watch;

/// What looks every two seconds: the guard, and whoever keeps bounds of exposure.
const SLEEPERS: usize = 2;
pub const LOOK: Duration = Duration::from_secs(2);

/// Volumes that are looked after.
pub struct Guarded {
    pub stage: Stage,
    /// What is said of volumes.
    pub wanted: watch::Receiver<Arc<Wanted>>,
    writes: Writes,
    news: mpsc::Sender<Change<BackupFacts>>,
    _pictures: watch::Sender<Option<Arc<Picture>>>,
}

impl Guarded {
    pub async fn new(stage: Stage, picture: Arc<Picture>, mounting: Option<Mounting>) -> Self {
        let (news, backups) = mpsc::channel(16);
        let writes = Writes::new();
        let runs = Runs::new(backups, writes.clone());
        let (said, wanted) = watch::channel(Arc::new(Wanted::default()));
        let told = watch::Sender::new(Some(Arc::default())).subscribe();
        let (pictures, seen) = watch::channel(Some(picture));
        guard::start(&stage.coordinator, seen, (said, told), runs, mounting);
        news.send(Change::All(HashMap::new())).await.unwrap();
        Self {
            stage,
            wanted,
            writes,
            news,
            _pictures: pictures,
        }
    }

    /// Lets time pass; then all has been looked at.
    pub async fn pass(&self, span: Duration) {
        let clock = &self.stage.clock;
        until("all is looked at", || clock.sleepers() == SLEEPERS).await;
        clock.advance(span);
        until("all is looked at", || clock.sleepers() == SLEEPERS).await;
    }

    async fn add(&self, name: &str, spec: Value) -> (String, String) {
        let object = json!({
            "apiVersion": API_VERSION, "kind": "Backup",
            "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": 1},
            "spec": spec,
        });
        let backup: Backup = serde_json::from_value(object).unwrap();
        let key = ("shop".to_owned(), name.to_owned());
        let change = Change::Put(key.clone(), BackupFacts::of(backup));
        self.news.send(change).await.unwrap();
        key
    }

    /// What is to be written of a Backup's status.
    fn status(&self, key: &(String, String)) -> Value {
        let write = self.writes.waiting(key);
        write.and_then(|write| write.status).unwrap_or_default()
    }
}

/// The next order of the agent, if there is one.
fn ordered(agent: &mut Agent) -> Option<JobId> {
    let order = agent.orders.try_recv().ok()?;
    let id = <[u8; 16]>::try_from(&order.job[..]).unwrap();
    Some(JobId::from_bytes(id))
}

/// A run that failed is tried again, but not beside one that somebody else has begun meanwhile: that one counts.
#[tokio::test]
async fn a_retry_does_not_begin_beside_a_run_that_is_under_way() {
    let stage = Stage::new().await;
    let mut agent = stage.agent(&["shop/orders".to_owned()]);
    let picture = picture(Vec::new(), vec![subject("orders", &["db-0"])]);
    let guarded = Guarded::new(stage, picture, None).await;
    let key = guarded.add("now", json!({"claim": "orders"})).await;
    let mut asked = None;
    for _ in 0..10 {
        guarded.pass(LOOK).await;
        asked = asked.or_else(|| ordered(&mut agent));
    }
    let first = asked.expect("the run is ordered");
    let failed = Report {
        reason: "StoreUnavailable".into(),
        detail: "no answer".into(),
        ..Report::default()
    };
    let stage = &guarded.stage;
    stage.report(&agent, first, JobState::Failed, failed);
    // By hand, past the Backup.
    stage.back_up(SECOND, "shop/orders");
    assert_eq!(ordered(&mut agent), Some(SECOND));
    stage.report(&agent, SECOND, JobState::Running, Report::default());
    // The retry is due after half a minute.
    for _ in 0..60 {
        guarded.pass(LOOK).await;
        assert_eq!(ordered(&mut agent), None, "one is under way");
    }
    assert_eq!(guarded.status(&key)["phase"], "Running");
    let done = Report {
        snapshot: vec![7; 32].into(),
        ..Report::default()
    };
    stage.report(&agent, SECOND, JobState::Done, done);
    for _ in 0..60 {
        guarded.pass(LOOK).await;
        assert_eq!(ordered(&mut agent), None, "nobody waits for another one");
    }
    let said = guarded.status(&key);
    assert_eq!(said["phase"], "Completed", "{said}");
    assert_eq!(said["results"][0]["snapshot"], "07".repeat(32), "{said}");
}

/// An end that the API has refused is not lost: it is told again until it is seen.
#[tokio::test]
async fn an_end_that_the_api_refused_is_told_again() {
    let stage = Stage::new().await;
    let picture = picture(Vec::new(), vec![subject("orders", &["db-0"])]);
    let guarded = Guarded::new(stage, picture, None).await;
    let told: Arc<Mutex<Vec<Value>>> = Arc::default();
    let heard = told.clone();
    let client = client(move |call| {
        let phase = call.body["status"]["phase"].clone();
        heard.lock().unwrap().push(phase);
        // As where a webhook is against it.
        refusal(422)
    });
    let (clock, stopping) = (
        guarded.stage.clock.clone(),
        guarded.stage.coordinator.stopping(),
    );
    guarded.writes.start(client, clock.clone(), stopping);
    guarded.add("lost", json!({"claim": "none"})).await;
    until("its end is told a second time", || {
        clock.advance(LOOK);
        let told = told.lock().unwrap();
        told.iter().filter(|phase| *phase == "Failed").count() > 1
    })
    .await;
}
