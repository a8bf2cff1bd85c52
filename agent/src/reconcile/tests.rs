//! The loop on a device in memory, with time that the test moves.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use wattle_model::{PeerSpec, PrivateKey, Revision};
use wattle_plan::{Op, SetPeer, Update};

use super::{Change, Mesh, Open, Reconciler, Surroundings, Wishes};
use crate::{
    kernel::{Host, fake::FakeDevice},
    scripted::{NODE, key, node},
    settings::{Addresses, Settings},
    wireguard_key,
};

fn peer(n: u8) -> PeerSpec {
    wattle_proto::entry::decode(&crate::scripted::peer(n)).unwrap()
}

fn reset(peers: &[u8], revision: u64) -> Change {
    let update = Update::Reset(peers.iter().map(|n| peer(*n)).collect());
    Change { update, settings: None, secrets: None, key: None, revision: Revision(revision) }
}

fn settings(observed: Option<&str>) -> Settings {
    Settings {
        network: "default".parse().unwrap(),
        name: "tested".parse().unwrap(),
        addresses: Addresses {
            ipv4: Some([10, 90, 0, 250].into()),
            ipv4_range: Some("10.90.0.0/16".parse().unwrap()),
            ..Addresses::default()
        },
        control_planes: vec![],
        observed: observed.map(|at| at.parse().unwrap()),
        mtu: None,
    }
}

fn wishes() -> Wishes {
    Wishes {
        interface: "wattle0".into(),
        listen_port: 51820,
        mark: 0x5747,
        mtu: None,
        via: [].into(),
    }
}

struct Bench {
    device: FakeDevice,
    mesh: Mesh,
    host: watch::Sender<Arc<Host>>,
    noticed: Arc<Notify>,
    _ended: tokio_util::sync::DropGuard,
}

impl Bench {
    async fn new(observed: Option<&str>) -> Self {
        Self::with(&settings(observed), wishes()).await
    }

    async fn with(settings: &Settings, wishes: Wishes) -> Self {
        let private_key = PrivateKey::new([0xaa; 32]);
        let device = FakeDevice::new(wireguard_key::public(&private_key).unwrap());
        let opened = device.clone();
        let open: Open = Box::new(move |_| {
            let device = opened.clone();
            Box::pin(async move { Ok(Box::new(device.open()) as _) })
        });
        let host = watch::Sender::new(Arc::new(Host::with_addresses(&["192.0.2.7/24"])));
        let noticed = Arc::new(Notify::new());
        let surroundings = Surroundings { host: host.subscribe(), noticed: noticed.clone() };
        let opened =
            Reconciler::open(open, NODE, (private_key, vec![]), wishes, settings, surroundings)
                .await;
        let (reconciler, mesh) = opened.unwrap();
        let ended = CancellationToken::new();
        tokio::spawn(reconciler.run(ended.clone()));
        Self { device, mesh, host, noticed, _ended: ended.drop_guard() }
    }

