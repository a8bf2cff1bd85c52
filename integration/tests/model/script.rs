//! What happens, drawn from a seed before anything does.

use std::time::Duration;

use wattle_model::Mode;

use crate::rng::Rng;

/// What labels say and policies ask for.
const ROLES: [&str; 3] = ["web", "db", "edge"];
const POLICIES: [&str; 3] = ["one", "two", "three"];

/// All rounds. After each, everything is mended and has to be right.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) rounds: Vec<Vec<Act>>,
}

/// Something that happens, so long after the round began.
#[derive(Debug)]
pub(crate) struct Act {
    pub(crate) at: Duration,
    pub(crate) what: What,
}

/// A host, counted over those that live when it happens.
pub(crate) type Which = u64;

#[derive(Debug, Clone)]
pub(crate) enum What {
    Join {
        role: &'static str,
    },
    /// The agent itself asks to be deleted.
    Leave(Which),
    /// An operator deletes the node.
    Delete(Which),
    Label(Which, Option<&'static str>),
    Policy {
        name: &'static str,
        sides: Option<(&'static str, &'static str)>,
    },
    Mode(Mode),
    /// The agent ends, in order or not, and is back so much later, perhaps with another endpoint.
    Restart {
        host: Which,
        kill: bool,
        away: Duration,
        port: Option<u16>,
    },
    /// The agent is killed and stays away until the next round has ended.
    Away(Which),
    ControlPlane {
        kill: bool,
        away: Duration,
    },
    /// A connection breaks when so many more bytes have reached its agent.
    Cut {
        which: u64,
        after: u64,
    },
    Silence(u64),
    /// Nobody gets through.
    Down(Duration),
    /// Somebody changes the device by hand.
    Tamper(Which, Tamper),
    /// The device refuses some of the next operations.
    Refuse(Which, Vec<bool>),
    Clock(Jump),
    /// Time goes by, for everybody, and the horizon follows.
    Days(u64),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Tamper {
    RemovePeer,
    AddStranger,
    StealPrefix,
    RemoveAddresses,
}

/// A clock that goes wrong for a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Jump {
    /// Whose: a host's, or the control plane's.
    pub(crate) host: Option<Which>,
    /// Into the future, or into the past.
    pub(crate) ahead: bool,
    pub(crate) by: Duration,
    /// Until somebody sets it right.
    pub(crate) long: Duration,
}

impl Script {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let beginning = (0..3 + rng.below(3)).map(|_| Act::at_once(What::Join { role: role(rng) }));
        let beginning = beginning.collect();
        let mut rounds: Vec<Vec<Act>> = vec![beginning];
        for _ in 0..4 {
            rounds.push((0..4 + rng.below(8)).map(|_| Act::draw(rng)).collect());
        }
        // Once: a node that has just recovered has to wait before it may again.
        let mut days = 0;
        for round in &mut rounds {
            round.retain(|act| {
                days += u32::from(matches!(act.what, What::Days(_)));
                !matches!(act.what, What::Days(_)) || days == 1
            });
        }
        Self { rounds }
    }
}

impl Act {
    const fn at_once(what: What) -> Self {
        Self { at: Duration::ZERO, what }
    }

    fn draw(rng: &mut Rng) -> Self {
        Self { at: millis(rng, 600), what: What::draw(rng) }
    }
}

impl What {
    fn draw(rng: &mut Rng) -> Self {
        let which = rng.next();
        match rng.below(100) {
            0..14 => Self::Join { role: role(rng) },
            14..18 => Self::Leave(which),
            18..25 => Self::Delete(which),
            25..38 => Self::Label(which, rng.percent(80).then(|| role(rng))),
            38..48 => Self::Policy {
                name: rng.pick::<&str>(&POLICIES),
                sides: rng.percent(70).then(|| (role(rng), role(rng))),
            },
            48..53 => Self::Mode(*rng.pick(&[Mode::Mesh, Mode::Closed, Mode::Closed])),
            53..62 => Self::Restart {
                host: which,
                kill: rng.percent(70),
                away: millis(rng, 500),
                port: rng.percent(60).then(|| 51820 + u16::try_from(rng.below(9)).unwrap()),
            },
            62..66 => Self::Away(which),
            66..74 => Self::ControlPlane { kill: rng.percent(70), away: millis(rng, 700) },
            74..80 => Self::Cut { which, after: if rng.percent(40) { 0 } else { rng.below(900) } },
            80..82 => Self::Silence(which),
            82..84 => Self::Down(millis(rng, 1000)),
            84..88 => Self::Tamper(which, Tamper::draw(rng)),
            88..92 => Self::Refuse(which, (0..4).map(|_| rng.percent(50)).collect()),
            92..97 => Self::Clock(Jump::draw(rng)),
            _ => Self::Days(*rng.pick(&[1, 1, 2, 40])),
        }
    }
}

impl Tamper {
    fn draw(rng: &mut Rng) -> Self {
        let all = [Self::RemovePeer, Self::AddStranger, Self::StealPrefix, Self::RemoveAddresses];
        *rng.pick(&all)
    }
}

impl Jump {
    fn draw(rng: &mut Rng) -> Self {
        let host = rng.percent(50).then(|| rng.next());
        let minutes = *rng.pick(&[2, 30, 20 * 60, 25 * 60, 40 * 24 * 60]);
        Self {
            host,
            ahead: rng.percent(60),
            by: Duration::from_secs(60 * minutes),
            long: millis(rng, 1500),
        }
    }
}

fn role(rng: &mut Rng) -> &'static str {
    rng.pick::<&str>(&ROLES)
}

fn millis(rng: &mut Rng, below: u64) -> Duration {
    Duration::from_millis(rng.below(below))
}
