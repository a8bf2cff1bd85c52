//! Reading: linearizably where etcd can, from any member that is no older than what was already
//! seen where it can't. So agents are still authenticated and resumed while there is no quorum.

use std::{sync::Arc, time::Duration};

use etcd_client::{GetOptions, GetResponse};
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use wattle_model::Revision;

use super::{
    Client,
    endpoints::Demand,
    failure::{Failure, Kind},
    keyspace::{Span, number},
};
use crate::store::{Key, Page, Snapshot, StoreError, Stored, keys};

/// Keys of one page of a snapshot; half as many where they don't fit one answer.
const PAGE: usize = 1000;
/// An answer's bytes, at most. One value has at most a megabyte.
pub(super) const MAX_ANSWER: usize = 16 << 20;
/// How long a reading tries.
const PATIENCE: Duration = Duration::from_secs(6);
/// Between attempts where no member could answer.
const PAUSE: Duration = Duration::from_millis(100);
/// For so long after a linearizable reading failed, others don't wait for one.
const DEGRADED: Duration = Duration::from_secs(1);

/// Whether etcd has just shown that it can't read linearizably.
#[derive(Default)]
pub(super) struct Consistency(Mutex<Option<Instant>>);

impl Consistency {
    /// Whether to try it. While it doesn't work one reading in a second does.
    fn try_linear(&self) -> bool {
        let mut until = self.0.lock();
        match *until {
            Some(end) if Instant::now() < end => false,
            Some(_) => {
                *until = Some(Instant::now() + DEGRADED);
                true
            }
            None => true,
        }
    }

    fn tried(&self, works: bool) {
        let mut until = self.0.lock();
        if works {
            if until.take().is_some() {
                tracing::info!("etcd has a quorum again");
            }
        } else if until.replace(Instant::now() + DEGRADED).is_none() {
            tracing::warn!("etcd can't read linearizably: reading what its members have");
        }
    }
}

/// One question: a range, perhaps at a revision.
#[derive(Debug, Clone)]
struct Question {
    span: Span,
    limit: usize,
    at: Option<Revision>,
}

/// What came of it.
struct Answer {
    items: Vec<Stored>,
    more: bool,
    /// The store's when it was answered.
    revision: Revision,
}

impl Client {
    pub(super) async fn head(&self) -> Result<Revision, StoreError> {
        let mark = self.identity.mark();
        // Any key does: the answer's header is what counts.
        let key = self.keyspace.outer(&keys::epoch());
        let options = GetOptions::new().with_count_only();
        let answer = self.endpoints.again(Duration::from_secs(3), |mut client| {
            let (key, options) = (key.clone(), options.clone());
            async move { client.get(key, Some(options)).await }
        });
        self.identity.linear(answer.await?.header(), mark)
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        let start = self.keyspace.outer(key);
        let span = Span { start, end: Vec::new() };
        let answer = self.answer(Question { span, limit: 1, at: None }).await?;
        Ok(answer.items.into_iter().next())
    }

