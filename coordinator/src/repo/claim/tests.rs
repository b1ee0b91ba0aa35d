//! At most one owner, whatever the order of requests; who pauses is fenced when it wakes.

use super::*;
use crate::repo::testing::{FaultStore, quick};
use futures::FutureExt;
use holdfast_runtime::clock::ManualClock;
use object_store::memory::InMemory;
use std::pin::Pin;

const T: Duration = Duration::from_secs(300);
const START: i64 = 1_800_000_000_000_000_000;

struct World {
    faults: Arc<FaultStore>,
    store: Store,
    clock: Arc<ManualClock>,
}

fn world() -> World {
    let faults = Arc::new(FaultStore::new(Arc::new(InMemory::new())));
    World {
        store: Store::from_object_store(faults.clone(), "memory", &quick()),
        faults,
        clock: Arc::new(ManualClock::at(START)),
    }
}

impl World {
    fn claimant(&self, catalog: u8, host: &str) -> Claimant {
        Claimant {
            catalog: CatalogId::from_bytes([catalog; 16]),
            host: host.into(),
            completed_epoch: 0,
            take_over: false,
            request_limit: T,
            clock: self.clock.clone(),
        }
    }

    async fn claim(&self, claimant: &Claimant) -> Result<Claim> {
        acquire(&self.store, claimant, |_| {}).await
    }

    /// Claims while the clock runs; says how long it waited.
    async fn claim_in_time(&self, claimant: &Claimant) -> (Result<Claim>, Duration) {
        let before = self.clock.elapsed();
        let mut claiming = Box::pin(self.claim(claimant));
        loop {
            if let Some(claimed) = claiming.as_mut().now_or_never() {
                return (claimed, self.clock.elapsed() - before);
            }
            if self.clock.sleepers() > 0 {
                self.clock.advance(Duration::from_secs(1));
            }
            tokio::task::yield_now().await;
        }
    }

    async fn names(&self) -> Vec<String> {
        let listed = self.store.list(OWNER).await.unwrap();
        listed.into_iter().map(|found| found.text).collect()
    }
}

#[tokio::test]
async fn the_first_claim_goes_on_at_once_and_a_second_catalog_is_refused() {
    let world = world();
    let first = world.claim(&world.claimant(1, "a")).await.unwrap();
    assert_eq!(first.epoch(), 1);
    world.clock.advance(Duration::from_secs(3_600));
    let error = world.claim(&world.claimant(2, "b")).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, RepoError::Owned { .. }));
    for part in ["on host a", "60 min", "--take-over", &"01".repeat(16)] {
        assert!(text.contains(part), "{part} not in {text}");
    }
    first.check().await.unwrap();
    assert_eq!(world.names().await.len(), 1, "a refusal leaves no claim");
}

#[tokio::test]
async fn the_same_catalog_goes_on_at_once_here_and_waits_elsewhere() {
    let world = world();
    let killed = world.claim(&world.claimant(1, "a")).await.unwrap();
    let (again, waited) = world.claim_in_time(&world.claimant(1, "a")).await;
    assert_eq!((again.unwrap().epoch(), waited), (2, Duration::ZERO));
    assert!(matches!(
        killed.check().await,
        Err(RepoError::Fenced { .. })
    ));

    let mut moved = world.claimant(1, "b");
    moved.completed_epoch = 2;
    let (moved, waited) = world.claim_in_time(&moved).await;
    assert_eq!(moved.unwrap().epoch(), 3);
    assert!(waited >= 2 * T, "{waited:?}");
}

#[tokio::test]
async fn a_released_repository_is_free_for_any_catalog_and_epochs_go_on() {
    let world = world();
    let first = world.claim(&world.claimant(1, "a")).await.unwrap();
    first.release().await.unwrap();
    let (second, waited) = world.claim_in_time(&world.claimant(2, "b")).await;
    let second = second.unwrap();
    assert_eq!((second.epoch(), waited), (2, Duration::ZERO));
    assert_eq!(world.names().await.len(), 1, "what is past is deleted");
    second.release().await.unwrap();
    let mut back = world.claimant(1, "a");
    back.completed_epoch = 7;
    assert_eq!(world.claim(&back).await.unwrap().epoch(), 8);
}

