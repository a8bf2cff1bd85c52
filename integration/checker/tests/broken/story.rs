//! A recording in which everything is right: nodes join and one goes, labels change, an agent is
//! cut and goes on.

use bytes::Bytes;
use prost::Message as _;
use wattle_checker::{
    Agent, Call, Heard, Operation, Outcome, Recording, StoreLog, Transaction, What, World,
};
use wattle_model::{
    Digest, Generation, History, Mode, NodeId, PeerSpec, PublicKey, Revision, TokenId,
};
use wattle_proto::{
    entry,
    record::{NetworkBody, NodeBody, decode_history, encode_changed, encode_first},
    store as record,
};

const NETWORK: &str = "default";
const TOKEN: [u8; 8] = [5; 8];

pub(crate) struct Story {
    log: StoreLog,
    world: World,
    clock: u64,
}

pub(crate) const fn node(number: u8) -> NodeId {
    NodeId::new([number; 16])
}

impl Story {
    /// Nodes 1 to 4; 4 goes again.
    pub(crate) fn told() -> Recording {
        let mut story = Self { log: StoreLog::default(), world: World::default(), clock: 0 };
        story.begin();
        let mut agent = Agent { node: node(1), network: NETWORK.into(), heard: Vec::new() };
        let epoch = Bytes::from_static(&[1; 16]);
        story.welcome(&mut agent, &epoch, true, 0);
        story.join(1);
        story.join(2);
        story.batch(&mut agent, 0, true);
        story.label(1, "one");
        story.label(1, "two");
        story.call(read(Some("two")));
        story.join(3);
        story.call((What::Enrol { token: TokenId::new(TOKEN) }, Outcome::Enrolled(node(3))));
        let before = agent_at(&agent);
        story.batch(&mut agent, before, false);
        story.welcome(&mut agent, &epoch, false, story.world.revision);
        let before = agent_at(&agent);
        story.move_to(1, 7);
        story.batch(&mut agent, before, false);
        story.join(4);
        let before = agent_at(&agent);
        story.batch(&mut agent, before, false);
        story.delete(4);
        let before = agent_at(&agent);
        story.batch(&mut agent, before, false);
        Recording { stores: [(epoch, story.log)].into(), agents: vec![agent] }
    }

    pub(crate) fn entry(of: NodeId, port: u16) -> Bytes {
        entry_with(of, of.as_bytes()[0], port)
    }

    /// Node `to` gets the address of node `from`.
    pub(crate) fn give(recording: &mut Recording, to: u8, from: u8) {
        let log = recording.stores.values_mut().next().unwrap();
        let revision = log.transactions.last().unwrap().revision + 1;
        let key = format!("v1/peer/{NETWORK}/{}", node(to));
        let value = Some(entry_with(node(to), from, 1));
        let operations = vec![Operation { key, value, modified: revision }];
        log.transactions.push(Transaction { revision, operations });
    }

    /// The token lets in one more than it counts.
    pub(crate) fn use_token_again(recording: &mut Recording) {
        let log = recording.stores.values_mut().next().unwrap();
        for transaction in &mut log.transactions {
            transaction.operations.retain(|operation| !operation.key.starts_with("v1/token/"));
        }
        let token = record::JoinToken { max_uses: 3, uses: 3, ..record::JoinToken::default() };
        let key = format!("v1/token/{}", hex::encode(TOKEN));
        log.first.operations.push(Operation {
            key,
            value: Some(token.encode_to_vec().into()),
            modified: 1,
        });
    }

    fn begin(&mut self) {
        let network = NetworkBody {
            created_at_millis: 1,
            ipv4_range: "10.90.0.0/16".into(),
            ipv6_range: String::new(),
            mode: Mode::Mesh,
            key_rotation_seconds: 0,
            mtu: None,
            preshared_keys: false,
        };
        let key = format!("v1/network/{NETWORK}");
        let operation = Operation { key, value: Some(encode_first(&network)), modified: 1 };
        self.log.first = Transaction { revision: 1, operations: vec![operation, token(1, 0)] };
        self.world.apply(&self.log.first);
    }

    fn commit(&mut self, mut operations: Vec<Operation>) -> u64 {
        let revision = self.world.revision + 1;
        operations.iter_mut().for_each(|operation| operation.modified = revision);
        let transaction = Transaction { revision, operations };
        self.world.apply(&transaction);
        self.log.transactions.push(transaction);
        revision
    }

    fn join(&mut self, number: u8) {
        let id = node(number);
        let body = NodeBody { created_at_millis: 1, labels: Default::default(), fixed_name: None };
        let identity = record::Identity {
            network: NETWORK.into(),
            token_id: Bytes::copy_from_slice(&TOKEN),
            enrolled_at_millis: 1,
            ..record::Identity::default()
        };
        self.commit(vec![
            put(format!("v1/node/{NETWORK}/{id}"), encode_first(&body)),
            put(format!("v1/peer/{NETWORK}/{id}"), Self::entry(id, 1)),
            put(format!("v1/identity/{id}"), identity.encode_to_vec().into()),
            put(format!("v1/address/{NETWORK}/{number:02x}"), claim(id, 0)),
            token(0, number),
        ]);
    }

