//! Another WireGuard key for a node: the wish for it, whose turn it is, and the two changes in which it
//! comes. First everybody learns the next key, then it is the node's key: so peers know it before
//! it is used.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message as _;
use wattle_model::{NetworkName, NodeId, PublicKey, Revision};
use wattle_proto::{Invalid as _, InvalidField, store as proto};
use wattle_runtime::clock;

use super::{ChangeError, LoadedNode, Nodes, prepare};
use crate::store::{Key, Outcome, StoreError, Stored, Transaction, keys};

/// Nodes of a network whose keys are changed at a time. Each costs all who see it two changes, and
/// a peer that hears of the second one late a moment of silence.
pub const TURNS: usize = 4;
/// A turn that wasn't given back by now was some replica's that ended.
const TURN_LASTS: Duration = Duration::from_secs(120);
/// Wishes of one page.
const PAGE: usize = 500;

/// A node is to have another WireGuard key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// The node's network.
    pub network: NetworkName,
    /// The node.
    pub node: NodeId,
    /// It waits for nobody's turn: its peers have a key that its agent hasn't got.
    pub urgent: bool,
}

/// Whether it is a node's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is.
    Now,
    /// Others come first.
    Later,
}

impl Rotation {
    /// The record of a wish made now.
    pub fn encode(now: SystemTime, urgent: bool) -> Bytes {
        let asked_at_millis = clock::unix_millis(now);
        proto::Rotation { asked_at_millis, urgent }.encode_to_vec().into()
    }

    fn decode(stored: &Stored) -> Result<Self, StoreError> {
        let corrupt = |error: InvalidField| StoreError::Corrupt(format!("{}: {error}", stored.key));
        let record = proto::Rotation::decode(stored.value.clone()).field("rotation");
        let mut parts = stored.key.as_str().split('/').skip(2);
        let network = parts.next().unwrap_or_default().parse().field("network").map_err(corrupt)?;
        let node = parts.next().unwrap_or_default().parse().field("node").map_err(corrupt)?;
        Ok(Self { network, node, urgent: record.map_err(corrupt)?.urgent })
    }
}

impl LoadedNode {
    /// Wishes it another WireGuard key. The caller has seen that nobody has wished so before.
    pub fn plan_rotation(&self, now: SystemTime) -> Transaction {
        let key = keys::rotation(&self.record.network, self.node);
        // Its deletion writes the same record, so a wish is never a dead node's.
        self.same_labels().create(key, Rotation::encode(now, false))
    }
}

impl Nodes {
    /// Some wishes, from `after` on in the order of their keys, and where to go on; `None` at the end.
    pub async fn rotations(
        &self,
        after: Option<&Key>,
    ) -> Result<(Vec<Rotation>, Option<Key>), StoreError> {
        let page = self.store.list(&keys::all_rotations(), after, PAGE).await?;
        let last = page.items.last().map(|stored| stored.key.clone()).filter(|_| page.more);
        let rotations = page.items.iter().filter_map(|stored| match Rotation::decode(stored) {
            Ok(rotation) => Some(rotation),
            Err(error) => {
                tracing::warn!(%error, "a wish for another key is passed over");
                None
            }
        });
        Ok((rotations.collect(), last))
    }

    /// Wishes a node another WireGuard key, unless somebody has. An urgent wish makes one that is
    /// there urgent, too.
    pub async fn ask_rotation(&self, node: NodeId, urgent: bool) -> Result<(), ChangeError> {
        let loaded = self.load(node).await?.ok_or(ChangeError::Gone)?;
        self.wish(&loaded, loaded.same_labels(), urgent).await
    }

    /// Wishes a node another WireGuard key than the one that it has had since `keyed_at`. Where it has
    /// another one by now, that was done.
    pub async fn ask_rotation_of(
        &self,
        node: NodeId,
        keyed_at: SystemTime,
    ) -> Result<(), ChangeError> {
        let loaded = self.load(node).await?.ok_or(ChangeError::Gone)?;
        if loaded.record.keyed_at != keyed_at {
            return Ok(());
        }
        self.wish(&loaded, loaded.unchanged(), false).await
    }

    async fn wish(
        &self,
        loaded: &LoadedNode,
        guard: Transaction,
        urgent: bool,
    ) -> Result<(), ChangeError> {
        let key = keys::rotation(&loaded.record.network, loaded.node);
        let present = self.store.get(&key).await?;
        let present = present.map(|stored| Rotation::decode(&stored)).transpose()?;
        if present.is_some_and(|present| present.urgent || !urgent) {
            return Ok(());
        }
        let wish = Rotation::encode(clock::now(), urgent);
        // Where it conflicts, the node was deleted or changed: whoever asks comes again.
        let _ = self.store.commit(guard.put(key, wish)).await?;
        Ok(())
    }