    fn verified(&self) -> Revision {
        self.mesh.status().borrow().verified
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_is_verified_by_a_later_look_and_not_by_itself() {
    let bench = Bench::new(None).await;
    bench.mesh.apply(reset(&[1], 5)).await.unwrap();
    assert_eq!(bench.verified(), Revision::ZERO);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(bench.verified(), Revision(5));
}

#[tokio::test(start_paused = true)]
async fn somebody_s_meddling_is_undone_on_the_timer() {
    let bench = Bench::new(None).await;
    bench.mesh.apply(reset(&[1, 2], 5)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    bench.device.tamper(|observed| drop(observed.peers.remove(&key(1))));
    sleep(Duration::from_secs(31)).await;
    assert!(bench.device.observed().peers.contains_key(&key(1)));
}

#[tokio::test(start_paused = true)]
async fn a_refused_operation_is_blamed_reported_and_repeated() {
    let bench = Bench::new(None).await;
    bench.mesh.apply(reset(&[1], 5)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    bench.device.refuse([true]);
    let applied = bench.mesh.apply(reset(&[1, 2], 6)).await.unwrap();
    assert_eq!(applied.rejected[0].node, Some(node(2)));
    assert_eq!(bench.mesh.status().borrow().errors.len(), 1);
    sleep(Duration::from_secs(1)).await;
    assert!(bench.device.observed().peers.contains_key(&key(2)));
    assert_eq!((bench.verified(), bench.mesh.status().borrow().errors.len()), (Revision(6), 0));
}

/// What never works is tried every few seconds, not in a tight loop.
#[tokio::test(start_paused = true)]
async fn what_is_refused_for_ever_is_not_hurried() {
    let bench = Bench::new(None).await;
    bench.mesh.apply(reset(&[1], 5)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    bench.device.refuse(std::iter::repeat_n(true, 10));
    bench.mesh.apply(reset(&[1, 2], 6)).await.unwrap();
    sleep(Duration::from_secs(20)).await;
    assert!(!bench.device.observed().peers.contains_key(&key(2)), "tried more than 10 times");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.verified(), Revision(6));
}

/// Two entries with one key can't both be on a device: the one that isn't is named, once.
#[tokio::test(start_paused = true)]
async fn a_peer_that_fits_on_no_device_is_rejected_once() {
    let bench = Bench::new(None).await;
    let twin = PeerSpec { public_key: key(1), ..peer(2) };
    let update = Update::Delta { upserts: vec![peer(1), twin], removed: vec![] };
    let change = Change { update, settings: None, secrets: None, key: None, revision: Revision(5) };
    let applied = bench.mesh.apply(change).await.unwrap();
    assert_eq!(applied.rejected.iter().map(|r| r.node).collect::<Vec<_>>(), [Some(node(2))]);
    let update = Update::Delta { upserts: vec![peer(3)], removed: vec![] };
    let change = Change { update, settings: None, secrets: None, key: None, revision: Revision(6) };
    assert_eq!(bench.mesh.apply(change).await.unwrap().rejected, []);
}

#[tokio::test(start_paused = true)]
async fn keepalives_are_sent_behind_nat_only() {
    let keepalive = |bench: &Bench| bench.device.observed().peers[&key(1)].keepalive;
    let direct = Bench::new(Some("192.0.2.7:51820")).await;
    direct.mesh.apply(reset(&[1], 5)).await.unwrap();
    assert_eq!(keepalive(&direct), None);
    let translated = Bench::new(Some("203.0.113.9:51820")).await;
    translated.mesh.apply(reset(&[1], 5)).await.unwrap();
    assert_eq!(keepalive(&translated), Some(25));

    // The machine moves to where the control plane sees it.
    translated.host.send_replace(Arc::new(Host::with_addresses(&["203.0.113.9/24"])));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(keepalive(&translated), None);
}

/// What peers hear from a machine that moved tells them where it went.
#[tokio::test(start_paused = true)]
async fn behind_nat_keepalives_begin_anew_where_the_machine_moves() {
    let bench = Bench::new(Some("203.0.113.9:51820")).await;
    bench.mesh.apply(reset(&[1, 2], 5)).await.unwrap();
    bench.device.tamper(|observed| {
        observed.peers.get_mut(&key(1)).unwrap().last_handshake = Some(Duration::from_secs(9));
    });
    sleep(Duration::from_secs(1)).await;
    bench.device.take_log();
    let moved = Host::with_addresses(&["192.168.1.7/24"]);
    bench.host.send_replace(Arc::new(moved.clone()));
    sleep(Duration::from_secs(1)).await;
    let begun: Vec<_> = [0, 25].map(|s| Op::SetPeer(SetPeer::keepalive(key(1), s))).into();
    assert_eq!(bench.device.take_log(), begun, "and not with whom it doesn't speak");
    assert_eq!(repairs(&bench), [], "nobody meddled");

    bench.host.send_replace(Arc::new(moved));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.device.take_log(), [], "it hasn't moved");
}

fn repairs(bench: &Bench) -> Vec<(&'static str, u64)> {
    bench.mesh.status().borrow().repairs.iter().map(|(kind, count)| (*kind, *count)).collect()
}

/// What the kernel tells is put right at once, not on the timer.
#[tokio::test(start_paused = true)]
async fn what_the_kernel_tells_of_is_put_right_at_once_and_counted() {
    let bench = Bench::new(None).await;
    bench.mesh.apply(reset(&[1, 2], 5)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(repairs(&bench), [], "what the agent did itself was nobody else's doing");
    bench.device.tamper(|observed| (observed.up, observed.mtu) = (false, 9000));
    bench.noticed.notify_one();
    sleep(Duration::from_millis(500)).await;
    let observed = bench.device.observed();
    assert_eq!((observed.up, observed.mtu), (true, 1440));
    assert_eq!(repairs(&bench), [("mtu", 1), ("state", 1)]);
}

/// Whoever changes the link without end doesn't have the agent do the same.
#[tokio::test(start_paused = true)]
async fn a_contest_is_held_once_a_second() {
    let bench = Bench::new(None).await;
    bench.mesh.apply(reset(&[1], 5)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    for _ in 0..100 {
        bench.device.tamper(|observed| observed.up = false);
        bench.noticed.notify_one();
        sleep(Duration::from_millis(100)).await;
    }
    let [("state", count)] = repairs(&bench)[..] else { panic!("{:?}", repairs(&bench)) };
    assert!((5..=16).contains(&count), "{count}");
}

/// The device isn't read for a change that says all there is to do.
#[tokio::test(start_paused = true)]
async fn a_change_on_a_device_that_is_right_needs_no_look_at_it() {
    let bench = Bench::new(None).await;
    bench.mesh.apply(reset(&[1], 5)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let looks = bench.device.looks();
    let update = Update::Delta { upserts: vec![peer(2)], removed: vec![node(1)] };
    let change = Change { update, settings: None, secrets: None, key: None, revision: Revision(6) };
    bench.mesh.apply(change).await.unwrap();
    assert_eq!(bench.device.looks(), looks);
    assert_eq!(bench.device.observed().peers.into_keys().collect::<Vec<_>>(), [key(2)]);
    assert_eq!(bench.verified(), Revision(5), "only a look may say that it holds");
    sleep(Duration::from_secs(1)).await;
    assert_eq!((bench.verified(), repairs(&bench)), (Revision(6), vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_mtu_follows_the_path() {
    let bench = Bench::new(None).await;
    bench.mesh.apply(reset(&[1], 5)).await.unwrap();
    assert_eq!(bench.device.observed().mtu, 1440, "an underlay of 1500 without IPv6");
    bench.host.send_replace(Arc::new(Host::with_addresses(&["192.0.2.7/24", "2001:db8::7/64"])));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.device.observed().mtu, 1420);
    assert_eq!(repairs(&bench), [], "nobody meddled");
}

/// The path's, then the network's where it has one; and this machine's administrator has the last word.
#[tokio::test(start_paused = true)]
async fn the_network_s_mtu_counts_more_than_the_path_and_less_than_the_flag() {
    let told = |mtu| Settings { mtu, ..settings(None) };
    let change = |mtu, revision| Change { settings: Some(told(mtu)), ..reset(&[1], revision) };
    let now = |bench: &Bench| {
        let status = bench.mesh.status().borrow().clone();
        (bench.device.observed().mtu, status.mtu, status.mtu_from.as_str())
    };
    let bench = Bench::new(None).await;
    bench.mesh.apply(change(None, 5)).await.unwrap();
    for (mtu, expected) in [
        (Some(1380), (1380, 1380, "network")),
        (Some(1300), (1300, 1300, "network")),
        (None, (1440, 1440, "path")),
    ] {
        sleep(Duration::from_secs(1)).await;
        bench.device.take_log();
        bench.mesh.apply(change(mtu, 6)).await.unwrap();
        assert_eq!(bench.device.take_log(), [Op::SetMtu(expected.0)], "and nothing else");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(now(&bench), expected);
    }
    bench.mesh.apply(change(Some(1380), 7)).await.unwrap();
    bench.host.send_replace(Arc::new(Host::with_addresses(&["192.0.2.7/24", "2001:db8::7/64"])));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(now(&bench), (1380, 1380, "network"), "whatever the path");
    assert_eq!(repairs(&bench), [], "nobody meddled");
    bench.device.tamper(|observed| observed.mtu = 9000);
    bench.noticed.notify_one();
    sleep(Duration::from_millis(500)).await;
    assert_eq!(
        (now(&bench).0, repairs(&bench)),
        (1380, vec![("mtu", 1)]),
        "drift is put right to it"
    );

    // What was told before is known at a start without a control plane.
    let started = Bench::with(&told(Some(1380)), wishes()).await;
    started.mesh.apply(reset(&[1], 5)).await.unwrap();
    assert_eq!(started.device.observed().mtu, 1380);
    let here = Bench::with(&told(Some(1380)), Wishes { mtu: Some(1300), ..wishes() }).await;
    here.mesh.apply(change(Some(1350), 5)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(now(&here), (1300, 1300, "flag"));
}