#[tokio::test]
async fn a_take_over_waits_and_fences_the_owner_that_slept() {
    let world = world();
    let paused = world.claim(&world.claimant(1, "a")).await.unwrap();
    let mut taker = world.claimant(2, "b");
    taker.take_over = true;
    let (taken, waited) = world.claim_in_time(&taker).await;
    let taken = taken.unwrap();
    assert!(waited >= 2 * T, "{waited:?}");
    let error = paused.check().await.unwrap_err();
    assert!(matches!(error, RepoError::Fenced { .. }), "{error}");
    // For good: even if the winner goes and everything is cleared away.
    taken.release().await.unwrap();
    for name in world.names().await {
        world.store.delete(&name.parse().unwrap()).await.unwrap();
    }
    assert!(paused.is_lost());
    assert!(matches!(
        paused.check().await,
        Err(RepoError::Fenced { .. })
    ));
    paused.release().await.unwrap();
    assert!(
        world.names().await.is_empty(),
        "a lost claim releases nothing"
    );
}

#[tokio::test]
async fn a_take_over_goes_on_as_soon_as_the_owner_has_released() {
    let world = world();
    let owner = world.claim(&world.claimant(1, "a")).await.unwrap();
    let mut taker = world.claimant(2, "b");
    taker.take_over = true;
    let mut taking = Box::pin(world.claim(&taker));
    while world.clock.sleepers() == 0 {
        assert!(taking.as_mut().now_or_never().is_none());
    }
    owner.release().await.unwrap();
    world.clock.advance(Duration::from_secs(10));
    let taken = taking.await.unwrap();
    assert!(world.clock.elapsed() < T);
    taken.check().await.unwrap();
}

#[tokio::test]
async fn a_take_over_goes_on_as_soon_as_the_beaten_owner_has_ended() {
    let world = world();
    let owner = world.claim(&world.claimant(1, "a")).await.unwrap();
    let mut taker = world.claimant(2, "b");
    taker.take_over = true;
    let mut taking = Box::pin(world.claim(&taker));
    while world.clock.sleepers() == 0 {
        assert!(taking.as_mut().now_or_never().is_none());
    }
    owner.check().await.unwrap_err();
    owner.release().await.unwrap();
    world.clock.advance(Duration::from_secs(10));
    let taken = taking.await.unwrap();
    assert!(world.clock.elapsed() < T);
    taken.check().await.unwrap();
}

#[tokio::test]
async fn a_take_over_that_was_broken_off_does_not_shorten_the_next_wait() {
    let world = world();
    let owner = world.claim(&world.claimant(1, "a")).await.unwrap();
    let mut taker = world.claimant(2, "b");
    taker.take_over = true;
    {
        let mut taking = Box::pin(world.claim(&taker));
        while world.clock.sleepers() == 0 {
            assert!(taking.as_mut().now_or_never().is_none());
        }
    }
    // The same catalog on the same host, which may go on at once after its own claims: but not here,
    // where the first owner may still be at work.
    taker.take_over = false;
    let (taken, waited) = world.claim_in_time(&taker).await;
    assert_eq!(taken.unwrap().epoch(), 3);
    assert!(waited >= 2 * T, "{waited:?}");
    assert!(owner.check().await.is_err());
}

