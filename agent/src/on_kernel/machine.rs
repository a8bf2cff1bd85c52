//! A machine: its namespace, its agent's process, and the control plane that it alone hears.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use bytes::Bytes;
use ipnet::IpNet;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use wattle_model::{Endpoint, Epoch, Generation, NodeId, PeerSpec, PublicKey};
use wattle_proto::entry;

use super::netns::Netns;
use crate::{
    scripted::{Authority, Replica, Stream},
    settings::Addresses,
    state::StateDir,
    wireguard_key,
};

const EPOCH: Epoch = Epoch::new([1; 16]);
/// Entries in a frame.
const FRAME: usize = 400;

pub(super) struct Machine {
    pub(super) netns: Netns,
    pub(super) key: PublicKey,
    number: u8,
    replica: Replica,
    stream: Option<Stream>,
    folder: TempDir,
    process: Option<Child>,
    set: BTreeMap<NodeId, Bytes>,
    revision: u64,
}

impl Machine {
    /// Number `number` of the wire and of the overlay, joined already.
    pub(super) async fn new(netns: Netns, number: u8) -> Self {
        netns.enter();
        let authority = Authority::new();
        let replica = Replica::start(&authority).await;
        let mut identity = authority.identity(vec![replica.address.clone()]);
        identity.settings.addresses = Addresses {
            ipv4: Some([10, 90, 0, number].into()),
            ipv4_range: Some("10.90.0.0/16".parse().unwrap()),
            ipv6: Some(format!("fd5a:90::{number:x}").parse().unwrap()),
            ipv6_range: Some("fd5a:90::/64".parse().unwrap()),
        };
        let key = wireguard_key::public(&identity.wireguard_key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        StateDir::open(&folder.path().join("state")).unwrap().save_identity(&identity).unwrap();
        let (stream, process, set, revision) = (None, None, BTreeMap::new(), 0);
        Self { netns, key, number, replica, stream, folder, process, set, revision }
    }

    /// Starts its agent and serves the stream that it opens.
    pub(super) async fn start(&mut self, program: &Path) {
        let log = self.folder.path().join("log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = self.netns.command(&program.display().to_string());
        command.args(["run", "--dataplane", "kernel", "--state-dir"]);
        command.arg(self.folder.path().join("state"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        let stream = self.replica.stream().await;
        assert_eq!(stream.hello.revision, self.revision, "{}", self.log());
        stream.welcome(EPOCH, self.revision == 0).await;
        self.stream = Some(stream);
        if self.revision == 0 {
            self.change(vec![], &[]).await;
        }
    }

    /// Tells it of a change; it isn't waited for.
    pub(super) async fn change(&mut self, peers: Vec<PeerSpec>, removed: &[NodeId]) {
        for node in removed {
            self.set.remove(node);
        }
        let mut entries: Vec<Bytes> = peers.iter().map(entry::encode).collect();
        for (peer, entry) in peers.iter().zip(&entries) {
            self.set.insert(peer.node, entry.clone());
        }
        let all: Vec<Bytes> = self.set.values().cloned().collect();
        let first = self.revision == 0;
        self.revision += 1;
        let stream = self.stream.as_ref().unwrap();
        while entries.len() > FRAME {
            stream.frame(entries.drain(..FRAME).collect(), &[]).await;
        }
        stream.commit(self.revision, first, (entries, removed), &all).await;
    }

    /// Waits until it has applied all that it was told.
    pub(super) async fn acked(&mut self) {
        self.stream.as_mut().unwrap().until_ack(self.revision).await;
    }

    /// Ends its agent.
    pub(super) fn end(&mut self, signal: Signal) {
        let mut process = self.process.take().unwrap();
        kill(Pid::from_raw(process.id().try_into().unwrap()), signal).unwrap();
        process.wait().unwrap();
        self.stream = None;
    }

    pub(super) fn process_id(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What others know of it.
    pub(super) fn spec(&self) -> PeerSpec {
        let endpoint = format!("192.168.77.{}:51820", self.number);
        let number = self.number.into();
        PeerSpec { public_key: self.key, ..spec(number, [10, 90, 0, self.number], &endpoint) }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            println!("agent {} wrote:\n{}", self.number, self.log());
        }
    }
}

/// Peer `number` of as many as a test wants.
pub(super) fn numbered(number: u32) -> PeerSpec {
    // Away from the machines' own.
    let number = 1000 + number;
    let [_, high, middle, low] = number.to_be_bytes();
    spec(number, [10, 90 + high, middle, low], "192.168.77.250:51820")
}

fn spec(number: u32, address: [u8; 4], endpoint: &str) -> PeerSpec {
    let (mut node, mut key) = ([9; 16], [7; 32]);
    node[..4].copy_from_slice(&number.to_be_bytes());
    key[..4].copy_from_slice(&number.to_be_bytes());
    PeerSpec {
        node: NodeId::new(node),
        name: format!("node-{number}").parse().unwrap(),
        public_key: PublicKey::new(key).unwrap(),
        next_public_key: None,
        ipv4: Some(address.into()),
        ipv6: Some(format!("fd5a:90::{:x}:{:x}", number >> 16, number & 0xffff).parse().unwrap()),
        endpoints: vec![Endpoint::new(endpoint.parse().unwrap()).unwrap()],
        secret_generation: Generation::NONE,
    }
}

/// A peer's prefixes, as `wg` takes them.
pub(super) fn prefixes(peer: &PeerSpec) -> String {
    let v4 = IpNet::from(std::net::IpAddr::V4(peer.ipv4.unwrap()));
    let v6 = IpNet::from(std::net::IpAddr::V6(peer.ipv6.unwrap()));
    format!("{v4},{v6}")
}

/// The agent's program, built with these tests.
pub(super) fn program() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let path = here.ancestors().nth(2).unwrap().join("wattle-agent");
    assert!(path.exists(), "{} is missing: build it first", path.display());
    path
}

/// Waits until `to` answers a ping.
pub(super) fn wait_ping(netns: &Netns, to: &str) {
    for _ in 0..60 {
        let ping = netns.command(&format!("ping -n -q -c 1 -W 2 {to}")).output().unwrap();
        if ping.status.success() {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("{to} doesn't answer");
}
