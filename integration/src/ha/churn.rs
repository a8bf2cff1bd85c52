//! Changes that go on whatever is broken: labels, policies, machines that come and go with tokens
//! for a few, agents that move, and reads between them. Drawn from a seed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::time::sleep;
use wattle_certs::KeyPair;
use wattle_checker::Outcome;
use wattle_model::{JoinToken, NodeId};

use super::{operators::Operators, witness::Witness};
use crate::Inside;

const ROLES: [&str; 3] = ["web", "db", "edge"];
const POLICIES: [&str; 3] = ["one", "two", "three"];
/// The label that is written with a value of its own each time.
const PROBE: &str = "probe";
/// Machines that come and go: no more at a time.
const GUESTS: usize = 12;
/// Hands that work at the same time.
const HANDS: u64 = 3;

/// How often something happens.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Between two changes of one hand, on average.
    pub pause: Duration,
}

impl Default for Rate {
    fn default() -> Self {
        Self { pause: Duration::from_millis(250) }
    }
}

/// Running changes. Dropping it ends them.
pub struct Churn {
    shared: Arc<Shared>,
    running: Arc<AtomicUsize>,
}

struct Shared {
    operators: Operators,
    witnesses: Vec<Arc<Witness>>,
    /// Nodes that stay, whose labels change.
    residents: Vec<NodeId>,
    guests: Mutex<Vec<NodeId>>,
    stop: AtomicBool,
    numbers: AtomicUsize,
    rate: Rate,
}

impl Churn {
    /// Begins, on `inside`. `begun`: a number that no other churn of the run has.
    pub fn start(
        inside: &Inside,
        operators: Operators,
        witnesses: Vec<Arc<Witness>>,
        residents: Vec<NodeId>,
        seed: u64,
        rate: Rate,
        begun: usize,
    ) -> Self {
        let shared = Arc::new(Shared {
            operators,
            witnesses,
            residents,
            guests: Mutex::default(),
            stop: AtomicBool::new(false),
            numbers: AtomicUsize::new(begun * 1_000_000),
            rate,
        });
        let running = Arc::new(AtomicUsize::new(0));
        for hand in 0..HANDS {
            let (shared, running) = (shared.clone(), running.clone());
            running.fetch_add(1, Ordering::SeqCst);
            inside.spawn(async move {
                let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(HANDS).wrapping_add(hand));
                while !shared.stop.load(Ordering::SeqCst) {
                    shared.change(&mut rng).await;
                    sleep(shared.rate.pause.mul_f64(rng.random_range(0.0..2.0))).await;
                }
                running.fetch_sub(1, Ordering::SeqCst);
            });
        }
        Self { shared, running }
    }

    /// Says that it is enough; what is under way ends.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }

    /// Whether everything has ended.
    pub fn has_ended(&self) -> bool {
        self.running.load(Ordering::SeqCst) == 0
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    async fn change(&self, rng: &mut StdRng) {
        let number = self.numbers.fetch_add(1, Ordering::SeqCst);
        match rng.random_range(0..100) {
            0..30 => {
                let value = format!("v{number}");
                self.operators.label(self.resident(rng), PROBE, Some(&value)).await;
            }
            30..45 => drop(self.operators.read_label(self.resident(rng), PROBE).await),
            45..60 => self.policy(rng).await,
            60..75 => {
                if let Some(witness) = self.witnesses.choose(rng) {
                    witness.move_to(u32::try_from(number & 0xffff).unwrap_or(0));
                }
            }
            75..85 => self.delete(rng).await,
            _ => self.enrol(number, rng).await,
        }
    }

    fn resident(&self, rng: &mut StdRng) -> NodeId {
        *self.residents.choose(rng).expect("somebody lives there")
    }

    async fn policy(&self, rng: &mut StdRng) {
        let name = POLICIES.choose(rng).expect("there are some");
        let role =
            |rng: &mut StdRng| format!("role={}", ROLES.choose(rng).expect("there are some"));
        let (from, to) = (role(rng), role(rng));
        let sides = rng.random_bool(0.7).then_some((from.as_str(), to.as_str()));
        self.operators.policy(name, sides).await;
    }

    async fn delete(&self, rng: &mut StdRng) {
        let guest = {
            let mut guests = self.guests.lock();
            if guests.is_empty() {
                return;
            }
            let place = rng.random_range(0..guests.len());
            guests.swap_remove(place)
        };
        self.operators.delete(guest).await;
    }

    /// Three machines come with a token for two.
    async fn enrol(&self, number: usize, rng: &mut StdRng) {
        if self.guests.lock().len() >= GUESTS {
            return self.delete(rng).await;
        }
        let role = ROLES.choose(rng).expect("there are some");
        let Ok(token) = self.operators.token(&[("role", role)], 2).await else { return };
        let Ok(token) = token.parse::<JoinToken>() else { return };
        let [one, two, three] = std::array::from_fn::<_, 3, _>(|machine| {
            let token = &token;
            async move {
                let (keys, wireguard) = (KeyPair::generate(), rand::random());
                let name = format!("g{number}-{machine}");
                self.operators.enrol(token, &keys, wireguard, &name).await.0
            }
        });
        let (one, two, three) = tokio::join!(one, two, three);
        for outcome in [one, two, three] {
            if let Outcome::Enrolled(node) = outcome {
                self.guests.lock().push(node);
            }
        }
    }
}
