//! An hour without a control plane on the agent's clock, with a restart in the middle: what the agent
//! does meanwhile, and how it goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    task::{JoinHandle, spawn_blocking},
    time::{self, Instant},
};
use wattle_model::Revision;

use super::bench::{Bench, EPOCH};
use crate::{
    kernel::Host,
    scripted::{Replica, Stream, digest_of, has, key, peer},
};

const HALF_AN_HOUR: u32 = 1800;
/// A wait is 5 s on average once it has grown, so these are five deviations of what chance gives.
const ATTEMPTS: std::ops::RangeInclusive<u64> = 270..=410;
/// Every 25 s, and every 2 s in the first half minute of an agent that doesn't know its peers yet.
const LOOKS: std::ops::RangeInclusive<usize> = 65..=95;

#[tokio::test]
async fn an_hour_without_a_control_plane_changes_nothing() {
    let mut bench = Bench::new().await;
    // In an hour it is looked at.
    bench.host = Host::read("test0").await.unwrap();
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1, 2]).await;
    spoken_with(&bench);
    stream.ack_where(5, |ack| ack.verified_revision == 5).await;
    let (clock, device) = (Clock::stop(), bench.device.observed());
    bench.device.take_log();

    // Somebody hangs up at its address, as a load balancer does with nobody behind it.
    drop(stream);
    bench.replica.stop().await;
    let nobody = Nobody::listen(&bench.replica.address).await;
    let looks = bench.device.looks();
    clock.forward(HALF_AN_HOUR).await;
    let (attempts, looked) = (nobody.leave().await, bench.device.looks() - looks);
    assert!(ATTEMPTS.contains(&attempts), "{attempts} attempts");
    assert!(LOOKS.contains(&looked), "{looked} looks");
    let status = agent.status().await;
    assert_eq!((status.session.state.as_str(), status.peers.len()), ("connecting", 2));
    agent.stop().await;

    // Now nobody is there at all.
    let looks = bench.device.looks();
    let agent = bench.start().await;
    clock.forward(HALF_AN_HOUR).await;
    let looked = bench.device.looks() - looks;
    assert!(LOOKS.contains(&looked), "{looked} looks");
    assert_eq!(bench.device.take_log(), [], "all of it stayed");
    assert_eq!(bench.device.observed(), device);

    bench.replica.come_back().await;
    let (mut stream, waited) = clock.until_a_stream(&mut bench.replica).await;
    assert!(waited <= Duration::from_secs(30), "{waited:?}");
    assert!(ATTEMPTS.contains(&stream.hello.stream), "{} attempts", stream.hello.stream);
    let held = digest_of(&[peer(1), peer(2)]);
    assert_eq!(has(&stream.hello), (Some(EPOCH), Revision(5), held), "it goes on from there");
    clock.go();
    stream.welcome(EPOCH, false).await;
    stream.commit(6, false, (vec![peer(3)], &[]), &[peer(1), peer(2), peer(3)]).await;
    stream.ack_where(6, |ack| ack.verified_revision == 6).await;
    assert_eq!(bench.peers(), [key(1), key(2), key(3)]);
    let session = agent.status().await.session;
    assert_eq!((session.full_sets, session.resyncs), (0, 0));
    agent.stop().await;
}

/// Each peer has a session, as in a mesh that is in use.
fn spoken_with(bench: &Bench) {
    bench.device.tamper(|observed| {
        for peer in observed.peers.values_mut() {
            (peer.tx_bytes, peer.rx_bytes) = (4096, 4096);
            peer.last_handshake = Some(Duration::from_secs(9));
        }
    });
}

/// The runtime's clock. It stands still while I/O takes its time, and moves as it is told.
struct Clock {
    _hold: mpsc::Sender<()>,
}

impl Clock {
    fn stop() -> Self {
        let (hold, held) = mpsc::channel();
        // A paused clock is moved by the runtime itself whenever there is nothing else to do, but not
        // while a blocking call runs.
        drop(spawn_blocking(move || held.recv()));
        time::pause();
        Self { _hold: hold }
    }

    async fn forward(&self, seconds: u32) {
        for _ in 0..seconds {
            time::advance(Duration::from_secs(1)).await;
            settle(Duration::from_millis(1)).await;
        }
    }

    /// The next stream of the agent, and how long it took.
    async fn until_a_stream(&self, replica: &mut Replica) -> (Stream, Duration) {
        let began = Instant::now();
        loop {
            if let Some(stream) = replica.stream_now() {
                return (stream, began.elapsed());
            }
            assert!(began.elapsed() < Duration::from_secs(120), "the agent stays away");
            time::advance(Duration::from_secs(1)).await;
            // A handshake is not to take seconds of the clock that stands still.
            settle(Duration::from_millis(100)).await;
        }
    }

    fn go(self) {
        time::resume();
    }
}

/// Lets sockets and disks do what they are at.
async fn settle(real: Duration) {
    spawn_blocking(move || thread::sleep(real)).await.unwrap();
}

/// Accepts connections, hangs up, and counts.
struct Nobody {
    count: Arc<AtomicU64>,
    listening: JoinHandle<()>,
}

impl Nobody {
    async fn listen(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let count = Arc::<AtomicU64>::default();
        let counted = count.clone();
        let listening = tokio::spawn(async move {
            loop {
                drop(listener.accept().await.unwrap());
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { count, listening }
    }

    /// How many came.
    async fn leave(self) -> u64 {
        self.listening.abort();
        let _ = self.listening.await;
        self.count.load(Ordering::Relaxed)
    }
}
