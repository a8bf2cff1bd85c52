//! One replica with its store, its listener and its nodes' records.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost::Message as _;
use tempfile::TempDir;
use tonic::body::Body;
use tower::{Layer as _, ServiceExt as _, util::BoxCloneSyncService};
use wattle_certs::{Identity, KeyPair, ReplicaCertificate, SpiffeId, server_config};
use wattle_model::{
    Endpoint, Generation, Labels, Mode, Mtu, NetworkName, NodeId, PeerSpec, Policy, PublicKey,
    ReplicaId, Revision, address_to_bytes,
};
use wattle_proto::{
    entry,
    record::{NetworkBody, NodeBody, PolicyBody, decode_history, encode_changed, encode_first},
    store as record,
};
use wattle_runtime::shutdown::Shutdown;

use super::veil::{Sight, Veil};
use crate::{
    access::{AccessLayer, PeerInfo},
    authority::{Authority, CaFiles},
    cluster::{self, Cluster},
    listener::{Connections, TlsListener},
    nodes::Nodes,
    replica::Replica,
    replicas::Roster,
    store::{
        Key, Operation, Outcome, Store, Transaction,
        embedded::Embedded,
        feed::{Feed, Live, Pulse},
        keys,
    },
    stream::{self, Pace, Sessions, SyncService},
};

/// Faster than in the field, so that tests can wait for it.
const PACE: Pace = Pace {
    heartbeat: Duration::from_millis(700),
    stall: Duration::from_secs(2),
    grace: Duration::from_secs(2),
};
/// As above.
const PULSE: Pulse = Pulse {
    every: Duration::from_millis(100),
    stale_after: Duration::from_secs(1),
    audit_every: Duration::from_millis(300),
};
/// How long anything may take before a test fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) struct World {
    pub(super) replica: Arc<Replica>,
    pub(super) live: Live,
    pub(super) sessions: Sessions,
    pub(super) service: SyncService,
    pub(super) address: SocketAddr,
    pub(super) shutdown: Shutdown,
    pub(super) veil: Veil,
    enrolled: AtomicU8,
    folder: TempDir,
}