    pub(super) async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let span = self.keyspace.span(prefix, after);
        let answer = self.answer(Question { span, limit, at: None }).await?;
        Ok(Page { items: answer.items, revision: answer.revision, more: answer.more })
    }

    pub(super) async fn snapshot(self: &Arc<Self>, prefix: &Key) -> Result<Snapshot, StoreError> {
        let question = Question { span: self.keyspace.span(prefix, None), limit: PAGE, at: None };
        let first = self.first(question).await?;
        let revision = first.revision;
        let rest =
            Rest { client: self.clone(), prefix: prefix.clone(), revision, next: Some(first) };
        Ok(Snapshot { revision, pages: stream::try_unfold(rest, Rest::next_page).boxed() })
    }

    /// What a snapshot begins with: linearizably or not at all, and a part of it where all of it is too
    /// much for one answer.
    async fn first(&self, mut question: Question) -> Result<Answer, StoreError> {
        let mark = self.identity.mark();
        loop {
            match self.linear(&question, mark).await? {
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.kind == Kind::TooLarge && question.limit > 1 => {
                    question.limit /= 2;
                }
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    /// Tries until there is an answer, for a while.
    async fn answer(&self, mut question: Question) -> Result<Answer, StoreError> {
        let deadline = Instant::now() + PATIENCE;
        let mark = self.identity.mark();
        loop {
            let linear = self.consistency.try_linear();
            let answered = match linear {
                true => self.linear(&question, mark).await?,
                false => self.any_member(&question).await?,
            };
            let failure = match answered {
                Ok(answer) => {
                    if linear {
                        self.consistency.tried(true);
                    }
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            match failure.kind {
                // A part of it then; there is more.
                Kind::TooLarge if question.limit > 1 => question.limit /= 2,
                Kind::Undone | Kind::Unknown if Instant::now() < deadline => match linear {
                    true => self.consistency.tried(false),
                    false => sleep(PAUSE).await,
                },
                _ => return Err(failure.into()),
            }
        }
    }

    async fn linear(
        &self,
        question: &Question,
        mark: super::identity::Mark,
    ) -> Result<Result<Answer, Failure>, StoreError> {
        let response = match self.ask(question, Demand::Leader).await {
            Ok(response) => response,
            Err(failure) => return Ok(Err(failure)),
        };
        let revision = self.identity.linear(response.header(), mark)?;
        Ok(Ok(self.answered(response, revision)))
    }

    /// What a member has, unless something newer was already seen.
    async fn any_member(&self, question: &Question) -> Result<Result<Answer, Failure>, StoreError> {
        let mut answered = self.ask_member(question).await?;
        for _ in 1..self.endpoints.count() {
            if !matches!(&answered, Err(failure) if failure.another_may_do()) {
                break;
            }
            answered = self.ask_member(question).await?;
        }
        Ok(answered)
    }

    async fn ask_member(&self, question: &Question) -> Result<Result<Answer, Failure>, StoreError> {
        let response = match self.ask(question, Demand::Member).await {
            Ok(response) => response,
            Err(failure) => return Ok(Err(failure)),
        };
        Ok(match self.identity.not_older(response.header())? {
            Some(revision) => Ok(self.answered(response, revision)),
            None => Err(self.endpoints.lagging()),
        })
    }

    async fn ask(&self, question: &Question, demand: Demand) -> Result<GetResponse, Failure> {
        let mut options = GetOptions::new().with_limit(question.limit as i64);
        if !question.span.end.is_empty() {
            options = options.with_range(question.span.end.clone());
        }
        if let Some(revision) = question.at {
            options = options.with_revision(number(revision));
        }
        if demand == Demand::Member {
            options = options.with_serializable();
        }
        let call = |client: etcd_client::Client| {
            let (key, options) = (question.span.start.clone(), options.clone());
            async move {
                let mut client = client.kv_client().max_decoding_message_size(MAX_ANSWER);
                client.get(key, Some(options)).await
            }
        };
        match demand {
            Demand::Leader => self.endpoints.round(demand, call).await,
            Demand::Member => self.endpoints.one(demand, call).await,
        }
    }

    fn answered(&self, mut response: GetResponse, revision: Revision) -> Answer {
        let more = response.more();
        let items = response.take_kvs().into_iter().filter_map(|kv| self.keyspace.stored(kv));
        Answer { items: items.collect(), more, revision }
    }
}

/// What a snapshot has still to show. Compacted meanwhile, it can't be gone on with.
struct Rest {
    client: Arc<Client>,
    prefix: Key,
    revision: Revision,
    next: Option<Answer>,
}

impl Rest {
    async fn next_page(mut self) -> Result<Option<(Vec<Stored>, Self)>, StoreError> {
        let Some(page) = self.next.take() else { return Ok(None) };
        if page.more {
            let after = page.items.last().map(|item| &item.key);
            let span = self.client.keyspace.span(&self.prefix, after);
            let question = Question { span, limit: PAGE, at: Some(self.revision) };
            self.next = Some(self.client.answer(question).await?);
        }
        Ok(Some((page.items, self)))
    }
}
