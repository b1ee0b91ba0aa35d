//! Events are told once, counted when they happen again, and hold up nothing.

use super::book::{AGAIN, Answer, Book, FORBIDDEN_FOR, Fact, RAISE_EVERY, REMEMBERED, WAITING};
use super::*;

const SECOND: i64 = 1_000_000_000;

fn fact(name: &str, reason: Reason, note: &str) -> Fact {
    Fact {
        about: claim("shop", name, "uid"),
        reason,
        note: note.to_owned(),
    }
}

fn at(seconds: i64) -> (i64, Duration) {
    let since = Duration::from_secs(seconds.try_into().unwrap());
    (1_700_000_000 * SECOND + seconds * SECOND, since)
}

/// Writes what may be written, as the API answers.
fn write(book: &mut Book, seconds: i64, answer: &Answer) -> Option<(String, bool, i32, String)> {
    let (ns, now) = at(seconds);
    let write = book.next(ns, now)?;
    let said = (
        write.name.clone(),
        write.raises,
        write.count,
        write.fact.note.clone(),
    );
    book.settle(write, answer.clone(), now);
    Some(said)
}

#[test]
fn the_same_again_raises_the_count_and_has_the_newest_message() {
    let mut book = Book::default();
    let failed = |note: &str| fact("web", Reason::BackupFailed, note);
    book.add(failed("one"), at(0).0);
    let (name, raises, count, _) = write(&mut book, 0, &Answer::Taken).unwrap();
    assert!(!raises && count == 1 && name.starts_with("web."), "{name}");
    for second in 1..5 {
        book.add(failed(&format!("note {second}")), at(second).0);
    }
    // Another reason is another event, and is not held up.
    book.add(fact("web", Reason::BackupGivenUp, "enough"), at(5).0);
    let other = write(&mut book, 5, &Answer::Taken).unwrap();
    assert!(other.0 != name && !other.1);
    assert_eq!(
        write(&mut book, 5, &Answer::Taken),
        None,
        "raised a moment ago"
    );
    let raise = i64::try_from(RAISE_EVERY.as_secs()).unwrap();
    let raised = write(&mut book, raise, &Answer::Taken).unwrap();
    assert_eq!(raised, (name.clone(), true, 5, "note 4".to_owned()));
    // Much later it is news again.
    let again = i64::try_from(AGAIN.as_secs()).unwrap();
    let later = raise + again + 10;
    book.add(failed("later"), at(later).0);
    let new = write(&mut book, later, &Answer::Taken).unwrap();
    assert!(new.0 != name && !new.1 && new.2 == 1);
    assert_eq!((book.counts().told, book.counts().dropped), (7, 0));
}

#[test]
fn the_oldest_goes_when_too_many_wait() {
    let mut book = Book::default();
    for number in 0..WAITING + 3 {
        let name = format!("claim-{number}");
        book.add(fact(&name, Reason::BackupStarted, ""), at(0).0);
    }
    assert_eq!(book.counts().dropped, 3);
    let first = write(&mut book, 1, &Answer::Taken).unwrap();
    assert!(first.0.starts_with("claim-3."), "{}", first.0);
    // What is remembered is bounded too.
    let mut book = Book::default();
    for number in 0..3 * i64::try_from(REMEMBERED).unwrap() {
        let name = format!("claim-{number}");
        book.add(fact(&name, Reason::BackupStarted, ""), at(number).0);
        assert!(write(&mut book, number, &Answer::Taken).is_some());
    }
    assert!(book.remembered() <= REMEMBERED, "{}", book.remembered());
}

#[test]
fn an_api_that_is_away_gets_it_later_and_a_refused_one_is_given_up() {
    let mut book = Book::default();
    book.add(fact("web", Reason::BackupStarted, "a"), at(0).0);
    let away = Answer::Away("gone".to_owned());
    assert!(write(&mut book, 0, &away).is_some());
    book.add(fact("web", Reason::BackupStarted, "b"), at(1).0);
    let told = write(&mut book, 2, &Answer::Taken).unwrap();
    assert_eq!((told.2, &told.3[..]), (2, "b"));
    book.add(fact("db", Reason::BackupStarted, "c"), at(3).0);
    let refused = Answer::Refused("unlike its schema".to_owned());
    assert!(write(&mut book, 3, &refused).is_some());
    assert_eq!(write(&mut book, 100, &Answer::Taken), None);
    assert_eq!((book.counts().told, book.counts().dropped), (2, 1));
}

#[test]
fn a_missing_right_is_not_asked_for_again_for_minutes_and_holds_up_no_other_namespace() {
    let mut book = Book::default();
    book.add(fact("web", Reason::BackupStarted, "a"), at(0).0);
    let mut other = fact("web", Reason::BackupStarted, "b");
    other.about.namespace = Some("games".to_owned());
    book.add(other, at(0).0);
    let forbidden = Answer::Forbidden("no".to_owned());
    assert_eq!(write(&mut book, 0, &forbidden).unwrap().3, "a");
    assert_eq!(write(&mut book, 1, &Answer::Taken).unwrap().3, "b");
    assert_eq!(write(&mut book, 2, &Answer::Taken), None);
    let later = i64::try_from(FORBIDDEN_FOR.as_secs()).unwrap();
    assert_eq!(write(&mut book, later, &Answer::Taken).unwrap().3, "a");
}

#[test]
fn what_the_api_says_is_understood() {
    let said = |code: u16, message: &str| {
        let status = json!({
            "status": "Failure", "code": code, "message": message, "reason": "R",
        });
        answer(&kube::Error::Api(serde_json::from_value(status).unwrap()))
    };
    assert!(matches!(
        said(403, "events is forbidden"),
        Answer::Forbidden(_)
    ));
    let ending = "unable to create new content in namespace x because it is being terminated";
    assert!(matches!(said(403, ending), Answer::Refused(_)));
    assert!(matches!(said(404, "no namespace"), Answer::Refused(_)));
    assert!(matches!(said(503, "away"), Answer::Away(_)));
    assert!(matches!(said(429, "slowly"), Answer::Away(_)));
    let long = "é".repeat(2 * MAX_NOTE);
    let clock = holdfast_runtime::clock::ManualClock::at(0);
    let events = Events::new(Arc::new(clock));
    events.tell(&claim("shop", "web", "u"), Reason::BackupFailed, long);
    assert!(events.waiting()[0].2.len() <= MAX_NOTE);
}
