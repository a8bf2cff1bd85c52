//! What a change of policies, labels or mode would mean for sight, before it is made.
//!
//! A [`Shape`] is a copy of what decides sight in one network now; a [`Proposal`] makes another one
//! of it. The sights of each come from an index of its own, so that what is foretold is what will
//! be. Nothing here holds on to the index that agents are served from.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use wattle_model::{At, History, Mode, NetworkName, NodeId, Policy, PolicyName, Revision, Traits};

use crate::{Change, Index, class::Class, sight::Sight};

/// Everything that decides sight in one network at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Who sees whom where no policy says so.
    pub mode: Mode,
    /// Its policies.
    pub policies: BTreeMap<PolicyName, Policy>,
    /// Its live nodes, with their traits.
    pub nodes: BTreeMap<NodeId, Arc<Traits>>,
}

/// What should be otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proposal {
    /// Another mode.
    pub mode: Option<Mode>,
    /// Policies that are set, or deleted.
    pub policies: BTreeMap<PolicyName, Option<Policy>>,
    /// Traits of nodes; those that don't live are passed over.
    pub traits: BTreeMap<NodeId, Traits>,
}

/// Who sees whom in a shape.
#[derive(Debug)]
pub struct Sights {
    index: Index,
    network: NetworkName,
}

/// The difference between two sights of the same nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effect {
    /// Pairs that begin to see each other.
    pub pairs_gained: u64,
    /// Pairs that cease to.
    pub pairs_lost: u64,
    /// How many nodes see more or fewer than before.
    pub nodes_changed: usize,
    /// Those that change most, first.
    pub nodes: Vec<NodeEffect>,
}

/// What becomes of one node's sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeEffect {
    /// Which node.
    pub node: NodeId,
    /// Others that it begins to see.
    pub gained: u64,
    /// Others that it ceases to see.
    pub lost: u64,
}

impl Index {
    /// A copy of what decides sight in a network; `None` where there is no such network. Costs
    /// O(nodes + policies) without a look at any label.
    pub fn shape(&self, network: &NetworkName) -> Option<Shape> {
        let network = self.networks.get(network)?;
        let mode = network.mode.as_ref()?.present().body?;
        let policies = network.present_policies().map(|(name, policy)| (name.clone(), policy));
        let nodes = network.nodes.iter().filter_map(|(id, node)| {
            let body = node.present()?;
            Some((*id, Arc::clone(&body.traits)))
        });
        Some(Shape { mode, policies: policies.collect(), nodes: nodes.collect() })
    }
}

impl Shape {
    /// A network that nobody lives in.
    pub const fn empty(mode: Mode) -> Self {
        Self { mode, policies: BTreeMap::new(), nodes: BTreeMap::new() }
    }

    /// The shape once a proposal is carried out.
    #[must_use]
    pub fn proposed(mut self, proposal: Proposal) -> Self {
        self.mode = proposal.mode.unwrap_or(self.mode);
        for (name, policy) in proposal.policies {
            match policy {
                Some(policy) => self.policies.insert(name, policy),
                None => self.policies.remove(&name),
            };
        }
        for (id, traits) in proposal.traits {
            self.nodes.entry(id).and_modify(|node| *node = Arc::new(traits));
        }
        self
    }

    /// The policies that let two nodes see each other, if the network is closed. O(policies).
    pub fn policies_between(&self, a: NodeId, b: NodeId) -> Vec<&PolicyName> {
        let (Some(of_a), Some(of_b)) = (self.nodes.get(&a), self.nodes.get(&b)) else {
            return Vec::new();
        };
        let lets = |policy: &Policy| {
            (policy.from.matches(a, of_a) && policy.to.matches(b, of_b))
                || (policy.from.matches(b, of_b) && policy.to.matches(a, of_a))
        };
        self.policies.iter().filter(|(_, policy)| lets(policy)).map(|(name, _)| name).collect()
    }
}

