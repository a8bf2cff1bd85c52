//! What is on the wire, against who may see whom: over random changes of labels, policies and mode,
//! with agents that read late, resume, and begin anew, no agent gets a byte about a peer outside its
//! sight. Sight is computed here pair by pair, from what the test has written.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use wattle_model::{Labels, Mode, NodeId, Revision, Selector, Traits};

use super::{
    agent::{Agent, Batch, Held},
    world::{Node, World},
};

const NODES: usize = 6;
const STEPS: usize = 60;
const ROLES: [&str; 3] = ["role=a", "role=b", "role=c"];
const SELECTORS: [&str; 6] = ["", "role=a", "role!=b", "role in (b,c)", "!role", "role"];

/// Who sees whom.
type Sights = BTreeMap<NodeId, BTreeSet<NodeId>>;

/// What was written, and what it meant at each revision.
struct Truth {
    mode: Mode,
    traits: BTreeMap<NodeId, Traits>,
    policies: BTreeMap<u8, (Selector, Selector)>,
    sights: BTreeMap<Revision, Sights>,
}

impl Truth {
    fn note(&mut self, revision: Revision) {
        let sights = self.traits.keys().map(|a| {
            let seen = self.traits.keys().filter(|b| self.sees(*a, **b)).copied();
            (*a, seen.collect())
        });
        self.sights.insert(revision, sights.collect());
    }

    fn sees(&self, a: NodeId, b: NodeId) -> bool {
        let fits = |selector: &Selector, node| selector.matches(node, &self.traits[&node]);
        self.mode == Mode::Mesh
            || self
                .policies
                .values()
                .any(|(from, to)| (fits(from, a) && fits(to, b)) || (fits(from, b) && fits(to, a)))
    }

    fn at(&self, node: NodeId, revision: Revision) -> BTreeSet<NodeId> {
        let sights = self.sights.range(..=revision).next_back().map(|(_, sights)| sights);
        sights.and_then(|sights| sights.get(&node).cloned()).unwrap_or_default()
    }

    /// All that a node saw at some revision of a span.
    fn during(&self, node: NodeId, from: Revision, to: Revision) -> BTreeSet<NodeId> {
        let mut seen = self.at(node, from);
        for sights in self.sights.range(from..=to).map(|(_, sights)| sights) {
            seen.extend(sights.get(&node).into_iter().flatten());
        }
        seen
    }

    /// A batch that leads a node from one revision on says nothing that it may not know.
    fn check(&self, node: NodeId, from: Revision, batch: &Batch) {
        let to = Revision(batch.commit.revision);
        let seen = self.during(node, from, to);
        let told = batch.entries.iter().chain(&batch.removed);
        for peer in told {
            assert!(seen.contains(peer), "{node} was told of {peer} between {from} and {to}");
        }
    }
}

fn traits(labels: &[&str]) -> Traits {
    Traits { labels: Labels::from_texts(labels).unwrap(), fixed_name: None }
}

struct Story {
    world: World,
    nodes: Vec<Node>,
    truth: Truth,
    random: StdRng,
}

impl Story {
    async fn begin(seed: u64) -> Self {
        let world = World::new().await;
        let (mut nodes, mut described) = (Vec::new(), BTreeMap::new());
        for n in 0..NODES {
            let role = ROLES[n % ROLES.len()];
            let node = world.enroll_labelled(&[role]).await;
            described.insert(node.id, traits(&[role]));
            nodes.push(node);
        }
        let (policies, sights) = (BTreeMap::new(), BTreeMap::new());
        let mut truth = Truth { mode: Mode::Mesh, traits: described, policies, sights };
        truth.note(world.live.read().head());
        Self { world, nodes, truth, random: StdRng::seed_from_u64(seed) }
    }

    /// One change by an operator or an agent.
    async fn change(&mut self) {
        let node = &self.nodes[self.random.random_range(0..NODES)];
        let revision = match self.random.random_range(0..10) {
            0 => {
                self.truth.mode = match self.truth.mode {
                    Mode::Mesh => Mode::Closed,
                    Mode::Closed => Mode::Mesh,
                };
                self.world.set_mode(self.truth.mode).await
            }
            1..=3 => {
                let role: &[&str] = match self.random.random_range(0..=ROLES.len()) {
                    n if n < ROLES.len() => &ROLES[n..=n],
                    _ => &[],
                };
                self.truth.traits.insert(node.id, traits(role));
                self.world.relabel(node, role).await
            }
            4..=6 => {
                let name = self.random.random_range(0..3);
                let mut side = || SELECTORS[self.random.random_range(0..SELECTORS.len())];
                let (from, to) = (side(), side());
                let sides = (from.parse().unwrap(), to.parse().unwrap());
                self.truth.policies.insert(name, sides);
                self.world.set_policy(name, Some((from, to))).await
            }
            7 => {
                let name = self.random.random_range(0..3);
                self.truth.policies.remove(&name);
                self.world.set_policy(name, None).await
            }
            _ => self.world.change(node, self.random.random_range(1..60_000)).await,
        };
        self.truth.note(revision);
    }

    /// An agent reads until it holds what it should, or goes away with what it has.
    async fn read(&self, node: &Node, (agent, since): &mut (Agent, Revision)) {
        let head = self.world.live.read().head();
        let digest = self.world.live.read().digest(&super::world::network(), node.id);
        while agent.held.digest() != digest {
            let from = agent.held.revision;
            let batch = agent.batch().await;
            // A full set begins where the stream did.
            let from = if batch.commit.full_set { *since } else { from };
            self.truth.check(node.id, from, &batch);
            let held: BTreeSet<_> = agent.held.entries.keys().copied().collect();
            let at = Revision(batch.commit.revision);
            assert_eq!(held, self.truth.at(node.id, at), "{} at {at}", node.id);
        }
        let held: BTreeSet<_> = agent.held.entries.keys().copied().collect();
        assert_eq!(held, self.truth.at(node.id, head), "{} at head", node.id);
    }

    async fn tell(mut self) {
        let mut agents = Vec::new();
        for (n, node) in self.nodes.iter().enumerate() {
            let head = self.world.live.read().head();
            agents.push((Agent::joined(&self.world, node, n as u8).await, head));
        }
        for _ in 0..STEPS {
            for _ in 0..self.random.random_range(1..4) {
                self.change().await;
            }
            for (n, agent) in agents.iter_mut().enumerate() {
                let node = self.nodes[n].clone();
                match self.random.random_range(0..8) {
                    // Reads later.
                    0 | 1 => continue,
                    // Comes again with what it has, or with nothing.
                    2 => self.reconnect(&node, agent, agent.0.held.clone()).await,
                    3 => self.reconnect(&node, agent, Held::new(n as u8)).await,
                    _ => {}
                }
                self.read(&node, agent).await;
            }
        }
    }

    async fn reconnect(&self, node: &Node, agent: &mut (Agent, Revision), held: Held) {
        let head = self.world.live.read().head();
        *agent = (Agent::connect(&self.world, node, held).await.0, head);
    }
}

#[tokio::test]
async fn no_byte_about_a_peer_outside_an_agent_s_sight() {
    for seed in [1, 2, 3, rand::random()] {
        // Shown where the test fails.
        #[expect(clippy::print_stdout, reason = "the seed repeats the story")]
        {
            println!("seed {seed}");
        }
        Story::begin(seed).await.tell().await;
    }
}
