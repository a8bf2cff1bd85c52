//! The embedded backend: the contract, and what its one file must survive.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use tempfile::TempDir;
use wattle_controlplane::store::{
    Key, Outcome, Store, StoreError, Transaction, WatchError, embedded::Embedded,
};
use wattle_model::Revision;

use crate::contract::{done, key, put};

async fn open() -> (Arc<dyn Store>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(&folder.path().join("store.redb")).unwrap();
    (Arc::new(store), folder)
}

crate::contract_suite!(super::open);

#[tokio::test]
async fn everything_is_there_after_a_reopen() {
    let (store, folder) = open().await;
    let first = done(&store, put("a", "1")).await;
    let last = done(&store, put("b", "2")).await;
    drop(store);
    let store = Embedded::open(&folder.path().join("store.redb")).unwrap();
    assert_eq!(store.head().await.unwrap(), last);
    assert_eq!(store.get(&key("a")).await.unwrap().unwrap().modified, first);
    let outcome = store.commit(put("c", "3")).await.unwrap();
    assert_eq!(outcome, Outcome::Committed(last.next()));
}

#[tokio::test]
async fn an_empty_store_is_at_zero() {
    assert_eq!(open().await.0.head().await.unwrap(), Revision::ZERO);
}

#[tokio::test]
async fn what_was_announced_is_gone_after_a_reopen() {
    let (store, folder) = open().await;
    done(&store, put("a", "1")).await;
    let mut last = Revision::ZERO;
    // More than one transaction deletes.
    for i in 0..200 {
        last = store.announce(Key::new(format!("v1/live/{i}")), "x".into()).await.unwrap();
    }
    drop(store);
    let store = Embedded::open(&folder.path().join("store.redb")).unwrap();
    let left = store.list(&Key::new("v1/"), None, 10).await.unwrap();
    assert_eq!(left.items.iter().map(|item| &item.key).collect::<Vec<_>>(), [&key("a")]);
    let mut watch = store.watch(&Key::new("v1/live/"), last).await.unwrap();
    let change = futures::StreamExt::next(&mut watch).await.unwrap().unwrap();
    assert_eq!(change.operations.len(), 128, "a watch tells of it");
}

#[tokio::test]
async fn what_the_log_has_forgotten_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::with_log(&folder.path().join("store.redb"), 10).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let mut slow = store.watch(&key(""), Revision::ZERO).await.unwrap();
    for i in 0..30 {
        done(&store, put(i, "x")).await;
    }
    let Err(error) = store.watch(&key(""), Revision(19)).await else { panic!("20 is forgotten") };
    assert!(matches!(error, WatchError::Compacted(Revision(21))), "{error}");
    assert!(store.watch(&key(""), Revision(20)).await.is_ok());
    let first = futures::StreamExt::next(&mut slow).await.unwrap();
    assert!(matches!(first, Err(WatchError::Compacted(_))), "a slow watch learns it too");
    assert!(futures::StreamExt::next(&mut slow).await.is_none());
}

#[tokio::test]
async fn a_watch_ends_when_the_store_closes() {
    let (store, _folder) = open().await;
    let mut watch = store.watch(&key(""), Revision::ZERO).await.unwrap();
    drop(store);
    let end = futures::StreamExt::next(&mut watch).await.unwrap();
    assert!(matches!(end, Err(WatchError::Store(StoreError::Unavailable(_)))));
}

#[tokio::test]
async fn a_second_process_is_told_which_file_is_in_use() {
    let (_store, folder) = open().await;
    let path = folder.path().join("store.redb");
    let error = Embedded::open(&path).err().expect("it is in use").to_string();
    assert!(error.contains(path.to_str().unwrap()) && error.contains("in use"), "{error}");
}

