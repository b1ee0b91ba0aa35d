//! What a pre-hook froze is unfrozen, however long the API is away and whichever other pod hangs; and no hook runs
//! in a pod that is not the one it was meant for.

use super::*;
use crate::kube::hooks::{Brackets, start};
use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use tokio::sync::watch;

const MINUTE: Duration = Duration::from_secs(60);
/// The addresses of pods db-0 and db-1.
const ONE: &str = "127.0.0.1";
const OTHER: &str = "127.0.0.2";

/// How a request in a pod is answered.
enum Reply {
    Done,
    Failed,
    Never,
}

/// What listens in the pods.
struct Pods {
    port: u16,
    /// What was asked: the pod's address and the path.
    asked: Arc<Mutex<Vec<String>>>,
}

fn pods(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Pods {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (told, reply) = (asked.clone(), Arc::new(reply));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (told, reply) = (told.clone(), reply.clone());
            std::thread::spawn(move || answer(stream.unwrap(), &told, &*reply));
        }
    });
    Pods { port, asked }
}

fn answer(mut stream: TcpStream, told: &Mutex<Vec<String>>, reply: &dyn Fn(&str) -> Reply) {
    let mut bytes = [0; 4096];
    let count = stream.read(&mut bytes).unwrap();
    let head = String::from_utf8_lossy(&bytes[..count]).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let what = format!("{} {path}", stream.local_addr().unwrap().ip());
    told.lock().unwrap().push(what.clone());
    let status = match reply(&what) {
        Reply::Done => "204 No Content",
        Reply::Failed => "500 Internal Server Error",
        // As long as the test lasts.
        Reply::Never => loop {
            std::thread::park();
        },
    };
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).unwrap();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Code(u16),
    Silent,
}

/// The API, as far as hooks see it.
struct Cluster {
    fault: Fault,
    /// By name: uid and address.
    pods: BTreeMap<String, (String, String)>,
    gets: usize,
}

fn two_pods() -> Arc<Mutex<Cluster>> {
    let pod = |name: &str, ip: &str| {
        let (uid, ip) = (format!("uid-{name}"), ip.to_owned());
        (name.to_owned(), (uid, ip))
    };
    Arc::new(Mutex::new(Cluster {
        fault: Fault::None,
        pods: [pod("db-0", ONE), pod("db-1", OTHER)].into(),
        gets: 0,
    }))
}

impl Cluster {
    fn answer(&mut self, call: &Call) -> Answer {
        self.gets += 1;
        match self.fault {
            Fault::Silent => return Err(io::ErrorKind::ConnectionRefused.into()),
            Fault::Code(code) => return refusal(code),
            Fault::None => {}
        }
        let Some((uid, ip)) = self.pods.get(call.name()) else {
            return refusal(404);
        };
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": call.name(), "namespace": "shop", "uid": uid},
            "spec": {"containers": [{"name": "db"}]},
            "status": {
                "phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        Ok((200, pod))
    }

    /// The pod goes, and another one comes under its name.
    fn make_again(&mut self, name: &str) {
        if let Some((uid, _)) = self.pods.get_mut(name) {
            *uid = "uid-of-another".to_owned();
        }
    }
}

struct Hooked {
    stage: Stage,
    brackets: Arc<Brackets>,
    agent: Agent,
    cluster: Arc<Mutex<Cluster>>,
    asked: Arc<Mutex<Vec<String>>>,
    _pictures: watch::Sender<Option<Arc<Picture>>>,
}

/// Volumes with the pods that use them, and hooks of these names in each pod, which ask `/NAME/freeze` and
/// `/NAME/thaw`.
async fn hooked(
    cluster: Arc<Mutex<Cluster>>,
    pods: Pods,
    hooks: &[&str],
    volumes: &[(&str, &[&str])],
) -> Hooked {
    let stage = Stage::new().await;
    let action = |name: &str, verb: &str| json!({"http": {"port": pods.port, "path": format!("/{name}/{verb}")}});
    let hooks = hooks.iter().map(|name| {
        json!({
            "name": name, "timeout": "10m", "unfreezeAfter": "1h",
            "pre": action(name, "freeze"), "post": action(name, "thaw"),
        })
    });
    let hooks: Vec<Value> = hooks.collect();
    let spec = json!({"schedule": {"cron": "0 2 * * *"}, "hooks": hooks});
    let subjects = volumes.iter().map(|(claim, pods)| subject(claim, pods));
    let drawn = picture(vec![policy(spec)], subjects.collect());
    let names = drawn.volumes.iter().map(|volume| volume.subject.id.clone());
    let names: Vec<String> = names.collect();
    let (pictures, seen) = watch::channel(Some(drawn));
    let api = cluster.clone();
    let client = client(move |call| api.lock().unwrap().answer(call));
    Hooked {
        brackets: start(&stage.coordinator, client, seen),
        agent: stage.agent(&names),
        stage,
        cluster,
        asked: pods.asked,
        _pictures: pictures,
    }
}

impl Hooked {
    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn asked_times(&self, what: &str) -> usize {
        self.asked().iter().filter(|asked| *asked == what).count()
    }

