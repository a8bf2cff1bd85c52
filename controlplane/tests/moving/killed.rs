//! kill -9 in the middle: what is left says what it is, and the same command makes it whole.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use wattle_controlplane::{
    authority::CaFiles,
    cluster,
    moving::target,
    store::{
        Key, Store, Transaction,
        etcd::{Etcd, EtcdConfig},
        keys,
    },
};
use wattle_etcd::{EtcdCluster, Version};
use wattle_runtime::shutdown::Shutdown;

use crate::{
    Place,
    commands::{Machine, digest, program, run_in},
};

/// Records that take seconds to write.
const RECORDS: usize = 12_000;
const BYTES: usize = 4 << 10;
const LIMIT: Duration = Duration::from_secs(60);

/// A control plane with so many records that there is a middle, not running.
async fn large() -> Place {
    let place = Place::empty();
    let files = CaFiles::of(place.folder.path());
    cluster::open(&*place.store, &files, SystemTime::now()).await.unwrap();
    for batch in (0..RECORDS).collect::<Vec<_>>().chunks(100) {
        let put = |all: Transaction, n: &usize| {
            all.put(Key::new(format!("v1/of-a-later-version/{n:06}")), Bytes::from(vec![7; BYTES]))
        };
        let _ = place.store.commit(batch.iter().fold(Transaction::default(), put)).await.unwrap();
    }
    place
}

fn start(data: &Path, arguments: &str) -> Child {
    let mut command = program();
    command.args(arguments.split_whitespace()).arg("--data-dir").arg(data);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills it as soon as it is in the middle; it must not have come to its end.
fn kill(mut child: Child, mut in_the_middle: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !in_the_middle() {
        assert!(begin.elapsed() < LIMIT, "it never began");
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_killed_is_nobody_s_and_is_begun_again() {
    let Place { store, folder } = large().await;
    drop(store);
    let backup = folder.path().join("backup");
    let made = run_in(folder.path(), &format!("backup --with-ca --out {}", backup.display()));
    let machine = Machine::new();
    let restore = format!("restore --with-ca --in {}", backup.display());
    // A little after its beginning, in the middle, and once more over the half of one.
    for part in [8, 2, 2] {
        let store = machine.data().join("store.redb");
        let before = fs::metadata(&store).map_or(0, |file| file.len());
        // What a half takes is taken again by the next one before it is given back.
        let enough = before + (RECORDS * BYTES / part) as u64;
        kill(start(&machine.data(), &restore), || {
            fs::metadata(&store).is_ok_and(|file| file.len() >= enough.min(30 << 20))
        });
        let said = machine.refused("serve --listen 127.0.0.1:0");
        let half = format!("records from {} are half-way into this store", backup.display());
        assert!(said.contains(&half) && said.contains("same command again"), "{said}");
        let said = machine.refused("backup --out no");
        assert!(said.contains("half-way filled"), "{said}");
    }
    let said = machine.done(&restore);
    assert_eq!(digest(&said), digest(&made));
    drop(machine.serve());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_killed_is_nobody_s_and_is_begun_again() {
    let Place { store, folder } = large().await;
    let sent = target::tally(&*store).await.unwrap().hex();
    drop(store);
    let etcd = EtcdCluster::start(Version::V36, 1).unwrap();
    let url = etcd.urls()[0].clone();
    let config = EtcdConfig {
        endpoints: vec![url.parse().unwrap()],
        prefix: Default::default(),
        tls: None,
        user: None,
    };
    let shutdown = Shutdown::new();
    let store = Etcd::open(&config, &shutdown).unwrap();
    let place = format!("--etcd-endpoints {url}");
    let copy = format!("store copy --from embedded --to etcd {place}");
    for from in ["", "006"] {
        let child = start(folder.path(), &copy);
        let middle = Key::new(format!("v1/of-a-later-version/{from}"));
        let handle = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            kill(child, || {
                !handle.block_on(store.list(&middle, None, 1)).unwrap().items.is_empty()
            });
        });
        assert!(store.get(&keys::epoch()).await.unwrap().is_none());
        let said =
            run_in(folder.path(), &format!("serve --listen 127.0.0.1:0 --store etcd {place}"));
        assert!(said.contains("records from the embedded store are half-way"), "{said}");
    }
    let said = run_in(folder.path(), &copy);
    assert_eq!(said.matches(&sent).count(), 2, "{said}");
    let whole = target::tally(&store).await.unwrap();
    assert_eq!(whole.hex(), sent);
    shutdown.drain(Duration::from_secs(1)).await;
}
