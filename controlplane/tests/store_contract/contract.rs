//! What every backend of the store must do. Each function gets an empty store.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::time::timeout;
use wattle_controlplane::store::{
    Change, Compare, Key, MAX_BYTES, MAX_OPERATIONS, Operation, Outcome, Store, StoreError, Stored,
    Transaction, Watch,
};
use wattle_model::Revision;

type Any = Arc<dyn Store>;

pub(crate) fn key(name: impl std::fmt::Display) -> Key {
    Key::new(format!("v1/test/{name}"))
}

pub(crate) fn put(name: impl std::fmt::Display, value: &'static str) -> Transaction {
    Transaction::default().put(key(name), Bytes::from_static(value.as_bytes()))
}

/// Commits what must succeed.
pub(crate) async fn done(store: &Any, transaction: Transaction) -> Revision {
    match store.commit(transaction).await.unwrap() {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict => panic!("a comparison failed"),
    }
}

async fn read(store: &Any, name: &str) -> Option<(Bytes, Revision)> {
    store.get(&key(name)).await.unwrap().map(|stored| (stored.value, stored.modified))
}

/// The next change, which must come soon.
async fn next(watch: &mut Watch) -> Change {
    let change = timeout(Duration::from_secs(10), watch.next()).await;
    change.expect("no change within 10 s").expect("the watch has ended").unwrap()
}

async fn names(store: &Any) -> Vec<String> {
    let page = store.list(&key(""), None, 1000).await.unwrap();
    page.items.iter().map(|item| item.key.to_string().replace("v1/test/", "")).collect()
}

pub(crate) async fn an_empty_store_has_nothing(store: Any) {
    let head = store.head().await.unwrap();
    assert_eq!(store.head().await.unwrap(), head);
    assert_eq!(read(&store, "a").await, None);
    let page = store.list(&Key::new("v1/"), None, 10).await.unwrap();
    assert!(page.items.is_empty() && !page.more);
}

pub(crate) async fn a_put_is_read_back_with_its_revision(store: Any) {
    let first = done(&store, put("a", "1")).await;
    assert_eq!(read(&store, "a").await, Some(("1".into(), first)));
    let second = done(&store, put("a", "").put(key("b"), "2".into())).await;
    assert_eq!(read(&store, "a").await, Some((Bytes::new(), second)));
    assert_eq!(read(&store, "b").await, Some(("2".into(), second)));
    done(&store, Transaction::default().delete(key("a"))).await;
    assert_eq!(read(&store, "a").await, None);
}

pub(crate) async fn revisions_rise_by_one_and_nothing_takes_none(store: Any) {
    let first = done(&store, put("a", "1")).await;
    let same = done(&store, put("a", "1")).await;
    assert_eq!(same, first.next(), "a put of the same value is a change");
    assert_eq!(done(&store, Transaction::default().delete(key("none"))).await, same);
    assert_eq!(done(&store, Transaction::default()).await, same);
    let stored = store.get(&key("a")).await.unwrap().unwrap();
    assert_eq!(done(&store, Transaction::default().unchanged(&stored)).await, same);
    assert_eq!(store.head().await.unwrap(), same);
    assert_eq!(done(&store, put("b", "1").delete(key("none"))).await, same.next());
}

pub(crate) async fn comparisons_decide(store: Any) {
    let first = done(&store, Transaction::default().create(key("a"), "1".into())).await;
    let again = store.commit(Transaction::default().create(key("a"), "2".into())).await;
    assert_eq!(again.unwrap(), Outcome::Conflict);
    let stored = Stored { key: key("a"), value: "1".into(), modified: first };
    let second = done(&store, Transaction::default().replace(&stored, "2".into())).await;
    let late = store.commit(Transaction::default().replace(&stored, "3".into())).await;
    assert_eq!(late.unwrap(), Outcome::Conflict);
    let stored = Stored { modified: second, ..stored };
    done(&store, Transaction::default().remove(&stored)).await;
    let gone = store.commit(Transaction::default().unchanged(&stored)).await;
    assert_eq!(gone.unwrap(), Outcome::Conflict);
    done(&store, Transaction::default().create(key("a"), "4".into())).await;
}

