//! Everything that happens, on one clock.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use wattle_checker::{Agent, Call, Heard, Outcome, Recording, StoreLog, Transaction, What};
use wattle_model::NodeId;

/// The recorder. Clones are one.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    recording: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    epoch: Bytes,
    stores: BTreeMap<Bytes, StoreLog>,
    agents: BTreeMap<NodeId, Agent>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self(Arc::new(Inner { began: Instant::now(), recording: Mutex::default() }))
    }
}

impl Recorder {
    /// Nanoseconds since it began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The store is this one from now on.
    pub(crate) fn store(&self, epoch: Bytes, first: Transaction) {
        let mut recording = self.0.recording.lock();
        recording.stores.entry(epoch.clone()).or_insert(StoreLog { first, ..StoreLog::default() });
        recording.epoch = epoch;
    }

    /// The store has done this.
    pub(crate) fn transaction(&self, transaction: Transaction) {
        let mut recording = self.0.recording.lock();
        recording.log().transactions.push(transaction);
    }

    /// The last revision recorded.
    pub fn revision(&self) -> u64 {
        let mut recording = self.0.recording.lock();
        let log = recording.log();
        log.transactions.last().map_or(log.first.revision, |last| last.revision)
    }

    /// An agent has heard this.
    pub(crate) fn heard(&self, node: NodeId, network: &str, heard: Heard) {
        let mut recording = self.0.recording.lock();
        let new = || Agent { node, network: network.to_owned(), heard: Vec::new() };
        recording.agents.entry(node).or_insert_with(new).heard.push(heard);
    }

    /// Something was asked for at `begun` and has ended now.
    pub(crate) fn call(&self, request: Bytes, begun: u64, what: What, outcome: Outcome) {
        let call = Call { request, begun, ended: self.now(), what, outcome };
        self.0.recording.lock().log().calls.push(call);
    }

    /// How calls have ended so far: done, refused, unknown.
    pub fn calls(&self) -> [usize; 3] {
        let mut recording = self.0.recording.lock();
        let mut counts = [0; 3];
        for call in &recording.log().calls {
            let place = match call.outcome {
                Outcome::Done(_) | Outcome::Enrolled(_) | Outcome::Read(_) => 0,
                Outcome::Refused(_) => 1,
                Outcome::Unknown(_) => 2,
            };
            counts[place] += 1;
        }
        counts
    }

    /// All of it so far.
    pub fn recording(&self) -> Recording {
        let recording = self.0.recording.lock();
        Recording {
            stores: recording.stores.clone(),
            agents: recording.agents.values().cloned().collect(),
        }
    }
}

impl Recorded {
    fn log(&mut self) -> &mut StoreLog {
        self.stores.entry(self.epoch.clone()).or_default()
    }
}
