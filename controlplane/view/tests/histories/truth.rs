//! What every agent sees at every revision, by brute force: the whole state of each revision is
//! kept, and nothing here knows histories, classes or orders.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use wattle_model::{Digest, Mode, NetworkName, NodeId, Policy, PolicyName, Revision, Traits};
use wattle_view::Page;

/// What an agent holds.
pub(crate) type Held = BTreeMap<NodeId, Bytes>;

/// One network at one revision.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) mode: Option<Mode>,
    pub(crate) nodes: BTreeMap<NodeId, Traits>,
    pub(crate) entries: BTreeMap<NodeId, (Bytes, Revision)>,
    pub(crate) policies: BTreeMap<PolicyName, Policy>,
}

impl State {
    pub(crate) fn sees(&self, a: NodeId, b: NodeId) -> bool {
        let (Some(of_a), Some(of_b)) = (self.nodes.get(&a), self.nodes.get(&b)) else {
            return false;
        };
        match self.mode {
            None => false,
            Some(Mode::Mesh) => true,
            Some(Mode::Closed) => self.policies.values().any(|policy| {
                (policy.from.matches(a, of_a) && policy.to.matches(b, of_b))
                    || (policy.from.matches(b, of_b) && policy.to.matches(a, of_a))
            }),
        }
    }

    /// Everything that `agent` sees.
    pub(crate) fn view(&self, agent: NodeId) -> Held {
        let seen = self.entries.iter().filter(|(id, _)| self.sees(agent, **id));
        seen.map(|(id, (bytes, _))| (*id, bytes.clone())).collect()
    }
}

/// All networks at every revision up to head.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) states: Vec<BTreeMap<NetworkName, State>>,
    nothing: State,
}

impl Truth {
    pub(crate) fn at(&self, network: &NetworkName, revision: Revision) -> &State {
        let at = usize::try_from(revision.0).unwrap();
        self.states[at].get(network).unwrap_or(&self.nothing)
    }

    /// What brings an agent from `from` to `head`, and nothing more.
    pub(crate) fn exact(
        &self,
        network: &NetworkName,
        agent: NodeId,
        from: Revision,
        head: Revision,
    ) -> (BTreeSet<Bytes>, BTreeSet<NodeId>) {
        let (was, now) = (self.at(network, from), self.at(network, head));
        let entries = now.entries.iter().filter(|(id, (_, revision))| {
            now.sees(agent, **id) && (!was.sees(agent, **id) || *revision > from)
        });
        let removed = was.nodes.keys().filter(|id| was.sees(agent, **id) && !now.sees(agent, **id));
        (entries.map(|(_, (bytes, _))| bytes.clone()).collect(), removed.copied().collect())
    }

    /// Whether `agent` sees `node` at any revision of a span, both ends included.
    pub(crate) fn ever_sees(
        &self,
        network: &NetworkName,
        agent: NodeId,
        node: NodeId,
        span: (Revision, Revision),
    ) -> bool {
        (span.0.0..=span.1.0).any(|r| self.at(network, Revision(r)).sees(agent, node))
    }
}

/// Whose entry these bytes are: the tests' entries begin with the id.
pub(crate) fn node_of(entry: &Bytes) -> NodeId {
    NodeId::try_from(&entry[..NodeId::LEN]).unwrap()
}

pub(crate) fn apply(held: &mut Held, page: &Page) {
    for node in &page.removed {
        held.remove(node);
    }
    held.extend(page.entries.iter().map(|entry| (node_of(entry), entry.clone())));
}

pub(crate) fn digest(held: &Held) -> Digest {
    let mut sum = Digest::EMPTY;
    held.iter().for_each(|(id, bytes)| sum += Digest::of(*id, bytes));
    sum
}