pub(crate) async fn a_refused_transaction_writes_nothing(store: Any) {
    let head = done(&store, put("a", "1")).await;
    let mut transaction = put("b", "1").delete(key("a"));
    transaction.compares = vec![Compare::Absent(key("c")), Compare::Absent(key("a"))];
    assert_eq!(store.commit(transaction).await.unwrap(), Outcome::Conflict);
    assert_eq!(store.head().await.unwrap(), head);
    assert_eq!(names(&store).await, ["a"]);
}

pub(crate) async fn limits_are_named_and_nothing_is_written(store: Any) {
    let head = store.head().await.unwrap();
    let many = (0..=MAX_OPERATIONS).fold(Transaction::default(), |t, i| t.put(key(i), "x".into()));
    let error = store.commit(many).await.unwrap_err();
    assert_eq!(error.to_string(), "a transaction has at most 128 operations, this one has 129");
    let large = Transaction::default().put(key("a"), vec![0; MAX_BYTES].into());
    let error = store.commit(large).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { what: "bytes", .. }), "{error}");
    let error = store.commit(put("a", "1").delete(key("a"))).await.unwrap_err();
    assert_eq!(error.to_string(), "a transaction writes v1/test/a twice");
    let mut compares = put("a", "1");
    compares.compares = (0..=MAX_OPERATIONS).map(|i| Compare::Absent(key(i))).collect();
    assert!(matches!(store.commit(compares).await, Err(StoreError::TooLarge { .. })));
    assert_eq!((store.head().await.unwrap(), names(&store).await), (head, vec![]));
}

pub(crate) async fn transactions_at_the_limits_are_done(store: Any) {
    let many = (0..MAX_OPERATIONS)
        .fold(Transaction::default(), |t, i| t.create(key(format!("{i:03}")), "x".into()));
    let revision = done(&store, many).await;
    let page = store.list(&key(""), None, 1000).await.unwrap();
    assert_eq!(page.items.len(), MAX_OPERATIONS);
    assert!(page.items.iter().all(|item| item.modified == revision));
    let room = MAX_BYTES - key("a").as_str().len();
    done(&store, Transaction::default().put(key("a"), vec![7; room].into())).await;
    assert_eq!(read(&store, "a").await.unwrap().0.len(), room);
}

pub(crate) async fn listings_page_in_the_order_of_keys(store: Any) {
    for name in ["b", "a/1", "c", "a/2", "a"] {
        done(&store, put(name, "x")).await;
    }
    let head = done(&store, Transaction::default().put(Key::new("v1/tesu"), "x".into())).await;
    let first = store.list(&key(""), None, 3).await.unwrap();
    let keys = |items: &[Stored]| items.iter().map(|i| i.key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&first.items), [key("a"), key("a/1"), key("a/2")]);
    assert!(first.more);
    assert_eq!(first.revision, head);
    let rest = store.list(&key(""), Some(&key("a/2")), 3).await.unwrap();
    assert_eq!(keys(&rest.items), [key("b"), key("c")]);
    assert!(!rest.more);
    let exact = store.list(&key(""), Some(&key("a/2")), 2).await.unwrap();
    assert!(!exact.more, "nothing is left after the last key");
    let inner = store.list(&key("a/"), None, 10).await.unwrap();
    assert_eq!(keys(&inner.items), [key("a/1"), key("a/2")]);
    let before = store.list(&key("b"), Some(&key("a")), 10).await.unwrap();
    assert_eq!(keys(&before.items), [key("b")]);
}

pub(crate) async fn a_snapshot_shows_one_revision(store: Any) {
    for chunk in 0..25 {
        let transaction = (0..100).fold(Transaction::default(), |t, i| {
            t.put(key(format!("{:04}", chunk * 100 + i)), "old".into())
        });
        done(&store, transaction).await;
    }
    let mut snapshot = store.snapshot(&key("")).await.unwrap();
    assert_eq!(snapshot.revision, store.head().await.unwrap());
    let mut seen = snapshot.pages.next().await.unwrap().unwrap();
    assert!(seen.len() < 2500, "the rest is read after the changes below");
    done(&store, put("0000", "new").put(key("2400"), "new".into()).delete(key("2401"))).await;
    done(&store, put("2500", "new")).await;
    let rest: Vec<_> = snapshot.pages.try_collect().await.unwrap();
    seen.extend(rest.into_iter().flatten());
    assert_eq!(seen.len(), 2500);
    assert!(seen.is_sorted_by_key(|item| item.key.clone()));
    assert!(seen.iter().all(|item| item.value == "old" && item.modified <= snapshot.revision));
}

