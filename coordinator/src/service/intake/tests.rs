use super::*;
use futures::FutureExt;
use http_body::Body as _;
use tokio::sync::mpsc;

/// A body that is fed by hand.
struct Fed(mpsc::UnboundedReceiver<Bytes>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.poll_recv(cx).map(|b| b.map(|b| Ok(Frame::data(b))))
    }
}

fn message(length: usize) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
    bytes.resize(HEADER + length, 7);
    bytes
}

fn incoming(budget: &Arc<Semaphore>, limit: usize) -> (mpsc::UnboundedSender<Bytes>, Incoming) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let allowed = Allowed {
        limit,
        budget: budget.clone(),
        share: None,
        waiting: None,
        patience: 2,
        slowest: 64 << 10,
    };
    (sender, Incoming::new(Body::new(Fed(receiver)), allowed))
}

async fn next(body: &mut Incoming) -> Option<Result<Bytes, Status>> {
    let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap()))
}

#[test]
fn messages_are_found_wherever_the_bytes_are_cut() {
    let lengths = [0, 3, 70_000, 0, 1];
    let bytes: Vec<u8> = lengths.iter().flat_map(|n| message(*n)).collect();
    for cut in [1, 2, 4, 5, 6, 16_384, bytes.len()] {
        let mut framing = Framing::default();
        let (mut announced, mut ended) = (Vec::new(), 0);
        for mut piece in bytes.chunks(cut) {
            while !piece.is_empty() {
                let (seen, mark) = framing.advance(piece);
                piece = &piece[seen..];
                match mark {
                    Some(Mark::Announced(length)) => announced.push(length),
                    Some(Mark::Ended) => ended += 1,
                    None => {}
                }
            }
        }
        assert_eq!((announced, ended), (lengths.to_vec(), 3), "cut {cut}");
        assert!(!framing.is_inside());
    }
}

#[tokio::test]
async fn a_large_message_waits_for_the_budget_and_gives_it_back_once_it_is_taken() {
    let budget = Arc::new(Semaphore::new(100_000));
    let (first_in, mut first) = incoming(&budget, 100_000);
    let (second_in, mut second) = incoming(&budget, 100_000);
    // The first one stalls before its end; what it announced is taken.
    let bytes = Bytes::from(message(60_000));
    first_in.send(bytes.slice(..50_000)).unwrap();
    assert_eq!(next(&mut first).await.unwrap().unwrap().len(), 50_000);
    assert_eq!(budget.available_permits(), 40_000);
    // A small message of the second passes; the large one behind it waits, and nothing of it is passed on.
    let mut two = message(100);
    two.extend(message(50_000));
    second_in.send(two.into()).unwrap();
    assert!(next(&mut second).now_or_never().is_none());
    // The end of the first, and the beginning of the next in one piece: they are passed on apart.
    let mut rest = bytes.slice(50_000..).to_vec();
    rest.extend(&message(100)[..50]);
    first_in.send(rest.into()).unwrap();
    let piece = next(&mut first).await.unwrap().unwrap();
    assert_eq!(piece.len(), bytes.len() - 50_000);
    // It is not taken yet.
    assert!(next(&mut second).now_or_never().is_none());
    assert_eq!(next(&mut first).await.unwrap().unwrap().len(), 50);
    let piece = next(&mut second).await.unwrap().unwrap();
    assert_eq!(piece.len(), HEADER + 100 + HEADER + 50_000);
    assert_eq!(budget.available_permits(), 50_000);
    // A stream that goes away gives back what it had.
    drop(second);
    assert_eq!(budget.available_permits(), 100_000);
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_by_its_announcement() {
    let budget = Arc::new(Semaphore::new(100_000));
    let (sender, mut body) = incoming(&budget, 1000);
    sender
        .send(message(1001)[..HEADER].to_vec().into())
        .unwrap();
    let refused = next(&mut body).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), tonic::Code::OutOfRange);
    assert!(refused.message().contains("found 1001 bytes"), "{refused}");
}

#[tokio::test]
async fn a_message_that_does_not_come_on_ends_its_stream() {
    let start = tokio::time::Instant::now();
    let budget = Arc::new(Semaphore::new(100_000));
    // Silent from the start, and in the middle; drop by drop is no faster.
    let (_nothing, mut silent) = incoming(&budget, 100_000);
    let (sender, mut stalled) = incoming(&budget, 100_000);
    sender
        .send(message(64 << 10)[..100].to_vec().into())
        .unwrap();
    assert!(next(&mut stalled).await.unwrap().is_ok());
    let drops = sender.clone();
    tokio::spawn(async move {
        while drops.send(Bytes::from_static(&[7])).is_ok() {
            tokio::time::sleep(Duration::from_millis(900)).await;
        }
    });
    let ended = next(&mut silent).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), tonic::Code::DeadlineExceeded);
    let ended = loop {
        match next(&mut stalled).await.unwrap() {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), tonic::Code::DeadlineExceeded);
    assert!(start.elapsed() < Duration::from_secs(20));
}

/// Between messages there is all the time in the world: the session's lease is what ends.
#[tokio::test]
async fn between_messages_nothing_is_waited_for() {
    let budget = Arc::new(Semaphore::new(100_000));
    let (sender, mut body) = incoming(&budget, 100_000);
    sender.send(message(10).into()).unwrap();
    assert!(next(&mut body).await.unwrap().is_ok());
    let more = tokio::time::timeout(Duration::from_secs(4), next(&mut body));
    assert!(more.await.is_err());
}

#[tokio::test]
async fn without_a_session_waiting_has_an_end() {
    let intake = Intake::default();
    let allowed = Allowed {
        limit: OTHER_BYTES,
        budget: intake.others.clone(),
        share: None,
        waiting: Some((intake.waiting.clone(), Duration::from_millis(100))),
        patience: 1,
        slowest: 64 << 10,
    };
    let _all = allowed.take(OTHER_BYTES).await.unwrap();
    let mut waiting: Vec<Taken> = (0..OTHERS_WAITING).map(|_| allowed.take(1)).collect();
    for taken in &mut waiting {
        assert!(taken.now_or_never().is_none());
    }
    let turned_away = allowed.take(1).now_or_never().unwrap().unwrap_err();
    assert_eq!(turned_away.code(), tonic::Code::Unavailable);
    let given_up = waiting.remove(0).await.unwrap_err();
    assert_eq!(given_up.code(), tonic::Code::Unavailable);
}

/// The largest requests that are legal fit their methods' limits.
#[test]
fn what_may_be_asked_fits() {
    use holdfast_format::wire::{MAX_ASKED_CHUNKS, MAX_FETCHED_CHUNKS};
    // An id with its tag and length, and what else there is.
    let ids = |n: usize| n * 34 + 64;
    assert!(ids(MAX_ASKED_CHUNKS) <= limits("/holdfast.v1.Backup/FindMissing").0);
    assert!(ids(MAX_FETCHED_CHUNKS) <= limits("/holdfast.v1.Restore/Fetch").1);
}