/// A node and the key of its certificate.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) key: Arc<KeyPair>,
    pub(super) number: u8,
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> =
            Arc::new(Embedded::open(&folder.path().join("store.redb")).unwrap());
        let now = SystemTime::now();
        let cluster =
            cluster::open(store.as_ref(), &CaFiles::of(folder.path()), now).await.unwrap();
        let world = Self::start(Veil::over(store), cluster, folder).await;
        world.live.ready().await;
        world
    }

    /// A replica that can't read its store yet.
    pub(super) async fn unready() -> Self {
        let Self { replica, folder, veil, .. } = Self::new().await;
        veil.set(Sight::Gone);
        let cluster =
            cluster::open(replica.store.as_ref(), &CaFiles::of(folder.path()), SystemTime::now())
                .await;
        Self::start(veil, cluster.unwrap(), folder).await
    }

    async fn start(veil: Veil, cluster: Cluster, folder: TempDir) -> Self {
        let store: Arc<dyn Store> = Arc::new(veil.clone());
        let shutdown = Shutdown::new();
        let (feed, live) = Feed::with_pulse(Arc::clone(&store), PULSE);
        // Not under `shutdown`: the feed outlives the drain.
        tokio::spawn(feed.run(tokio_util::sync::CancellationToken::new()));
        let replica = Arc::new(Replica {
            id: ReplicaId::new([9; 16]),
            store: Arc::clone(&store),
            live: live.clone(),
            authority: Authority::new(cluster.trust).unwrap(),
            trust_domain: cluster.trust_domain,
            advertised: vec!["127.0.0.1:7443".to_owned()],
            roster: Roster::alone(&["127.0.0.1:7443".to_owned()]),
            certificate_lifetime: YEAR,
            started: SystemTime::now(),
        });
        let nodes = Nodes::new(store, &shutdown);
        let (service, sessions) = stream::start(Arc::clone(&replica), nodes, &shutdown, PACE);
        let address = listen(&replica, service.clone(), &Connections::new(shutdown.token())).await;
        let enrolled = AtomicU8::new(0);
        Self { replica, live, sessions, service, address, shutdown, veil, enrolled, folder }
    }

    /// Another replica on the same store.
    pub(super) async fn restarted(self) -> Self {
        let Self { replica, folder, enrolled, veil, .. } = self;
        let cluster =
            cluster::open(replica.store.as_ref(), &CaFiles::of(folder.path()), SystemTime::now())
                .await;
        let mut world = Self::start(veil, cluster.unwrap(), folder).await;
        world.live.ready().await;
        world.enrolled = enrolled;
        world
    }

    pub(super) async fn commit(&self, transaction: Transaction) -> Revision {
        let revision = self.commit_unseen(transaction).await;
        self.live.head().wait_for(|head| *head >= revision).await.unwrap();
        revision
    }

    /// Commits, and doesn't wait for the view.
    async fn commit_unseen(&self, transaction: Transaction) -> Revision {
        match self.replica.store.commit(transaction).await.unwrap() {
            Outcome::Committed(revision) => revision,
            Outcome::Conflict => panic!("conflict"),
        }
    }

    /// As [`World::change`], while the view can't see it.
    pub(super) async fn change_unseen(&self, node: &Node, port: u16) -> Revision {
        let put = Transaction::default().put(keys::peer(&network(), node.id), entry_of(node, port));
        self.commit_unseen(put).await
    }

    pub(super) async fn enroll(&self) -> Node {
        self.enroll_labelled(&[]).await
    }

    pub(super) async fn enroll_labelled(&self, labels: &[&str]) -> Node {
        let number = self.enrolled.fetch_add(1, Ordering::Relaxed) + 1;
        let node =
            Node { id: NodeId::new([number; 16]), key: Arc::new(KeyPair::generate()), number };
        let labels = Labels::from_texts(labels).unwrap();
        let body = NodeBody { created_at_millis: 1, labels, fixed_name: None };
        let transaction = Transaction::default()
            .create(keys::node(&network(), node.id), encode_first(&body))
            .create(keys::peer(&network(), node.id), entry_of(&node, 1))
            .create(keys::identity(node.id), identity(&node, 0));
        self.commit(transaction).await;
        node
    }

    /// A node that the store knows and the view doesn't.
    pub(super) async fn enroll_unseen(&self) -> Node {
        let node =
            Node { id: NodeId::new([0xaa; 16]), key: Arc::new(KeyPair::generate()), number: 200 };
        let create = Transaction::default().create(keys::identity(node.id), identity(&node, 0));
        self.commit_unseen(create).await;
        node
    }

    /// Puts a new entry.
    pub(super) async fn change(&self, node: &Node, port: u16) -> Revision {
        let put = Transaction::default().put(keys::peer(&network(), node.id), entry_of(node, port));
        self.commit(put).await
    }

    /// What a replica does that finds the store set back.
    pub(super) async fn set_epoch(&self, epoch: [u8; 16]) -> Revision {
        self.commit(Transaction::default().put(keys::epoch(), epoch.to_vec().into())).await
    }

    /// What another replica says every other second.
    pub(super) async fn beat_of_another(&self) -> Revision {
        self.commit(Transaction::default().put(keys::beat("another"), Bytes::new())).await
    }

    pub(super) async fn delete(&self, node: &Node) -> Revision {
        let gone = self.changed::<NodeBody>(keys::node(&network(), node.id), None).await;
        let transaction = gone
            .delete(keys::peer(&network(), node.id))
            .put(keys::identity(node.id), identity(node, 7));
        self.commit(transaction).await
    }

    /// Widens the network's IPv4 range.
    pub(super) async fn change_range(&self, range: &str) -> Revision {
        let put = self.network_with(|body| body.ipv4_range = range.to_owned()).await;
        self.commit(put).await
    }

    /// Gives the network's links an MTU.
    pub(super) async fn set_mtu(&self, bytes: u32) -> Revision {
        let put = self.network_with(|body| body.mtu = Mtu::wished(bytes).unwrap()).await;
        self.commit(put).await
    }

    /// Closes the network, and lets those that match each of these selectors see one another.
    pub(super) async fn close(&self, selectors: &[&str]) -> Revision {
        let mut transaction = self.network_with(|body| body.mode = Mode::Closed).await;
        for (n, selector) in (0..).zip(selectors) {
            transaction = transaction.and(self.policy_with(n, Some((selector, selector))).await);
        }
        self.commit(transaction).await
    }

    pub(super) async fn set_mode(&self, mode: Mode) -> Revision {
        let put = self.network_with(|body| body.mode = mode).await;
        self.commit(put).await
    }

    /// Writes a policy of this number, or deletes it.
    pub(super) async fn set_policy(&self, number: u8, sides: Option<(&str, &str)>) -> Revision {
        let put = self.policy_with(number, sides).await;
        self.commit(put).await
    }

    /// Gives a node other labels.
    pub(super) async fn relabel(&self, node: &Node, labels: &[&str]) -> Revision {
        let labels = Labels::from_texts(labels).unwrap();
        let body = NodeBody { created_at_millis: 1, labels, fixed_name: None };
        let put = self.changed(keys::node(&network(), node.id), Some(body)).await;
        self.commit(put).await
    }

    async fn network_with(&self, change: impl FnOnce(&mut NetworkBody)) -> Transaction {
        let key = keys::network(&network());
        let stored = self.replica.store.get(&key).await.unwrap().unwrap();
        let history = decode_history::<NetworkBody>(&stored.value, stored.modified).unwrap();
        let mut body = history.present().body.clone().unwrap();
        change(&mut body);
        Transaction::default().replace(&stored, encode_changed(history, Some(body)))
    }

    async fn policy_with(&self, number: u8, sides: Option<(&str, &str)>) -> Transaction {
        let body = sides.map(|(from, to)| PolicyBody {
            created_at_millis: 1,
            policy: Policy { from: from.parse().unwrap(), to: to.parse().unwrap() },
        });
        let key = keys::policy(&network(), &format!("policy-{number}").parse().unwrap());
        self.changed(key, body).await
    }

    /// A record's next body; its first where there is none.
    async fn changed<T: wattle_proto::record::Body + Clone>(
        &self,
        key: Key,
        body: Option<T>,
    ) -> Transaction {
        match (self.replica.store.get(&key).await.unwrap(), body) {
            (Some(stored), body) => {
                let history = decode_history::<T>(&stored.value, stored.modified).unwrap();
                Transaction::default().replace(&stored, encode_changed(history, body))
            }
            (None, Some(body)) => Transaction::default().create(key, encode_first(&body)),
            (None, None) => Transaction::default().put(keys::request("local", &[2]), Bytes::new()),
        }
    }

    /// A transaction that concerns no agent.
    pub(super) async fn unrelated(&self) -> Revision {
        let key = keys::request("local", &[1]);
        self.commit(Transaction::default().put(key, Bytes::from_static(b"x"))).await
    }

    /// Many entries of nodes without agents, big enough for several pages.
    pub(super) async fn crowd(&self, count: u16) -> Revision {
        let mut last = Revision::ZERO;
        let nodes: Vec<_> = (0..count).collect();
        for group in nodes.chunks(60) {
            let operations = group.iter().flat_map(|n| crowd_node(*n));
            let transaction =
                Transaction { compares: Vec::new(), operations: operations.collect() };
            last = self.commit(transaction).await;
        }
        last
    }

    pub(super) async fn identity(&self, node: &Node) -> record::Identity {
        let stored = self.replica.store.get(&keys::identity(node.id)).await.unwrap().unwrap();
        record::Identity::decode(stored.value).unwrap()
    }
}

