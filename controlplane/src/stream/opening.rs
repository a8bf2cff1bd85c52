//! The first exchange of a stream: Hello, then the facts it is judged by. Waits a little where
//! this replica lags behind what the agent has seen; never guesses.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;
use wattle_model::{Epoch, Revision};
use wattle_proto::sync::retry::Reason;
use wattle_view::Life;

use super::{
    Call, Shared,
    convert::{Hello, Request},
    farewell::Farewell,
    hello::{self, Decision, Facts, FullSet},
    requests::Requests,
};
use crate::store::StoreError;

/// Within which an agent that opened a stream must say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// How long a stream waits for this replica to read what the agent has seen elsewhere.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(3);

/// How an agent is served.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    Resume(Revision),
    Everything(FullSet),
}

/// The stream's first message.
pub(super) async fn hello(requests: &mut Requests) -> Result<Hello, Farewell> {
    let first = timeout(HELLO_WITHIN, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello came"))?
        .map_err(Farewell::malformed)?
        .ok_or(Farewell::Done)?;
    match Request::try_from(first).map_err(Farewell::protocol)? {
        Request::Hello(hello) => Ok(hello),
        _ => Err(Farewell::protocol("message: a stream begins with hello")),
    }
}

/// The store that an agent is served from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Era {
    pub(super) epoch: Epoch,
    /// As [`crate::store::feed::Live::era`] counts.
    pub(super) number: u64,
}

/// What the agent gets, and of which store.
pub(super) async fn decide(
    shared: &Shared,
    call: &Call,
    hello: &Hello,
) -> Result<(Start, Era), Farewell> {
    let deadline = Instant::now() + CATCH_UP_WITHIN;
    // Once behind, once more because the node is younger than what was waited for; then it is for
    // the agent to come again.
    for _ in 0..3 {
        let looked = look(shared, call, hello)?;
        match looked {
            Some((Decision::Resume(revision), era)) => return Ok((Start::Resume(revision), era)),
            Some((Decision::Everything(reason), era)) => {
                return Ok((Start::Everything(reason), era));
            }
            Some((Decision::Retry(reason), _)) => return Err(Farewell::retry(reason)),
            Some((Decision::Ahead(revision), era)) => {
                if store_head(shared).await? < revision {
                    return Ok((Start::Everything(FullSet::StoreBehind), era));
                }
                indexed(shared, revision, deadline).await?;
            }
            None => {
                // Not the head: where others write to the same store, that one may never come.
                let beat = shared.replica.store.beat().await.map_err(unseen)?;
                indexed(shared, beat, deadline).await?;
            }
        }
    }
    Err(Farewell::retry(Reason::Behind))
}

/// Judges the agent by what this replica knows now; `None` if it doesn't know the node yet.
fn look(shared: &Shared, call: &Call, hello: &Hello) -> Result<Option<(Decision, Era)>, Farewell> {
    if !shared.replica.live.is_ready() {
        return Err(Farewell::retry(Reason::Behind));
    }
    let index = shared.replica.live.read();
    match index.life(&call.network, call.node) {
        Life::Deleted => return Err(Farewell::Removed),
        Life::Unknown => return Ok(None),
        Life::Live => {}
    }
    let live = &shared.replica.live;
    let epoch = live.epoch().ok_or(Farewell::retry(Reason::Behind))?;
    let facts = Facts {
        epoch,
        head: index.head(),
        horizon: index.horizon(),
        digest: index.digest(&call.network, call.node),
        stale: shared.replica.live.is_stale(),
    };
    Ok(Some((hello::decide(hello, &facts), Era { epoch, number: live.era() })))
}

async fn store_head(shared: &Shared) -> Result<Revision, Farewell> {
    shared.replica.store.head().await.map_err(unseen)
}

fn unseen(error: StoreError) -> Farewell {
    tracing::debug!(%error, "can't tell who is behind");
    Farewell::retry(Reason::Stale)
}

async fn indexed(shared: &Shared, revision: Revision, deadline: Instant) -> Result<(), Farewell> {
    let mut head = shared.replica.live.head();
    let reached = timeout_at(deadline, head.wait_for(|head| *head >= revision)).await;
    match reached {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Farewell::retry(Reason::Behind)),
    }
}
