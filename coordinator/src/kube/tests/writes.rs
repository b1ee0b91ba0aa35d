//! What is written of Backups arrives: what the API did not take is written again, and holds up nothing of others.

use super::*;
use crate::kube::runs::Writes;
use holdfast_runtime::shutdown::{self, Stopper};
use std::sync::Mutex;

/// What came to the API, and how it was answered: the object's name, the status, the code.
type Came = Arc<Mutex<Vec<(String, Value, u16)>>>;

struct Writing {
    writes: Writes,
    clock: Arc<ManualClock>,
    came: Came,
    _stopper: Stopper,
}

/// `code`: how the API answers, by the name and how often that was written before.
fn writing(code: impl Fn(&str, usize) -> u16 + Send + Sync + 'static) -> Writing {
    let came = Came::default();
    let heard = came.clone();
    let client = client(move |call| {
        let mut came = heard.lock().unwrap();
        let before = came.iter().filter(|(name, ..)| name == call.name());
        let code = code(call.name(), before.count());
        came.push((call.name().to_owned(), call.body["status"].clone(), code));
        match code {
            200 => Ok((200, backup(call.name()))),
            code => refusal(code),
        }
    });
    let (stopper, stopping) = shutdown::channel();
    let clock = Arc::new(ManualClock::at(START));
    let writes = Writes::new();
    writes.start(client, clock.clone(), stopping);
    Writing {
        writes,
        clock,
        came,
        _stopper: stopper,
    }
}

fn backup(name: &str) -> Value {
    json!({
        "apiVersion": crate::kube::api::API_VERSION, "kind": "Backup",
        "metadata": {"name": name, "namespace": "shop"}, "spec": {},
    })
}

impl Writing {
    fn say(&self, name: &str, phase: &str) {
        let key = ("shop".to_owned(), name.to_owned());
        let status = json!({"phase": phase});
        self.writes.put(&key, |write| write.status = Some(status));
    }

    /// Lets time pass until the API has taken this.
    async fn until_taken(&self, name: &str, phase: &str) {
        until(&format!("{name} is {phase}"), || {
            self.clock.advance(Duration::from_secs(30));
            let came = self.came.lock().unwrap();
            let mut taken = came.iter().filter(|(_, _, code)| *code == 200);
            taken.any(|(of, status, _)| of == name && status["phase"] == phase)
        })
        .await;
    }
}

/// Errors of the server, conflicts, too many requests and an expired token do not lose how a Backup ended.
#[tokio::test]
async fn a_status_that_was_not_taken_is_written_again() {
    for code in [500, 503, 504, 409, 429, 401] {
        let writing = writing(move |_, before| if before < 3 { code } else { 200 });
        writing.say("now", "Completed");
        writing.until_taken("now", "Completed").await;
        assert_eq!(writing.came.lock().unwrap().len(), 4, "{code}");
    }
}

/// One that the server cannot take keeps no other one waiting.
#[tokio::test]
async fn a_status_that_is_never_taken_holds_up_no_other() {
    let writing = writing(|name, _| if name == "bad" { 500 } else { 200 });
    writing.say("bad", "Completed");
    until("it was tried", || !writing.came.lock().unwrap().is_empty()).await;
    writing.say("good", "Completed");
    writing.until_taken("good", "Completed").await;
}