fn crowd_node(n: u16) -> [Operation; 2] {
    let mut id = [0xee; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    let id = NodeId::new(id);
    let body = NodeBody { created_at_millis: 1, labels: Labels::default(), fixed_name: None };
    // The stream doesn't look inside.
    let entry = record::Claim { node_id: vec![7; 200].into(), released_at_millis: n.into() };
    [
        Operation::Put(keys::node(&network(), id), encode_first(&body)),
        Operation::Put(keys::peer(&network(), id), entry_named(id, entry.encode_to_vec())),
    ]
}

/// An entry of which only the id can be read.
fn entry_named(id: NodeId, padding: Vec<u8>) -> Bytes {
    let mut bytes = wattle_proto::sync::Peer {
        node_id: Bytes::copy_from_slice(id.as_bytes()),
        name: hex::encode(padding),
        ..Default::default()
    };
    bytes.public_key = Bytes::from_static(&[1; 32]);
    bytes.encode_to_vec().into()
}

pub(super) fn network() -> NetworkName {
    "default".parse().unwrap()
}

pub(super) fn entry_of(node: &Node, port: u16) -> Bytes {
    entry::encode(&PeerSpec {
        node: node.id,
        name: format!("node-{}", node.number).parse().unwrap(),
        public_key: PublicKey::new([node.number; 32]).unwrap(),
        next_public_key: None,
        ipv4: Some(ipv4(node)),
        ipv6: None,
        endpoints: vec![Endpoint::new(SocketAddr::from(([192, 0, 2, node.number], port))).unwrap()],
        secret_generation: Generation::NONE,
    })
}

fn ipv4(node: &Node) -> Ipv4Addr {
    Ipv4Addr::new(10, 90, 0, node.number)
}

fn identity(node: &Node, deleted_at_millis: u64) -> Bytes {
    record::Identity {
        network: "default".to_owned(),
        name: format!("node-{}", node.number),
        fingerprint: Bytes::copy_from_slice(node.key.fingerprint().as_bytes()),
        wireguard_public_key: vec![node.number; 32].into(),
        ipv4: address_to_bytes(ipv4(node).into()).into(),
        token_id: Bytes::from_static(&[1; 8]),
        enrolled_at_millis: 1,
        deleted_at_millis,
        ..Default::default()
    }
    .encode_to_vec()
    .into()
}

async fn listen(
    replica: &Arc<Replica>,
    service: SyncService,
    connections: &Connections,
) -> SocketAddr {
    let key = KeyPair::generate();
    let id = SpiffeId {
        trust_domain: replica.trust_domain.clone(),
        identity: Identity::Replica(replica.id),
    };
    let leaf = replica.ca().issue(&id, &key.csr_key(), YEAR, SystemTime::now()).unwrap();
    let mut chain = vec![leaf];
    chain.extend(replica.roots().iter().cloned());
    let certificate = ReplicaCertificate::new(chain, &key).unwrap();
    let tls = server_config(certificate, &replica.roots()).unwrap();
    let listener = TlsListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), tls).await.unwrap();
    let address = listener.address().unwrap();
    let access = AccessLayer::new(
        Arc::clone(&replica.store),
        replica.live.clone(),
        replica.trust_domain.clone(),
    );
    let routes = access.layer(tonic::service::Routes::new(service).prepare());
    let handler = routes.map_request(|mut request: http::Request<Body>| {
        // Agents on loopback have no address that others could use: pretend one.
        let peer = request.extensions_mut().get_mut::<PeerInfo>().unwrap();
        peer.address.set_ip([198, 51, 100, 1].into());
        request
    });
    listener.serve(connections, BoxCloneSyncService::new(handler));
    address
}
