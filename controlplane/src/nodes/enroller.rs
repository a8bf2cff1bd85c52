//! The task that enrols: it takes what waits, a dozen at a time, checks all of them at once and
//! makes them in one transaction. Where that conflicts, it makes them one by one. Where the store
//! fails, all who wait are told at once: each group would wait for it as long as the last one.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    select,
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use wattle_model::NetworkName;
use wattle_runtime::{backoff::Backoff, clock};

use super::{
    addresses::{Addresses, Allocator, Ranges},
    claims,
    group::{Group, MEMBERS},
    prepare::{Enrolled, Enrolment, Network, Prepared, claim, prepare},
    refused::Refused,
};
use crate::store::{Outcome, Store, StoreError, keys};

/// Attempts of one enrolment on its own.
const ATTEMPTS: usize = 10;
/// A full network's claims are listed again after this long: deleted nodes' addresses come back.
const LISTED_AGAIN: Duration = Duration::from_secs(10);

/// What a machine that only validates is told.
#[derive(Debug, Clone)]
pub struct Validated {
    /// The network that it would join.
    pub network: NetworkName,
    /// The network's ranges.
    pub ranges: Ranges,
}

/// An enrolment that waits.
pub(super) struct Job {
    pub(super) wish: Enrolment,
    pub(super) answer: Answer,
}

/// Who waits for it, and for what.
pub(super) enum Answer {
    Enrol(oneshot::Sender<Result<Enrolled, Refused>>),
    Validate(oneshot::Sender<Result<Validated, Refused>>),
}

impl Answer {
    /// Nobody waits for it any more.
    fn is_unwanted(&self) -> bool {
        match self {
            Self::Enrol(sender) => sender.is_closed(),
            Self::Validate(sender) => sender.is_closed(),
        }
    }

    // Whoever has stopped waiting misses the answer; what was made stays and is found again.
    fn refuse(self, refused: Refused) {
        match self {
            Self::Enrol(sender) => drop(sender.send(Err(refused))),
            Self::Validate(sender) => drop(sender.send(Err(refused))),
        }
    }

    fn enrolled(self, enrolled: Enrolled) {
        match self {
            Self::Enrol(sender) => drop(sender.send(Ok(enrolled))),
            Self::Validate(sender) => {
                let (network, ranges) = (enrolled.record.network, enrolled.ranges);
                drop(sender.send(Ok(Validated { network, ranges })));
            }
        }
    }
}

/// The task.
pub(super) struct Enroller {
    store: Arc<dyn Store>,
    jobs: mpsc::Receiver<Job>,
    /// One of each network that somebody joined.
    allocators: HashMap<NetworkName, (Allocator, Instant)>,
    /// How the store has failed somebody, in this round.
    failed: Option<StoreError>,
}

impl Enroller {
    pub(super) fn new(store: Arc<dyn Store>, jobs: mpsc::Receiver<Job>) -> Self {
        Self { store, jobs, allocators: HashMap::new(), failed: None }
    }

