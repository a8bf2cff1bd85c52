//! Figures for Prometheus. Nothing is counted here: each scrape asks those who know.

mod endpoint;

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

pub use self::endpoint::Endpoint;
use crate::{
    replica::Replica,
    replicas::Replicas,
    stream::{Sessions, SyncService},
};

/// All figures of one replica, under names that begin with `wattle_`.
pub fn registry(replicas: Replicas, streams: SyncService) -> Registry {
    let mut registry = Registry::with_prefix("wattle");
    let (replica, sessions) = (replicas.own().clone(), replicas.sessions().clone());
    registry.register_collector(Box::new(Figures { replica, replicas, sessions, streams }));
    registry
}

/// Where the figures come from.
struct Figures {
    replica: Arc<Replica>,
    replicas: Replicas,
    sessions: Sessions,
    streams: SyncService,
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures").field("replica", &self.replica.id).finish_non_exhaustive()
    }
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.view(&mut page)?;
        self.last_change(&mut page)?;
        self.streams(&mut page)?;
        self.observations(&mut page)?;
        self.trouble(&mut page)
    }
}

impl Figures {
    fn view(&self, page: &mut Page<'_>) -> fmt::Result {
        let (head, nodes, networks) = {
            let index = self.replica.live.read();
            let nodes: usize = index.networks().map(|network| network.live).sum();
            (index.head(), nodes, index.networks().count())
        };
        let stale = u64::from(self.replica.live.is_stale());
        page.gauge("revision", "Revision that this replica has read the store up to", head.0)?;
        page.gauge("stale", "1 while the store can't be seen", stale)?;
        let replicas = self.replicas.roster().others().len() + 1;
        page.gauge("replicas", "Replicas that run, this one included", replicas as u64)?;
        let live = &self.replica.live;
        page.counter("store_lists", "Times that the whole store was read", live.lists())?;
        page.counter(
            "anti_entropy_repairs",
            "Times that the view was found to differ from the store, and made anew",
            live.repairs(),
        )?;
        page.gauge("networks", "Networks", networks as u64)?;
        page.gauge("nodes", "Nodes in all networks", nodes as u64)?;
        page.put(
            "change_handed_seconds",
            "From a change's commit until every waiting stream was woken",
            self.replica.live.handed(),
        )
    }

    fn last_change(&self, page: &mut Page<'_>) -> fmt::Result {
        let revision = self.replica.live.read().last_change();
        let here = self.replicas.presence().last_change;
        let offline = self.replicas.offline(&here);
        page.gauge(
            "last_change_revision",
            "The last revision that changed what agents may see",
            revision.0,
        )?;
        let standings = [
            ("applied", here.applied),
            ("pending", here.pending),
            ("rejected", here.rejected),
            ("offline", offline),
        ];
        page.family(
            "last_change_nodes",
            "Nodes that the last change concerns: of those connected here how far it has come, and \
             how many are connected nowhere",
            "state",
            standings.map(|(state, nodes)| (state, gauge(nodes.into()))),
        )
    }

    fn streams(&self, page: &mut Page<'_>) -> fmt::Result {
        let sessions = &self.sessions;
        page.gauge("streams", "Agents connected", sessions.online() as u64)?;
        page.counter("encodes", "Messages about peers encoded", self.streams.encodes())?;
        page.counter(
            "resumes",
            "Streams that went on where they were",
            sessions.counts().resumes(),
        )?;
        let full_sets = sessions.full_sets().into_iter();
        page.family(
            "full_sets",
            "Full sets sent, by reason",
            "reason",
            full_sets.map(|(reason, sent)| (reason, ConstCounter::new(sent))),
        )?;
        page.put(
            "apply_seconds",
            "From a batch's arrival at an agent until its device had it, as agents ack",
            sessions.apply_times(),
        )
    }

    fn observations(&self, page: &mut Page<'_>) -> fmt::Result {
        let counts = self.sessions.counts();
        page.counter(
            "observations_accepted",
            "Ports of nodes behind NAT that other nodes saw",
            counts.observations_accepted(),
        )?;
        let refused = [
            ("unseen", counts.observations_unseen()),
            ("old", counts.observations_old()),
            ("elsewhere", counts.observations_elsewhere()),
            ("own_word", counts.observations_own_word()),
            ("too_soon", counts.observations_too_soon()),
            ("dropped", counts.observations_dropped()),
        ];
        page.family(
            "observations_refused",
            "What nodes said of others' endpoints and wasn't taken, by reason",
            "reason",
            refused.map(|(reason, refused)| (reason, ConstCounter::new(refused))),
        )
    }

    fn trouble(&self, page: &mut Page<'_>) -> fmt::Result {
        let counts = self.sessions.counts();
        let each = [
            ("streams_stalled", "Streams cut because nothing could be written", counts.stalled()),
            ("digest_mismatches", "Acks with another digest", counts.digest_mismatches()),
            ("displaced", "Streams displaced by another machine", counts.displaced()),
            ("shed", "Agents told to go to a replica that has fewer", counts.shed()),
            (
                "arrivals_untold",
                "Agents of whose streams another replica wasn't told",
                self.sessions.arrivals().dropped(),
            ),
            (
                "protocol_errors",
                "Streams of agents that broke the protocol",
                counts.protocol_errors(),
            ),
            ("resyncs_refused", "Full sets asked for too often", counts.resyncs_refused()),
            (
                "full_sets_put_off",
                "Full sets put off: too many at once",
                counts.full_sets_put_off(),
            ),
        ];
        each.into_iter().try_for_each(|(name, help, value)| page.counter(name, help, value))
    }
}

/// The answer to a scrape, being written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.put(name, help, &gauge(value))
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.put(name, help, &ConstCounter::new(value))
    }

    fn put(&mut self, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    /// One metric with one label; nothing where there is no value yet.
    fn family<M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'static str, M)>,
    ) -> fmt::Result {
        let mut values = values.into_iter().peekable();
        let Some((_, first)) = values.peek() else { return Ok(()) };
        let mut encoder = self.0.encode_descriptor(name, help, None, first.metric_type())?;
        values.try_for_each(|(value, metric)| {
            metric.encode(encoder.encode_family(&[(label, value)])?)
        })
    }
}

fn gauge(value: u64) -> ConstGauge {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}
