//! The same node on two replicas: each tells the others whom it has got, in batches, and whoever
//! holds an older stream of theirs ends it. What isn't told, because there was too much of it or
//! somebody couldn't be reached, is found when the replicas compare their streams.

use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use wattle_model::NodeId;
use wattle_proto::replica::{Entered, TellEnteredRequest};

use super::{Replicas, convert};
use crate::stream::{Claim, MAX_ARRIVALS};

/// How long arrivals are gathered: a few hundred agents that come at once are one message.
const GATHER: Duration = Duration::from_millis(100);
/// How often streams are compared, a third more or less.
const COMPARE_EVERY: Duration = Duration::from_secs(30);

impl Replicas {
    /// Tells the others who has come, until told to end.
    pub(super) async fn tell_arrivals(self, end: CancellationToken) {
        let arrivals = self.sessions().arrivals();
        arrivals.begin();
        let tell = async {
            loop {
                let mut entered = arrivals.take().await;
                sleep(GATHER).await;
                entered.extend(arrivals.take_now());
                self.tell(&entered).await;
            }
        };
        end.run_until_cancelled(tell).await;
    }

    /// Compares streams with the others, until told to end.
    pub(super) async fn compare_streams(self, end: CancellationToken) {
        let compare = async {
            loop {
                sleep(COMPARE_EVERY.mul_f64(rand::random_range(0.67..1.33))).await;
                self.compare().await;
            }
        };
        end.run_until_cancelled(compare).await;
    }

    async fn tell(&self, entered: &[(NodeId, Claim)]) {
        for batch in entered.chunks(MAX_ARRIVALS) {
            let told = self.ask_all(|mut client, other| {
                // Made once the connection is there: the ages in it are as of now.
                let entered = batch.iter().map(|(node, claim)| Entered {
                    node_id: convert::node_bytes(*node),
                    claim: Some(convert::claim_message(claim)),
                });
                let (replica_id, entered) = (convert::id_bytes(other), entered.collect());
                async move {
                    client.tell_entered(TellEnteredRequest { replica_id, entered }).await.map(drop)
                }
                .boxed()
            });
            let (_, silent) = told.await;
            self.sessions().arrivals().count_dropped(batch.len() * silent.len());
        }
    }

    /// Ends streams here that are older than others' of the same nodes.
    pub(super) async fn compare(&self) {
        for other in self.roster().others().iter() {
            for (node, claim) in self.claims(&other.presence).await {
                self.sessions().elsewhere(node, &claim);
            }
        }
    }
}