/// The revision of everything in an index that is made for sights alone.
const ONLY: Revision = Revision(1);

impl Sights {
    /// Costs what listing the network's nodes and policies into an index does.
    pub fn new(shape: &Shape) -> Self {
        let network: NetworkName = "shape".parse().expect("it is a name");
        let name = || network.clone();
        let mode = Change::Network { network: name(), history: History::first(ONLY, shape.mode) };
        let policies = shape.policies.iter().map(|(policy, sides)| Change::Policy {
            network: name(),
            policy: policy.clone(),
            history: History::first(ONLY, sides.clone()),
        });
        let nodes = shape.nodes.iter().map(|(node, traits)| Change::Node {
            network: name(),
            node: *node,
            history: History::first(ONLY, traits.as_ref().clone()),
        });
        let changes = [mode].into_iter().chain(policies).chain(nodes);
        let index = Index::from_list(ONLY, changes.map(|change| (ONLY, change)));
        Self { index, network }
    }

    /// Whether two nodes see each other.
    pub fn sees(&self, a: NodeId, b: NodeId) -> bool {
        match (self.of(a), self.of(b)) {
            (Some((_, sight)), Some((class, _))) => sight.holds(&class),
            _ => false,
        }
    }

    /// What becomes of each node's sight where `self` is followed by `next`, and of the `most` nodes
    /// that change most. Both must be of the same nodes.
    ///
    /// Nodes that were of one class and are of one class are counted together: with `k` such groups
    /// it costs O(nodes + k²) looks at a class, and so O(nodes²) only where all nodes differ.
    pub fn effect(&self, next: &Self, most: usize) -> Effect {
        let groups = self.groups(next);
        let mut effect = Effect::default();
        // Twice the pairs: each is seen from both of its ends.
        let (mut gained_ends, mut lost_ends) = (0, 0);
        for group in groups.values() {
            let (mut gained, mut lost) = (0, 0);
            for other in groups.values() {
                // A node is no peer of itself.
                let others = other.size() - u64::from(std::ptr::eq(group, other));
                match (group.was.holds(&other.class_was), group.is.holds(&other.class_is)) {
                    (false, true) => gained += others,
                    (true, false) => lost += others,
                    _ => {}
                }
            }
            gained_ends += gained * group.size();
            lost_ends += lost * group.size();
            if gained + lost > 0 {
                effect.nodes_changed += group.nodes.len();
                effect.nodes.extend(group.nodes.iter().take(most).map(|&node| NodeEffect {
                    node,
                    gained,
                    lost,
                }));
            }
        }
        (effect.pairs_gained, effect.pairs_lost) = (gained_ends / 2, lost_ends / 2);
        effect.nodes.sort_unstable_by_key(|n| (std::cmp::Reverse(n.gained + n.lost), n.node));
        effect.nodes.truncate(most);
        effect
    }

    fn groups(&self, next: &Self) -> HashMap<(Class, Class), Group> {
        let mut groups = HashMap::new();
        for node in self.index.nodes(&self.network) {
            let (Some((class_was, was)), Some((class_is, is))) =
                (self.of(node.id), next.of(node.id))
            else {
                continue;
            };
            let key = (class_was.clone(), class_is.clone());
            let group = groups.entry(key).or_insert_with(|| Group {
                class_was,
                was,
                class_is,
                is,
                nodes: Vec::new(),
            });
            group.nodes.push(node.id);
        }
        groups
    }

    fn of(&self, node: NodeId) -> Option<(Class, Sight)> {
        let (network, node) = self.index.find_live(&self.network, node)?;
        let class = &node.present()?.class;
        Some((class.clone(), network.sight(At::Known(Some(class)), ONLY)))
    }
}

/// Nodes that share a class before and a class after.
struct Group {
    class_was: Class,
    was: Sight,
    class_is: Class,
    is: Sight,
    nodes: Vec<NodeId>,
}

impl Group {
    fn size(&self) -> u64 {
        self.nodes.len() as u64
    }
}
