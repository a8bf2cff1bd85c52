//! Apply: networks, policies and labels become what a request says, all of them or none.
//!
//! The flow: `wish` reads the request, `networks`, `policies` and `labels` compare each resource
//! with what there is and put it into a `draft`, `foresee` says what the draft means for sight and
//! whether that is expected. Whatever is wrong is gathered on the way (`mistakes`) and said at once.
//!
//! What the draft rests on is compared at the commit: every record that it writes, every node that
//! an expectation names, and, as one key for each network, all its policies and its mode.

mod draft;
mod foresee;
mod labels;
mod mistakes;
mod networks;
mod policies;
mod wish;

use std::time::{Duration, SystemTime};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::timeout;
use tonic::{Code, Status};
use wattle_model::NetworkName;
use wattle_proto::admin::{ApplyRequest, ApplyResponse};

use self::{
    draft::{Draft, Site},
    mistakes::Mistakes,
    wish::Wishes,
};
use super::{
    mutation::{ATTEMPTS, Planned, contended, mutate},
    record::Record,
    session::Agents,
};
use crate::{
    access::Principal,
    nodes::store_failed,
    store::{Store, Stored, Transaction, keys},
};

/// Records read at once.
const READ_AT_ONCE: usize = 32;
/// How long one may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before what has nothing to write is read once more.
const PAUSE: Duration = Duration::from_millis(20);

/// Does what a request says, or says what it would do.
pub(super) async fn apply(
    agents: &Agents,
    principal: &Principal,
    request: &ApplyRequest,
    now: SystemTime,
) -> Result<ApplyResponse, Status> {
    if request.dry_run {
        return Ok(plan(agents, request, now).await?.answer);
    }
    // All Applies of a network write its guard. At once, all but one of them would find it changed,
    // time and again; so a replica does one after the other.
    let turn = timeout(PATIENCE, agents.applying.lock()).await;
    let _turn = turn.map_err(|_| Status::aborted("others are applying: send the request again"))?;
    mutate(&*agents.replica.store, principal, request, || plan(agents, request, now)).await
}

/// A draft with something to write is compared at the commit. Any other has to be of one moment, too,
/// and so is made again where something changed meanwhile.
async fn plan(
    agents: &Agents,
    request: &ApplyRequest,
    now: SystemTime,
) -> Result<Planned<ApplyResponse>, Status> {
    for _ in 0..ATTEMPTS {
        let (draft, mut answer) = draft(agents, request, now).await?;
        if !request.dry_run && draft.changes > 0 {
            return Ok(Planned { transaction: draft.transaction(), answer });
        }
        if is_current(&*agents.replica.store, &draft).await? {
            answer.revision = draft.head.0;
            // Nothing of what becomes has a revision yet.
            let after = answer.applied.iter_mut().filter_map(|applied| applied.after.as_mut());
            after.for_each(|after| after.revision = after.revision.filter(|own| *own != 0));
            return Ok(Planned::settled(answer));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(contended())
}

/// The request worked out on what there is now, or refused.
async fn draft(
    agents: &Agents,
    request: &ApplyRequest,
    now: SystemTime,
) -> Result<(Draft, ApplyResponse), Status> {
    let store = &*agents.replica.store;
    let mut mistakes = Mistakes::default();
    let mut wishes = Wishes::read(request, &mut mistakes);
    let sites = sites(store, &wishes).await?;
    // After the networks' guards and before everything else: the index then has all policies that
    // were there when the guards were read.
    let head = agents.caught_up().await?;
    let is_there = |name: &NetworkName| {
        sites.iter().any(|(site, read)| site == name && read.record.present().is_some())
    };
    wishes.check_networks(is_there, &mut mistakes);
    let mut draft = Draft {
        head,
        sites: sites.into_iter().collect(),
        mistakes,
        stale: Mistakes::default(),
        applied: Default::default(),
        transaction: Transaction::default(),
        changes: 0,
    };
    networks::plan(store, &mut draft, &wishes.networks, now).await?;
    policies::plan(store, &mut draft, wishes.policies, now).await?;
    let labelled = labels::plan(agents, &mut draft, wishes.labels).await?;
    let expected = labels::expected(agents, &mut draft, wishes.expectations, labelled).await?;
    draft.refuse()?;

    let mut unmet = Mistakes::default();
    let sight = foresee::foresee(agents, &draft, expected, &mut unmet).await?;
    let applied = std::mem::take(&mut draft.applied).into_values().collect();
    let answer = ApplyResponse { revision: 0, applied, sight };
    if draft.changes > 0 {
        draft.check_limits(&answer, &mut unmet);
    }
    unmet.refuse(Code::FailedPrecondition)?;
    Ok((draft, answer))
}

/// Reads the networks of a request; of each, first what says whether it has changed.
async fn sites(store: &dyn Store, wishes: &Wishes) -> Result<Vec<(NetworkName, Site)>, Status> {
    let sites = stream::iter(wishes.all_networks()).map(async |name| {
        let guard = guard(store, &name).await?;
        let record = Record::read(store, keys::network(&name)).await?;
        let (nodes, proposal) = Default::default();
        Ok((name, Site { guard, record, nodes, proposal, changed: false }))
    });
    sites.buffered(READ_AT_ONCE).try_collect().await
}

async fn guard(store: &dyn Store, network: &NetworkName) -> Result<Option<Stored>, Status> {
    store.get(&keys::shape(network)).await.map_err(store_failed)
}

async fn is_current(store: &dyn Store, draft: &Draft) -> Result<bool, Status> {
    for (name, site) in &draft.sites {
        if guard(store, name).await? != site.guard {
            return Ok(false);
        }
    }
    Ok(true)
}