    /// The nodes of a network whose turn it is.
    pub async fn turns(&self, network: &NetworkName) -> Result<Vec<NodeId>, StoreError> {
        let stored = self.store.get(&keys::turns(network)).await?;
        let turns = turns(stored.as_ref(), clock::now())?;
        Ok(turns.iter().filter_map(|turn| NodeId::try_from(turn.node_id.as_ref()).ok()).collect())
    }

    /// Takes a turn for a node, where there is one.
    pub async fn take_turn(&self, rotation: &Rotation) -> Result<Turn, StoreError> {
        let (key, now) = (keys::turns(&rotation.network), clock::now());
        let stored = self.store.get(&key).await?;
        let mut turns = turns(stored.as_ref(), now)?;
        if turns.iter().any(|turn| turn.node_id == rotation.node.as_bytes()[..]) {
            return Ok(Turn::Now);
        }
        if turns.len() >= TURNS && !rotation.urgent {
            return Ok(Turn::Later);
        }
        if !rotation.urgent {
            let node_id = Bytes::copy_from_slice(rotation.node.as_bytes());
            turns.push(proto::Turn { node_id, at_millis: clock::unix_millis(now) });
            return self.put_turns(key, stored.as_ref(), turns).await;
        }
        Ok(Turn::Now)
    }

    /// Gives a node's turn back.
    pub async fn give_turn_back(&self, rotation: &Rotation) -> Result<(), StoreError> {
        let key = keys::turns(&rotation.network);
        for _ in 0..super::ATTEMPTS {
            let Some(stored) = self.store.get(&key).await? else { return Ok(()) };
            let mut turns = turns(Some(&stored), clock::now())?;
            let before = turns.len();
            turns.retain(|turn| turn.node_id != rotation.node.as_bytes()[..]);
            let given = turns.len() == before
                || self.put_turns(key.clone(), Some(&stored), turns).await? == Turn::Now;
            if given {
                return Ok(());
            }
        }
        // It runs out by itself.
        Ok(())
    }

    async fn put_turns(
        &self,
        key: Key,
        read: Option<&Stored>,
        turns: Vec<proto::Turn>,
    ) -> Result<Turn, StoreError> {
        let value = proto::Turns { turns }.encode_to_vec().into();
        let transaction = Transaction::default().as_read(key.clone(), read).put(key, value);
        Ok(match self.store.commit(transaction).await? {
            Outcome::Committed(_) => Turn::Now,
            Outcome::Conflict => Turn::Later,
        })
    }

    /// Tells everybody which key a node will change to. Returns the revision that says so.
    pub async fn announce_key(
        &self,
        node: NodeId,
        next: PublicKey,
    ) -> Result<Revision, ChangeError> {
        let loaded = self.load(node).await?.ok_or(ChangeError::Gone)?;
        if loaded.record.next_public_key == Some(next) {
            let peer = self.store.get(&keys::peer(&loaded.record.network, node)).await?;
            return peer.map(|peer| peer.modified).ok_or(ChangeError::Gone);
        }
        if prepare::claim(&*self.store, &keys::wireguard_key(next)).await?.is_some() {
            return Err(ChangeError::KeyTaken);
        }
        let plan = |loaded: &LoadedNode| Ok::<_, ChangeError>(Some(loaded.plan_next_key(next)));
        self.change(node, plan).await?.ok_or(ChangeError::Gone)
    }

    /// Changes a node's key to the one that was announced. `None` where none is: it was done before.
    pub async fn promote_key(
        &self,
        node: NodeId,
        now: SystemTime,
    ) -> Result<Option<Revision>, ChangeError> {
        self.change(node, |loaded| Ok::<_, ChangeError>(loaded.plan_promote(now))).await
    }
}

/// Whose turn it is, as far as that hasn't run out.
fn turns(stored: Option<&Stored>, now: SystemTime) -> Result<Vec<proto::Turn>, StoreError> {
    let Some(stored) = stored else { return Ok(Vec::new()) };
    let record = proto::Turns::decode(stored.value.clone()).field("turns");
    let record = record.map_err(|error| StoreError::Corrupt(format!("{}: {error}", stored.key)))?;
    let oldest = clock::unix_millis(now).saturating_sub(TURN_LASTS.as_millis() as u64);
    Ok(record.turns.into_iter().filter(|turn| turn.at_millis >= oldest).collect())
}
