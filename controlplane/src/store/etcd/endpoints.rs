//! etcd's members and which of them is asked. All calls go to one of them; the first call that it
//! fails moves all the others on to the next one.

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use etcd_client::{Channel, Client, ConnectOptions, Error};
use tokio::{
    sync::{Mutex, OnceCell},
    time::{Instant, sleep, timeout_at},
};

use super::{
    connect,
    failure::{self, Failure, Kind},
    settings::{EtcdAddress, EtcdConfig, EtcdUser},
};
use crate::store::StoreError;

/// A member that hasn't answered a reading by then is left for another one.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// A commit waits for a disk and for a majority, perhaps for an election. All its attempts together.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// It isn't tried again with less than this left.
const WORTH_TRYING: Duration = Duration::from_secs(1);
/// Signing in costs etcd the tenth of a second of a processor: once for all calls that fail together.
const SIGN_IN_EVERY: Duration = Duration::from_secs(1);
/// After a round in which every member failed, so that an outage isn't a storm.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether an answer must hold for all of etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// The member knows a leader.
    Leader,
    /// Whatever the member knows.
    Member,
}

/// All members, in an order of our own.
pub(super) struct Endpoints {
    members: Vec<Member>,
    current: AtomicUsize,
}

struct Member {
    address: EtcdAddress,
    channel: tonic::transport::Channel,
    user: Option<EtcdUser>,
    /// Made once somebody needs it: with a user, making one is a call.
    led: OnceCell<Client>,
    alone: OnceCell<Client>,
    /// When they were last signed in again. Held while they are: many calls fail together.
    signed_in: Mutex<Option<Instant>>,
}

impl Endpoints {
    /// Connects to nobody yet. Begins with a member by chance: replicas spread over them.
    pub(super) fn new(config: &EtcdConfig) -> Result<Self, StoreError> {
        let member = |address: &EtcdAddress| -> Result<Member, StoreError> {
            let channel = connect::channel(address, config.tls.as_ref())
                .map_err(|why| StoreError::Unavailable(format!("etcd at {address}: {why}")))?;
            Ok(Member {
                address: address.clone(),
                channel,
                user: config.user.clone(),
                led: OnceCell::new(),
                alone: OnceCell::new(),
                signed_in: Mutex::new(None),
            })
        };
        let members = config.endpoints.iter().map(member).collect::<Result<Vec<_>, _>>()?;
        if members.is_empty() {
            return Err(StoreError::Unavailable("etcd: no endpoint was given".to_owned()));
        }
        let current = AtomicUsize::new(rand::random_range(0..members.len()));
        Ok(Self { members, current })
    }

    /// How many there are.
    pub(super) const fn count(&self) -> usize {
        self.members.len()
    }

    /// Asks one member once, and leaves it where it fails.
    pub(super) async fn ask<T, Fut>(
        &self,
        demand: Demand,
        patience: Duration,
        call: impl FnOnce(Client) -> Fut,
    ) -> Result<T, Failure>
    where
        Fut: Future<Output = Result<T, Error>>,
    {
        let place = self.current.load(Ordering::Relaxed);
        self.ask_at(place, demand, patience, call).await
    }