    /// Waits until the agent has its order: all is frozen.
    async fn ordered(&mut self) {
        let order = tokio::time::timeout(PATIENCE, self.agent.orders.recv()).await;
        assert!(order.is_ok_and(|order| order.is_some()), "no order came");
    }

    /// The agent has done it.
    fn done(&self, job: JobId) {
        let report = Report::default();
        self.stage.report(&self.agent, job, JobState::Done, report);
    }

    async fn ended(&self, job: JobId) -> Report {
        until("the run has ended", || self.stage.job(job).ended_ns != 0).await;
        self.stage.job(job).last.unwrap()
    }

    /// Post-hooks that have not been run.
    fn unfinished(&self) -> usize {
        let unfinished = self.brackets.unfinished();
        unfinished.values().map(Vec::len).sum()
    }
}

/// Hours of an API that cannot be asked do not end the promise to unfreeze; an hour of refusals does.
#[tokio::test]
async fn an_unfreeze_is_not_given_up_while_the_api_cannot_be_asked() {
    let cases = [
        (Fault::Code(503), false),
        (Fault::Code(429), false),
        // A token that has expired.
        (Fault::Code(401), false),
        (Fault::Silent, false),
        (Fault::Code(403), true),
    ];
    for (fault, is_given_up) in cases {
        let pods = pods(|_| Reply::Done);
        let volumes: [(&str, &[&str]); 1] = [("orders", &["db-0"])];
        let mut hooked = hooked(two_pods(), pods, &["db"], &volumes).await;
        hooked.stage.back_up(FIRST, "shop/orders");
        hooked.ordered().await;
        hooked.cluster().fault = fault;
        hooked.done(FIRST);
        hooked.ended(FIRST).await;
        let clock = hooked.stage.clock.clone();
        let began = clock.elapsed();
        while clock.elapsed() - began < 90 * MINUTE && hooked.unfinished() > 0 {
            until("it is tried, or given up", || {
                clock.sleepers() > 0 || hooked.unfinished() == 0
            })
            .await;
            clock.advance(MINUTE);
        }
        let frozen = format!("{ONE} /db/freeze");
        assert_eq!(hooked.asked(), std::slice::from_ref(&frozen), "{fault:?}");
        if is_given_up {
            assert_eq!(hooked.unfinished(), 0, "{fault:?}");
            continue;
        }
        assert_eq!(hooked.unfinished(), 1, "{fault:?}");
        // Nor would a coordinator that is started now have forgotten it.
        let kept = hooked.stage.coordinator.library().catalog.hooks().await;
        assert_eq!(kept.unwrap().len(), 1, "{fault:?}");
        until("it waits to be tried again", || clock.sleepers() > 0).await;
        hooked.cluster().fault = Fault::None;
        clock.advance(MINUTE);
        until("it is unfrozen", || hooked.unfinished() == 0).await;
        assert_eq!(hooked.asked(), [frozen, format!("{ONE} /db/thaw")]);
    }
}

/// A pod whose unfreeze does not end holds up no other pod's: neither at the end of the run, nor when those that failed
/// are tried again.
#[tokio::test]
async fn a_pod_that_hangs_keeps_no_other_frozen() {
    for is_again in [false, true] {
        for (hanging, other) in [(ONE, OTHER), (OTHER, ONE)] {
            let (hung, thawed) = (format!("{hanging} /db/thaw"), format!("{other} /db/thaw"));
            let hangs = hung.clone();
            let seen: Mutex<HashSet<String>> = Mutex::default();
            let pods = pods(move |what| {
                let is_first = seen.lock().unwrap().insert(what.to_owned());
                match what.ends_with("thaw") {
                    true if is_again && is_first => Reply::Failed,
                    true if what == hangs => Reply::Never,
                    _ => Reply::Done,
                }
            });
            let volumes: [(&str, &[&str]); 1] = [("orders", &["db-0", "db-1"])];
            let mut hooked = hooked(two_pods(), pods, &["db"], &volumes).await;
            hooked.stage.back_up(FIRST, "shop/orders");
            hooked.ordered().await;
            hooked.done(FIRST);
            let times = 1 + usize::from(is_again);
            until("the other pod is unfrozen, and this one hangs", || {
                let (hung, thawed) = (hooked.asked_times(&hung), hooked.asked_times(&thawed));
                hung == times && thawed == times
            })
            .await;
        }
    }
}

/// A run that waits for a pod's lock looks again whose pod that is now.
#[tokio::test]
async fn a_pod_made_again_while_its_hooks_waited_is_not_frozen() {
    let released = Arc::new(AtomicBool::new(false));
    let goes = released.clone();
    let pods = pods(move |_| {
        while !goes.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(2));
        }
        Reply::Done
    });
    let volumes: [(&str, &[&str]); 2] = [("orders", &["db-0"]), ("logs", &["db-0"])];
    let mut hooked = hooked(two_pods(), pods, &["db"], &volumes).await;
    hooked.stage.back_up(FIRST, "shop/orders");
    until("the first run freezes the pod", || {
        hooked.asked().len() == 1
    })
    .await;
    let gets = hooked.cluster().gets;
    hooked.stage.back_up(SECOND, "shop/logs");
    until("the second run has looked for its pods", || {
        hooked.cluster().gets > gets
    })
    .await;
    hooked.cluster().make_again("db-0");
    released.store(true, Ordering::Relaxed);
    hooked.ordered().await;
    hooked.done(FIRST);
    let last = hooked.ended(SECOND).await;
    assert_eq!(last.state(), JobState::Failed);
    assert_eq!(last.reason, "HookFailed");
    assert!(last.detail.contains("its pods have changed"), "{last:?}");
    assert_eq!(hooked.asked(), [format!("{ONE} /db/freeze")]);
    hooked.ended(FIRST).await;
}

/// A pod that goes while an earlier hook runs is not mistaken for the one that comes under its name.
#[tokio::test]
async fn a_pod_made_again_between_two_hooks_gets_neither() {
    let cluster = two_pods();
    let replaced = cluster.clone();
    let pods = pods(move |_| {
        replaced.lock().unwrap().make_again("db-0");
        Reply::Done
    });
    let volumes: [(&str, &[&str]); 1] = [("orders", &["db-0"])];
    let hooked = hooked(cluster, pods, &["first", "second"], &volumes).await;
    hooked.stage.back_up(FIRST, "shop/orders");
    let last = hooked.ended(FIRST).await;
    assert_eq!(last.state(), JobState::Failed);
    assert_eq!(last.reason, "HookFailed");
    assert!(last.detail.contains("the pod is gone"), "{last:?}");
    // The pod that was frozen is gone, and so is what would have to be undone.
    assert_eq!(hooked.asked(), [format!("{ONE} /first/freeze")]);
    assert_eq!(hooked.unfinished(), 0);
}