#[tokio::test]
async fn a_claim_that_is_gone_or_not_ours_any_more_is_lost() {
    for tamper in 0..3 {
        let world = world();
        let claim = world.claim(&world.claimant(1, "a")).await.unwrap();
        let mut copy = Body {
            epoch: 1,
            catalog: CatalogId::from_bytes([1; 16]),
            host: "a".into(),
            started_ns: START,
        };
        let writer = Writer::new(world.store.clone());
        match tamper {
            0 => world.store.delete(&name_of(claim.key())).await.unwrap(),
            1 => {
                copy.started_ns += 1;
                writer.claim(&copy).await.unwrap();
            }
            _ => writer.released(claim.key()).await.unwrap(),
        }
        let error = claim.check().await.unwrap_err();
        assert!(
            matches!(error, RepoError::Fenced { .. }),
            "{tamper}: {error}"
        );
        // Put back as it was: it stays lost.
        copy.started_ns = START;
        writer.claim(&copy).await.unwrap();
        assert!(claim.check().await.is_err());
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_asked_does_not_fence() {
    let world = world();
    let claim = world.claim(&world.claimant(1, "a")).await.unwrap();
    world
        .faults
        .fail_next(100, crate::repo::testing::fail::errno(5));
    let error = claim.check().await.unwrap_err();
    assert!(
        matches!(error, RepoError::StoreUnavailable { .. }),
        "{error}"
    );
    world.faults.heal();
    claim.check().await.unwrap();
}

/// Two catalogs claim at the same time: every order of their first requests, by hand.
#[tokio::test]
async fn of_two_that_race_one_owns_the_repository_in_every_order() {
    let (mut both, mut waits) = (0, 0);
    for order in 0_u32..1 << 12 {
        let world = world();
        world.faults.take_turns();
        let (one, two) = (world.claimant(1, "a"), world.claimant(2, "b"));
        // Each does what a process does next: it checks before it writes.
        let claim = async |claimant: &Claimant| {
            let claim = world.claim(claimant).await?;
            claim.check().await?;
            Ok(claim)
        };
        type Claiming<'a> = Pin<Box<dyn Future<Output = Result<Claim>> + 'a>>;
        let mut racing: [Option<Claiming<'_>>; 2] =
            [Some(Box::pin(claim(&one))), Some(Box::pin(claim(&two)))];
        let mut ended: [Option<(Result<Claim>, Duration)>; 2] = [None, None];
        let mut step = 0;
        while racing.iter().any(Option::is_some) {
            let chosen = match step {
                0..12 => (order >> step & 1) as usize,
                _ => step % 2,
            };
            step += 1;
            let who = if racing[chosen].is_some() {
                chosen
            } else {
                1 - chosen
            };
            if let Some(claiming) = &mut racing[who]
                && let Some(claimed) = claiming.as_mut().now_or_never()
            {
                ended[who] = Some((claimed, world.clock.elapsed()));
                racing[who] = None;
            }
            // Requests take no time: the clock runs while there is nothing but waiting.
            let live = racing.iter().flatten().count();
            if live > 0 && world.clock.sleepers() == live {
                world.clock.advance(Duration::from_secs(10));
            }
            // Gives the tasks of the runtime their budget back.
            tokio::task::yield_now().await;
        }
        let mut owners = 0;
        let mut times = Vec::new();
        for (claimed, at) in ended.into_iter().flatten() {
            match claimed {
                Ok(claim) => {
                    owners += usize::from(claim.check().await.is_ok());
                    times.push(at);
                }
                Err(error) => assert!(
                    matches!(error, RepoError::Owned { .. } | RepoError::Fenced { .. }),
                    "{error}"
                ),
            }
        }
        assert_eq!(owners, 1, "order {order:012b}");
        if let [first, second] = times[..] {
            // Both were allowed to write at some time: the later one 2 T after the other.
            both += 1;
            assert!(first.abs_diff(second) >= 2 * T, "order {order:012b}");
        }
        waits += usize::from(world.clock.elapsed() > Duration::ZERO);
    }
    // The race is real: in some orders both were, or one waited.
    assert!(both > 0 && waits >= both, "{both} {waits}");
}

#[test]
fn this_host_has_a_name_that_a_claim_can_hold() {
    let host = host_identity();
    assert_eq!(host, host_identity());
    let body = Body {
        epoch: 1,
        catalog: CatalogId::from_bytes([1; 16]),
        host,
        started_ns: 1,
    };
    Body::decode(&body.encode().unwrap()).unwrap();
}