    fn delete(&mut self, number: u8) {
        let id = node(number);
        let identity = record::Identity {
            network: NETWORK.into(),
            token_id: Bytes::copy_from_slice(&TOKEN),
            enrolled_at_millis: 1,
            deleted_at_millis: 2,
            ..record::Identity::default()
        };
        let revision = self.world.revision;
        let gone = self.changed(id, |_| None);
        let request = request(self.clock);
        let at = self.commit(vec![
            put(format!("v1/node/{NETWORK}/{id}"), gone),
            Operation { key: format!("v1/peer/{NETWORK}/{id}"), value: None, modified: revision },
            put(format!("v1/identity/{id}"), identity.encode_to_vec().into()),
            put(format!("v1/address/{NETWORK}/{number:02x}"), claim(id, 2)),
            put(format!("v1/request/local/{}", hex::encode(&request)), Bytes::from_static(b"x")),
        ]);
        self.call((What::Delete(id), Outcome::Done(at)));
    }

    fn label(&mut self, number: u8, value: &str) {
        let id = node(number);
        let labelled = self.changed(id, |mut body| {
            body.labels = wattle_model::Labels::from_stored([("probe", value)]).unwrap();
            Some(body)
        });
        let request = request(self.clock);
        let at = self.commit(vec![
            put(format!("v1/node/{NETWORK}/{id}"), labelled),
            put(format!("v1/request/local/{}", hex::encode(&request)), Bytes::from_static(b"x")),
        ]);
        let value = Some(value.to_owned());
        self.call((What::Label { node: id, key: "probe".into(), value }, Outcome::Done(at)));
    }

    /// A node's record with another body.
    fn changed(&self, id: NodeId, how: impl FnOnce(NodeBody) -> Option<NodeBody>) -> Bytes {
        let key = format!("v1/node/{NETWORK}/{id}");
        let all = std::iter::once(&self.log.first).chain(&self.log.transactions);
        let last = all.flat_map(|t| &t.operations).filter(|o| o.key == key).last().unwrap();
        let value = last.value.as_ref().unwrap();
        let history: History<NodeBody> = decode_history(value, Revision(last.modified)).unwrap();
        let body = history.present().body.clone().unwrap();
        encode_changed(history, how(body))
    }

    fn move_to(&mut self, number: u8, port: u16) {
        let id = node(number);
        self.commit(vec![put(format!("v1/peer/{NETWORK}/{id}"), Self::entry(id, port))]);
    }

    fn call(&mut self, (what, outcome): (What, Outcome)) {
        let named = !matches!(what, What::Enrol { .. } | What::ReadLabel { .. });
        let request = if named { request(self.clock) } else { Bytes::new() };
        let (begun, ended) = (self.clock + 1, self.clock + 2);
        self.clock += 10;
        self.log.calls.push(Call { request, begun, ended, what, outcome });
    }

    fn welcome(&self, agent: &mut Agent, epoch: &Bytes, full_set: bool, from: u64) {
        agent.heard.push(Heard::Welcome { epoch: epoch.clone(), full_set, from });
    }

    /// Everything after `from`.
    fn batch(&self, agent: &mut Agent, from: u64, full_set: bool) {
        let mut world = World::default();
        let earlier = std::iter::once(&self.log.first).chain(&self.log.transactions);
        earlier.filter(|t| t.revision <= from).for_each(|t| world.apply(t));
        let was = if full_set { Default::default() } else { world.sight(NETWORK, agent.node) };
        let now = self.world.sight(NETWORK, agent.node);
        let new = now.iter().filter(|(id, entry)| was.get(*id) != Some(*entry));
        let mut changes: Vec<_> = new.map(|(id, entry)| (*id, Some(entry.clone()))).collect();
        changes.extend(was.keys().filter(|id| !now.contains_key(*id)).map(|id| (*id, None)));
        let mut digest = Digest::EMPTY;
        now.iter().for_each(|(id, entry)| digest += Digest::of(*id, entry));
        let digest = Bytes::copy_from_slice(&digest.to_bytes());
        agent.heard.push(Heard::Batch { revision: self.world.revision, full_set, changes, digest });
    }
}

fn agent_at(agent: &Agent) -> u64 {
    let revisions = agent.heard.iter().filter_map(|heard| match heard {
        Heard::Batch { revision, .. } => Some(*revision),
        _ => None,
    });
    revisions.last().unwrap()
}

fn read(value: Option<&str>) -> (What, Outcome) {
    let what = What::ReadLabel { node: node(1), key: "probe".into() };
    (what, Outcome::Read(value.map(str::to_owned)))
}

fn request(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn put(key: String, value: Bytes) -> Operation {
    Operation { key, value: Some(value), modified: 0 }
}

fn claim(of: NodeId, released_at_millis: u64) -> Bytes {
    let node_id = Bytes::copy_from_slice(of.as_bytes());
    record::Claim { node_id, released_at_millis }.encode_to_vec().into()
}

fn token(modified: u64, uses: u8) -> Operation {
    let token =
        record::JoinToken { max_uses: 10, uses: uses.into(), ..record::JoinToken::default() };
    let value = Some(token.encode_to_vec().into());
    Operation { key: format!("v1/token/{}", hex::encode(TOKEN)), value, modified }
}

fn entry_with(of: NodeId, address: u8, port: u16) -> Bytes {
    let endpoint = std::net::SocketAddr::from(([192, 0, 2, 1], port));
    entry::encode(&PeerSpec {
        node: of,
        name: format!("n{}", of.as_bytes()[0]).parse().unwrap(),
        public_key: PublicKey::new([of.as_bytes()[0]; 32]).unwrap(),
        next_public_key: None,
        ipv4: Some([10, 90, 0, address].into()),
        ipv6: None,
        endpoints: vec![wattle_model::Endpoint::new(endpoint).unwrap()],
        secret_generation: Generation::NONE,
    })
}
