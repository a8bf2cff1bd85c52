//! Waiting until every agent has a revision, wherever it is connected. Whom it concerns this replica
//! says; where those stand, all replicas tell, step by step, and [`super::gathered`] makes one of it.

use std::time::Duration;

use futures::{
    FutureExt as _, StreamExt as _,
    stream::{self, BoxStream, SelectAll},
};
use tokio::{
    select,
    time::{Instant, sleep_until},
};
use wattle_model::Revision;
use wattle_proto::replica::{WatchAppliedRequest, WatchAppliedResponse};

use super::{
    Other, Presence, Replicas, Silent,
    ask::unreadable,
    caller::{CallError, PATIENCE},
    convert,
    gathered::Gathered,
};
use crate::stream::{Following, Progress, Report};

/// What a source says.
enum Heard {
    /// Where some nodes stand.
    Reports(Vec<Report>),
    /// All that it knew was said.
    Surveyed,
    /// Nothing more, and why.
    Lost(String),
}

/// Each with the place of its source; the first one is this replica.
type Sources = SelectAll<BoxStream<'static, (usize, Heard)>>;

impl Replicas {
    /// Waits until every agent that `revision` concerns has applied it, or can't. Names the replicas
    /// whose agents weren't heard.
    pub async fn wait_applied(
        &self,
        revision: Revision,
        timeout: Duration,
    ) -> (Progress, Vec<Silent>) {
        let others = self.roster().others();
        if others.is_empty() {
            return (self.sessions().wait_applied(revision, timeout).await, Vec::new());
        }
        let deadline = Instant::now() + timeout;
        if !self.sessions().indexed(revision, deadline).await {
            return (Progress::default(), Vec::new());
        }
        let concerned = self.own().live.read().concerned(revision);
        let gathered = Gathered::new(concerned, others.len() + 1);
        let sources = self.sources(&others, revision, deadline);
        gather(gathered, sources, &others, deadline).await
    }

    fn sources(&self, others: &[Other], revision: Revision, deadline: Instant) -> Sources {
        let own = match self.sessions().follow(revision) {
            Some(following) => own(following).boxed(),
            None => lost("too many waits for revisions go on at this replica").boxed(),
        };
        let theirs = others.iter().map(|other| self.theirs(&other.presence, revision, deadline));
        let all = std::iter::once(own).chain(theirs).enumerate();
        all.map(|(source, heard)| heard.map(move |heard| (source, heard)).boxed()).collect()
    }

    fn theirs(
        &self,
        other: &Presence,
        revision: Revision,
        deadline: Instant,
    ) -> BoxStream<'static, Heard> {
        let (this, other) = (self.clone(), other.clone());
        let left = deadline.saturating_duration_since(Instant::now());
        let request = WatchAppliedRequest {
            replica_id: convert::id_bytes(other.id),
            revision: revision.0,
            timeout_millis: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        };
        let begin = async move {
            let asked = this.0.caller.ask(&other, |mut client| {
                async move { client.watch_applied(request).await.map(tonic::Response::into_inner) }
                    .boxed()
            });
            match asked.await {
                Ok(pages) => pages.map(heard).flat_map(stream::iter).chain(over()).boxed(),
                Err(error) => lost(&error.to_string()).boxed(),
            }
        };
        stream::once(begin).flatten().boxed()
    }
}

fn own(following: Following) -> impl futures::Stream<Item = Heard> {
    let known = vec![Heard::Reports(following.now()), Heard::Surveyed];
    let moved = stream::unfold(following, async |following| {
        Some((Heard::Reports(following.next().await), following))
    });
    stream::iter(known).chain(moved)
}

fn heard(page: Result<WatchAppliedResponse, tonic::Status>) -> Vec<Heard> {
    let page = page.and_then(|page| {
        let reports = page.reports.into_iter().map(convert::report);
        Ok((reports.collect::<Result<Vec<_>, _>>().map_err(unreadable)?, page.surveyed))
    });
    match page {
        Ok((reports, false)) => vec![Heard::Reports(reports)],
        Ok((reports, true)) => vec![Heard::Reports(reports), Heard::Surveyed],
        Err(status) => vec![Heard::Lost(CallError::from(status).to_string())],
    }
}

fn lost(why: &str) -> impl futures::Stream<Item = Heard> + use<> {
    stream::iter([Heard::Lost(why.to_owned())])
}

fn over() -> impl futures::Stream<Item = Heard> {
    lost("it ended the call")
}

/// Hears all sources until nobody is waited for, or time is up.
async fn gather(
    mut gathered: Gathered,
    mut sources: Sources,
    others: &[Other],
    deadline: Instant,
) -> (Progress, Vec<Silent>) {
    let mut silent: Vec<Option<String>> = vec![None; others.len() + 1];
    let patience = Instant::now() + PATIENCE;
    let mut patient = true;
    while !gathered.is_over() {
        select! {
            heard = sources.next() => match heard {
                Some((source, Heard::Reports(reports))) => gathered.hear(source, reports),
                Some((source, Heard::Surveyed)) => gathered.surveyed(source),
                Some((source, Heard::Lost(why))) => {
                    gathered.lost(source);
                    silent[source].get_or_insert(why);
                }
                None => break,
            },
            // Whoever hasn't said anything by now isn't waited for; it may speak later.
            () = sleep_until(patience), if patient => {
                patient = false;
                for source in gathered.give_up() {
                    silent[source].get_or_insert_with(|| CallError::Silent(PATIENCE).to_string());
                }
            }
            () = sleep_until(deadline) => break,
        }
    }
    let named = others.iter().zip(silent.into_iter().skip(1));
    let named = named.filter_map(|(other, why)| Some(Silent::new(&other.presence, why?)));
    (gathered.progress(), named.collect())
}