/// etcd's answers are bounded by bytes, too.
pub(crate) async fn a_snapshot_of_more_than_one_answer_holds_is_whole(store: Any) {
    let value = Bytes::from(vec![7; MAX_BYTES - 1000]);
    for n in 10..28 {
        done(&store, Transaction::default().put(key(n), value.clone())).await;
    }
    let pages: Vec<Vec<Stored>> =
        store.snapshot(&key("")).await.unwrap().pages.try_collect().await.unwrap();
    let names: Vec<_> = pages.iter().flatten().map(|stored| stored.key.clone()).collect();
    assert_eq!(names, (10..28).map(key).collect::<Vec<_>>());
    assert!(pages.iter().flatten().all(|stored| stored.value == value));
}

pub(crate) async fn a_watch_tells_whole_transactions_in_order(store: Any) {
    let before = done(&store, put("before", "1")).await;
    let mut watch = store.watch(&key(""), before).await.unwrap();
    let first = done(&store, put("b", "1").put(key("a"), "2".into())).await;
    let second = done(&store, put("a", "3").delete(key("b")).delete(key("none"))).await;
    let operations =
        vec![Operation::Put(key("b"), "1".into()), Operation::Put(key("a"), "2".into())];
    assert_eq!(sorted(next(&mut watch).await), sorted(Change { revision: first, operations }));
    let operations = vec![Operation::Put(key("a"), "3".into()), Operation::Delete(key("b"))];
    assert_eq!(sorted(next(&mut watch).await), sorted(Change { revision: second, operations }));
}

/// A transaction writes no key twice, so the order within it says nothing.
fn sorted(mut change: Change) -> Change {
    change.operations.sort_by_key(|operation| operation.key().clone());
    change
}

pub(crate) async fn a_watch_tells_its_prefix_only(store: Any) {
    let before = store.head().await.unwrap();
    let mut watch = store.watch(&key("a/"), before).await.unwrap();
    done(&store, put("b", "1")).await;
    let both = done(&store, put("a/1", "2").put(key("b"), "2".into())).await;
    done(&store, put("a", "3")).await;
    let last = done(&store, Transaction::default().delete(key("a/1"))).await;
    let operations = vec![Operation::Put(key("a/1"), "2".into())];
    assert_eq!(next(&mut watch).await, Change { revision: both, operations });
    let operations = vec![Operation::Delete(key("a/1"))];
    assert_eq!(next(&mut watch).await, Change { revision: last, operations });
}

pub(crate) async fn a_watch_resumes_at_every_revision(store: Any) {
    let start = store.head().await.unwrap();
    let mut revisions = Vec::new();
    // More than a backend reads at once.
    for i in 0..600 {
        revisions.push(done(&store, put(i, "1").put(key("other"), "2".into())).await);
    }
    for cut in (0..600_usize).step_by(97) {
        let after = cut.checked_sub(1).map_or(start, |last| revisions[last]);
        let mut watch = store.watch(&key(""), after).await.unwrap();
        for expected in &revisions[cut..] {
            let change = next(&mut watch).await;
            assert_eq!((change.revision, change.operations.len()), (*expected, 2));
        }
    }
}

pub(crate) async fn a_watch_from_the_future_waits(store: Any) {
    let head = store.head().await.unwrap();
    let mut watch = store.watch(&key(""), Revision(head.0 + 2)).await.unwrap();
    for _ in 0..2 {
        done(&store, put("a", "1")).await;
    }
    let third = done(&store, put("a", "2")).await;
    assert_eq!(next(&mut watch).await.revision, third);
}