    async fn ask_at<T, Fut>(
        &self,
        place: usize,
        demand: Demand,
        patience: Duration,
        call: impl FnOnce(Client) -> Fut,
    ) -> Result<T, Failure>
    where
        Fut: Future<Output = Result<T, Error>>,
    {
        let member = self.at(place);
        let until = Instant::now() + patience;
        let answer = timeout_at(until, async { call(member.client(demand).await?).await }).await;
        let failure = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if failure::asks_who_we_are(&error) => {
                return Err(member.sign_in_again(until, &error).await);
            }
            Ok(Err(error)) => Failure::of(&member.address, &error),
            Err(_) => Failure::timeout(&member.address, patience),
        };
        if failure.another_may_do() {
            self.leave(place, &failure);
        }
        Err(failure)
    }

    /// Asks one member for as long as a reading may take.
    pub(super) async fn one<T, Fut>(
        &self,
        demand: Demand,
        call: impl FnOnce(Client) -> Fut,
    ) -> Result<T, Failure>
    where
        Fut: Future<Output = Result<T, Error>>,
    {
        self.ask(demand, READ_WITHIN, call).await
    }

    /// Begins something that stays with one member; says with which.
    pub(super) async fn hold<T, Fut>(
        &self,
        demand: Demand,
        patience: Duration,
        call: impl FnOnce(Client) -> Fut,
    ) -> Result<(T, usize), Failure>
    where
        Fut: Future<Output = Result<T, Error>>,
    {
        let place = self.current.load(Ordering::Relaxed);
        Ok((self.ask_at(place, demand, patience, call).await?, place))
    }

    /// Asks each member in turn, until one does or refuses for good.
    pub(super) async fn round<T, Fut>(
        &self,
        demand: Demand,
        call: impl Fn(Client) -> Fut,
    ) -> Result<T, Failure>
    where
        Fut: Future<Output = Result<T, Error>>,
    {
        let mut answer = self.ask(demand, READ_WITHIN, &call).await;
        for _ in 1..self.count() {
            match &answer {
                Err(failure) if failure.another_may_do() => {}
                _ => break,
            }
            answer = self.ask(demand, READ_WITHIN, &call).await;
        }
        answer
    }

    /// Asks until somebody does it, for as long as `patience`; for what may be done twice.
    pub(super) async fn again<T, Fut>(
        &self,
        patience: Duration,
        call: impl Fn(Client) -> Fut,
    ) -> Result<T, Failure>
    where
        Fut: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + patience;
        loop {
            let answer = self.round(Demand::Leader, &call).await;
            match &answer {
                Err(failure) if failure.another_may_do() && Instant::now() + PAUSE < deadline => {}
                _ => return answer,
            }
            sleep(PAUSE).await;
        }
    }

    /// Does something once: another member is asked only while it is certain that none has done it.
    pub(super) async fn once<T, Fut>(&self, call: impl Fn(Client) -> Fut) -> Result<T, Failure>
    where
        Fut: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + WRITE_WITHIN;
        for tried in 1.. {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self.ask(Demand::Leader, left, &call).await;
            let again = Instant::now() + WORTH_TRYING < deadline;
            match &answer {
                Err(failure) if failure.kind == Kind::Undone && again => {}
                _ => return answer,
            }
            if tried % self.count() == 0 {
                sleep(PAUSE).await;
            }
        }
        unreachable!("the deadline ends it")
    }

    fn at(&self, place: usize) -> &Member {
        &self.members[place % self.members.len()]
    }

    /// What an error of a member means.
    pub(super) fn failed(&self, place: usize, error: &Error) -> Failure {
        Failure::of(&self.at(place).address, error)
    }

    /// A member ended what was to last.
    pub(super) fn ended(&self, place: usize) -> Failure {
        Failure::new(Kind::Unknown, &self.at(place).address, "it ended the watch")
    }

    /// The present member hasn't what was already seen of another one.
    pub(super) fn lagging(&self) -> Failure {
        let place = self.current.load(Ordering::Relaxed);
        let failure = Failure::new(Kind::Undone, &self.at(place).address, "it lags behind");
        self.leave(place, &failure);
        failure
    }

    /// Asks another member from now on, where this one is still the one that is asked.
    pub(super) fn leave(&self, place: usize, why: &dyn fmt::Display) {
        let next = place.wrapping_add(1) % self.members.len();
        let moved =
            self.current.compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() && self.members.len() > 1 {
            tracing::info!(%why, next = %self.members[next].address, "leaving a member of etcd");
        }
    }
}

impl Member {
    async fn client(&self, demand: Demand) -> Result<Client, Error> {
        let (cell, led) = match demand {
            Demand::Leader => (&self.led, true),
            Demand::Member => (&self.alone, false),
        };
        let client = cell.get_or_try_init(|| async {
            let mut options = ConnectOptions::new().with_require_leader(led);
            if let Some(user) = &self.user {
                let password = user.password().map_err(Error::InvalidArgs)?;
                options = options
                    .with_user(user.name.clone(), password.as_str())
                    .with_auto_token_refresh(true);
            }
            Client::from_channel(Channel::Tonic(self.channel.clone()), Some(options)).await
        });
        client.await.cloned()
    }
    /// For the calls that come, with the password that is in its file now. What it returns says
    /// whether one of them is worth trying.
    async fn sign_in_again(&self, until: Instant, why: &Error) -> Failure {
        let failed = |error: &Error| Failure::of(&self.address, error);
        match timeout_at(until, self.sign_in()).await {
            Ok(Ok(true)) => Failure::new(Kind::Undone, &self.address, &why.to_string()),
            Ok(Ok(false)) | Err(_) => failed(why),
            Ok(Err(error)) => failed(&error),
        }
    }

    /// False where nobody was signed in before.
    async fn sign_in(&self) -> Result<bool, Error> {
        let mut signed_in = self.signed_in.lock().await;
        if signed_in.is_some_and(|at| at.elapsed() < SIGN_IN_EVERY) {
            return Ok(true);
        }
        let Some(user) = &self.user else { return Ok(false) };
        let password = user.password().map_err(Error::InvalidArgs)?;
        let mut any = false;
        for client in [&self.led, &self.alone].into_iter().filter_map(OnceCell::get) {
            let user = (user.name.clone(), password.as_str().to_owned());
            client.clone().update_user(Some(user)).await?;
            any = true;
        }
        *signed_in = any.then(Instant::now);
        Ok(any)
    }
}