#[tokio::test]
async fn the_file_is_private() {
    let (_store, folder) = open().await;
    let mode = fs::metadata(folder.path().join("store.redb")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_damaged_file_is_named() {
    let (store, folder) = open().await;
    let large = Transaction::default().put(key("a"), vec![7; 100_000].into());
    done(&store, large).await;
    drop(store);
    let path = folder.path().join("store.redb");
    let whole = fs::read(&path).unwrap();
    let place = whole.windows(64).position(|bytes| bytes == [7; 64]).expect("the value is there");
    let mut flipped = whole.clone();
    flipped[place + 50_000] ^= 1;
    let cut = whole[..whole.len() / 2].to_vec();
    let header = [vec![0; 64], whole[64..].to_vec()].concat();
    for (what, bytes) in
        [("flipped", flipped), ("cut", cut), ("header", header), ("text", b"no store".repeat(1000))]
    {
        fs::write(&path, bytes).unwrap();
        match Embedded::open(&path).err() {
            Some(StoreError::Corrupt(why)) => {
                assert!(why.contains(path.to_str().unwrap()), "{what}: {why}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// The writer of the next test. It prints a line after each commit, until it is killed.
#[test]
fn child_that_commits_until_killed() {
    let Some(path) = std::env::var_os("WATTLE_TEST_STORE") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store: Arc<dyn Store> = Arc::new(Embedded::open(Path::new(&path)).unwrap());
        let writers = (0..8).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0_u64.. {
                    let revision = done(&store, put(format!("{writer}/{i}"), "x")).await;
                    // In one write, so that a kill leaves whole lines.
                    let line = format!("committed {writer}/{i} {revision}\n");
                    std::io::stderr().write_all(line.as_bytes()).unwrap();
                }
            })
        });
        futures::future::join_all(writers).await;
    });
}

fn start_child(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["embedded::child_that_commits_until_killed", "--exact", "--nocapture"])
        .env("WATTLE_TEST_STORE", path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn what_was_committed_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    for round in 0..3 {
        let mut child = start_child(&path);
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut committed = Vec::new();
        for line in lines.map_while(Result::ok) {
            if let Some(rest) = line.strip_prefix("committed ") {
                committed.push(rest.to_owned());
            }
            if committed.len() == 50 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(committed.len() >= 50, "round {round}: the child wrote {}", committed.len());
        let store = Embedded::open(&path).unwrap();
        for line in committed {
            let (name, revision) = line.split_once(' ').unwrap();
            let stored = store.get(&key(name)).await.unwrap().expect("it was committed");
            assert_eq!(stored.modified.to_string(), revision);
        }
        let page = store.list(&key(""), None, 100_000).await.unwrap();
        let last = page.items.iter().map(|item| item.modified).max().unwrap();
        assert_eq!(last, store.head().await.unwrap(), "head is the last transaction");
    }
}

/// Runs under a file size limit, as the next test starts it.
#[test]
fn child_that_fills_its_disk() {
    let Some(path) = std::env::var_os("WATTLE_TEST_FULL_STORE") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store: Arc<dyn Store> = Arc::new(Embedded::open(Path::new(&path)).unwrap());
        let chunk = |i: u64| {
            let half = |name: &str| (key(format!("{i}/{name}")), vec![7; 100_000].into());
            let ((a, first), (b, second)) = (half("a"), half("b"));
            store.commit(Transaction::default().put(a, first).put(b, second))
        };
        let mut done = 0;
        let error = loop {
            match chunk(done).await {
                Ok(_) => done += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(done > 3, "{done} before the limit");
        // Writes fail, again and again; whoever reads gets all that was committed.
        for _ in 0..30 {
            assert!(chunk(done).await.is_err());
            assert_eq!(
                store.list(&key(""), None, 100_000).await.unwrap().items.len() as u64,
                done * 2
            );
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let pid = std::process::id().to_string();
        let raised = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status();
        assert!(raised.expect("install util-linux for prlimit").success());
        let revision = loop {
            match chunk(done).await {
                Ok(Outcome::Committed(revision)) => break revision,
                other => assert!(matches!(other, Err(StoreError::Unavailable(_))), "{other:?}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        };
        let page = store.list(&key(""), None, 100_000).await.unwrap();
        assert_eq!(page.items.len() as u64, (done + 1) * 2, "no half of a transaction");
        assert!(page.items.iter().all(|item| item.modified <= revision));
        eprintln!("filled and freed");
    });
}

#[test]
fn a_full_disk_is_an_outage_and_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    // 8 MB, and a write beyond that is an error, not a signal.
    let script = "trap '' XFSZ; ulimit -S -f 16384; exec \"$0\" embedded::child_that_fills_its_disk --exact --nocapture";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("WATTLE_TEST_FULL_STORE", folder.path().join("store.redb"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("filled and freed"), "{said}");
}