pub(crate) async fn counters_by_many_writers_lose_nothing(store: Any) {
    const WRITERS: usize = 16;
    const EACH: usize = 25;
    done(&store, put("counter", "0")).await;
    let writers = (0..WRITERS).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut made = Vec::new();
            while made.len() < EACH {
                let read = store.get(&key("counter")).await.unwrap().unwrap();
                let count: usize = std::str::from_utf8(&read.value).unwrap().parse().unwrap();
                let next = (count + 1).to_string();
                match store.commit(Transaction::default().replace(&read, next.into())).await {
                    Ok(Outcome::Committed(revision)) => made.push(revision),
                    Ok(Outcome::Conflict) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            made
        })
    });
    let made: Vec<_> = futures::future::try_join_all(writers).await.unwrap().concat();
    assert_eq!(read(&store, "counter").await.unwrap().0, (WRITERS * EACH).to_string());
    let distinct: BTreeSet<_> = made.iter().collect();
    assert_eq!(distinct.len(), WRITERS * EACH, "each change has its own revision");
}

/// Of many that create the same key at once, one wins, and the losers' other keys aren't there.
pub(crate) async fn a_group_is_evaluated_in_order(store: Any) {
    let commits = (0..64).map(|i| {
        let transaction = Transaction::default()
            .create(key("one"), "x".into())
            .put(key(format!("mine/{i}")), "x".into());
        store.commit(transaction)
    });
    let outcomes = futures::future::try_join_all(commits).await.unwrap();
    let won = outcomes.iter().filter(|outcome| **outcome != Outcome::Conflict).count();
    assert_eq!(won, 1);
    assert_eq!(names(&store).await.len(), 2);
}

pub(crate) async fn reads_see_what_was_committed_before(store: Any) {
    for i in 0..100 {
        let revision = done(&store, put(i, "x")).await;
        assert!(store.head().await.unwrap() >= revision);
        let stored = store.get(&key(i)).await.unwrap().expect("it was committed");
        assert_eq!(stored.modified, revision);
    }
}

/// Whoever has been told of a heartbeat has been told of everything before it.
pub(crate) async fn a_watch_brings_every_beat(store: Any) {
    let before = store.head().await.unwrap();
    let mut watch = store.watch(&Key::new("v1/"), before).await.unwrap();
    for i in 0..20 {
        let written = done(&store, put(i, "x")).await;
        let beat = store.beat().await.unwrap();
        assert!(beat >= written);
        let mut told = Vec::new();
        while told.last().is_none_or(|last| *last < beat) {
            told.push(next(&mut watch).await.revision);
        }
        assert!(told.contains(&written), "told {told:?} before the beat {beat}");
    }
}

/// What somebody asked for and didn't wait for is no answer to who asks later.
pub(crate) async fn a_beat_that_was_given_up_proves_nothing(store: Any) {
    for i in 0..300 {
        let patience = Duration::from_micros(rand::random_range(0..4000));
        let _ = timeout(patience, store.beat()).await;
        let written = done(&store, put(i % 10, "x")).await;
        let beat = store.beat().await.unwrap();
        assert!(beat >= written, "a beat at {beat} after a commit at {written}");
    }
}

pub(crate) async fn what_is_announced_is_there(store: Any) {
    let key = Key::new("v1/live/test");
    let first = store.announce(key.clone(), "1".into()).await.unwrap();
    let stored = store.get(&key).await.unwrap().unwrap();
    assert_eq!((stored.value, stored.modified), ("1".into(), first));
    let second = store.announce(key.clone(), "2".into()).await.unwrap();
    assert!(second > first);
    assert_eq!(store.get(&key).await.unwrap().unwrap().value, "2");
}

/// A catch-up of many large transactions comes in several pieces, and none of them in two.
pub(crate) async fn a_watch_that_catches_up_tells_whole_transactions(store: Any) {
    let start = store.head().await.unwrap();
    let mut revisions = Vec::new();
    for i in 0..40 {
        let value = bytes::Bytes::from(vec![i; 6000]);
        let many = (0..20).fold(Transaction::default(), |t, n| t.put(key(n), value.clone()));
        revisions.push(done(&store, many).await);
    }
    let mut watch = store.watch(&key(""), start).await.unwrap();
    for revision in revisions {
        let change = next(&mut watch).await;
        assert_eq!((change.revision, change.operations.len()), (revision, 20));
    }
}