    /// Enrols until nobody can ask any more, or the program ends; then what waits is still done.
    pub(super) async fn run(mut self, ending: CancellationToken) {
        // Those that couldn't go with the last group; never more than one group.
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                let job = select! {
                    job = self.jobs.recv() => job,
                    () = ending.cancelled(), if !self.jobs.is_closed() => {
                        self.jobs.close();
                        continue;
                    }
                };
                let Some(job) = job else { return };
                waiting.push_back(job);
            }
            while waiting.len() < MEMBERS
                && let Ok(job) = self.jobs.try_recv()
            {
                waiting.push_back(job);
            }
            // Who has gone asks again, if at all.
            waiting.retain(|job| !job.answer.is_unwanted());
            waiting = self.round(waiting).await;
            if let Some(error) = self.failed.take() {
                let more = std::iter::from_fn(|| self.jobs.try_recv().ok());
                for job in waiting.drain(..).chain(more) {
                    job.answer.refuse(error.clone().into());
                }
            }
        }
    }

    fn refuse(&mut self, answer: Answer, refused: Refused) {
        if let Refused::Store(error) = &refused
            && matches!(error, StoreError::Unavailable(_) | StoreError::Replaced(_))
        {
            self.failed = Some(error.clone());
        }
        answer.refuse(refused);
    }

    /// Does what it can of `jobs` in one transaction and returns the others.
    async fn round(&mut self, jobs: VecDeque<Job>) -> VecDeque<Job> {
        let now = clock::now();
        let store = self.store.clone();
        let prepared = join_all(jobs.iter().map(|job| prepare(&*store, &job.wish, now))).await;
        let (mut group, mut members, mut rest) = (Group::default(), Vec::new(), VecDeque::new());
        for (job, prepared) in jobs.into_iter().zip(prepared) {
            let candidate = match prepared {
                Ok(Prepared::New(candidate)) => candidate,
                Ok(Prepared::Already(enrolled)) => {
                    job.answer.enrolled(*enrolled);
                    continue;
                }
                Err(refused) => {
                    self.refuse(job.answer, refused);
                    continue;
                }
            };
            if let Answer::Validate(sender) = job.answer {
                drop(sender.send(self.validated(candidate.network).await));
                continue;
            }
            if !group.admits(&job.wish, &candidate) {
                rest.push_back(job);
                continue;
            }
            match self.take(&candidate.network).await {
                Ok(addresses) => {
                    group.add(&job.wish, *candidate, addresses, now);
                    members.push(job);
                }
                Err(refused) => self.refuse(job.answer, refused),
            }
        }
        if !members.is_empty() {
            self.make(group, members).await;
        }
        rest
    }

    async fn make(&mut self, group: Group, members: Vec<Job>) {
        match self.store.commit(group.transaction()).await {
            Ok(Outcome::Committed(revision)) => {
                for (job, enrolled) in members.into_iter().zip(group.made_at(revision)) {
                    job.answer.enrolled(enrolled);
                }
            }
            Ok(Outcome::Conflict) => {
                self.settle(group).await;
                for job in members {
                    let made = match &self.failed {
                        Some(error) => Err(error.clone().into()),
                        None => self.alone(&job.wish).await,
                    };
                    match made {
                        Ok(enrolled) => job.answer.enrolled(enrolled),
                        Err(refused) => self.refuse(job.answer, refused),
                    }
                }
            }
            // It may have happened: its addresses stay taken until the claims are listed again.
            Err(error) => {
                for job in members {
                    self.refuse(job.answer, error.clone().into());
                }
            }
        }
    }

    /// One enrolment, planned anew until it doesn't conflict.
    async fn alone(&mut self, wish: &Enrolment) -> Result<Enrolled, Refused> {
        let mut backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(100));
        for _ in 0..ATTEMPTS {
            let now = clock::now();
            let candidate = match prepare(&*self.store, wish, now).await? {
                Prepared::Already(enrolled) => return Ok(*enrolled),
                Prepared::New(candidate) => candidate,
            };
            let addresses = self.take(&candidate.network).await?;
            let mut group = Group::default();
            group.add(wish, *candidate, addresses, now);
            if let Outcome::Committed(revision) = self.store.commit(group.transaction()).await? {
                return group.made_at(revision).next().ok_or(Refused::Contended);
            }
            self.settle(group).await;
            sleep(backoff.next()).await;
        }
        Err(Refused::Contended)
    }

    /// After a conflict: addresses that nobody has are free again. One that somebody claimed, by
    /// another replica, stays taken, and the next attempt gets another. Where the store doesn't say,
    /// all stay taken until the claims are listed again.
    async fn settle(&mut self, group: Group) {
        for enrolled in group.made_at(wattle_model::Revision::ZERO) {
            let network = &enrolled.record.network;
            let mut free = true;
            for address in enrolled.record.addresses() {
                let claimed = claim(&*self.store, &keys::address(network, address)).await;
                let Ok(claimed) = claimed else { return };
                free &= claimed.is_none();
            }
            if let (true, Some((allocator, _))) = (free, self.allocators.get_mut(network)) {
                let (ipv4, ipv6) = (enrolled.record.ipv4, enrolled.record.ipv6);
                allocator.give_back(&Addresses { ipv4, ipv6 });
            }
        }
    }

    async fn validated(&mut self, network: Network) -> Result<Validated, Refused> {
        if !self.allocator(&network).await?.has_free() {
            return Err(Refused::NoAddress(network.name));
        }
        Ok(Validated { network: network.name, ranges: network.ranges })
    }

    async fn take(&mut self, network: &Network) -> Result<Addresses, Refused> {
        let taken = self.allocator(network).await?.take();
        taken.ok_or_else(|| Refused::NoAddress(network.name.clone()))
    }

    /// A network's allocator, read from the claims where there is none or what it knows may be old.
    async fn allocator(&mut self, network: &Network) -> Result<&mut Allocator, StoreError> {
        let usable = self.allocators.get_mut(&network.name).is_some_and(|(allocator, listed)| {
            *allocator.ranges() == network.ranges
                && (allocator.has_free() || listed.elapsed() < LISTED_AGAIN)
        });
        if !usable {
            // What has failed one of a group is there for the next one.
            if let Some(error) = &self.failed {
                return Err(error.clone());
            }
            let claimed = claims::addresses(&*self.store, &network.name).await?;
            let listed = (Allocator::new(network.ranges, claimed), Instant::now());
            self.allocators.insert(network.name.clone(), listed);
        }
        let (allocator, _) =
            self.allocators.get_mut(&network.name).expect("it was there or has just been put");
        Ok(allocator)
    }
}
