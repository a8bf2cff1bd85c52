//! What the agent knows of itself and the control plane can't: where it may be reached. Looked up
//! on this machine only; nothing here asks the control plane.

use std::{future, io, sync::Arc, time::Duration};

use tokio::{
    select,
    sync::{Notify, watch},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use wattle_model::{Endpoint, Generation};
use wattle_proto::{entry, sync::DataPlane};

use crate::kernel::{DataPlaneKind, Host, Noticed, Watch};

/// How often the machine's own addresses are looked at, whatever the kernel says.
const LOOK: Duration = Duration::from_secs(30);
/// Changes of a machine come in bursts: one look for all of a burst. A machine that moves is out of
/// its peers' reach for as long.
const SETTLED: Duration = Duration::from_millis(100);
/// Looks take at most this share of the time, however often a machine with many routes changes.
const LOOKING: u32 = 4;
/// As much of it may be saved up, for a machine that hasn't changed for a while.
const SAVED: Duration = Duration::from_secs(2);

/// What a Report says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// Candidates, best first.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Where WireGuard listens.
    pub(crate) listen_port: u16,
    /// What moves the packets.
    pub(crate) data_plane: DataPlane,
    /// The newest of the network's secrets that it holds.
    pub(crate) secret_generation: Generation,
}

impl Report {
    /// What to report: the declared endpoints where there are any, else one for each of this
    /// machine's addresses.
    pub(crate) fn new(
        declared: &[Endpoint],
        host: &Host,
        listen_port: u16,
        data_plane: DataPlaneKind,
        secret_generation: Generation,
    ) -> Self {
        let data_plane = match data_plane {
            DataPlaneKind::Kernel => DataPlane::Kernel,
            DataPlaneKind::Userspace => DataPlane::Userspace,
        };
        let endpoints = endpoints(declared, host, listen_port);
        Self { endpoints, listen_port, data_plane, secret_generation }
    }
}

/// The endpoints to tell others: what was declared replaces every guess.
pub(crate) fn endpoints(declared: &[Endpoint], host: &Host, port: u16) -> Vec<Endpoint> {
    if !declared.is_empty() {
        return declared.to_vec();
    }
    let guessed = host.candidates().into_iter();
    let guessed = guessed.filter_map(|address| Endpoint::new((address, port).into()).ok());
    // One place is left for the address that the control plane sees.
    guessed.take(entry::MAX_ENDPOINTS - 1).collect()
}

/// Follows what the kernel says of this machine until the program ends: tells the device's owner
/// that its link was touched, and publishes the machine's addresses where they really changed.
pub(crate) async fn watch_host(
    interface: String,
    present: watch::Sender<Arc<Host>>,
    noticed: Arc<Notify>,
    ended: CancellationToken,
) {
    let mut watch = Watch::open(&interface)
        .inspect_err(|error| tracing::warn!(%error, "changes are found by looking only"))
        .ok();
    let mut next_look = Instant::now() + LOOK;
    let mut pace = Pace { rested: Instant::now() };
    loop {
        let change = select! {
            () = ended.cancelled() => return,
            () = time::sleep_until(next_look) => None,
            change = next(&mut watch) => Some(change),
        };
        match change {
            Some(Ok(change)) => {
                if change.device {
                    noticed.notify_one();
                }
                if change.host {
                    next_look = next_look.min(pace.soon(Instant::now()));
                }
                continue;
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "the kernel's word isn't heard: changes are found by looking only");
                watch = None;
                continue;
            }
            None => next_look = Instant::now() + LOOK,
        }
        let begun = Instant::now();
        let host = Host::read(&interface).await;
        pace.looked(begun, Instant::now());
        match host {
            Ok(host) => {
                present.send_if_modified(|before| {
                    let changed = **before != host;
                    if changed {
                        *before = Arc::new(host);
                    }
                    changed
                });
            }
            Err(error) => tracing::warn!(%error, "this machine's addresses can't be read"),
        }
    }
}

/// When to look again after the kernel's word.
struct Pace {
    /// Looks have had their share of the time until then.
    rested: Instant,
}

impl Pace {
    fn soon(&self, now: Instant) -> Instant {
        (now + SETTLED).max(self.rested)
    }

    fn looked(&mut self, begun: Instant, ended: Instant) {
        let rested = ended.checked_sub(SAVED).unwrap_or(begun).max(self.rested);
        self.rested = rested + (ended - begun) * (1 + LOOKING);
    }
}

async fn next(watch: &mut Option<Watch>) -> io::Result<Noticed> {
    match watch {
        Some(watch) => watch.next().await,
        None => future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::new(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn looks_take_their_share_of_the_time_and_are_soon_after_a_while() {
        let mut now = Instant::now() + SAVED;
        let began = now;
        let mut pace = Pace { rested: now };
        let look = Duration::from_millis(500);
        let mut waits = Vec::new();
        while now < began + Duration::from_secs(60) {
            let at = pace.soon(now);
            waits.push(at - now);
            now = at + look;
            pace.looked(at, now);
        }
        assert!((22..=26).contains(&waits.len()), "a fifth of a minute is 24 looks: {waits:?}");
        // A machine that moves is without an address for a moment, and is looked at then, too.
        now += Duration::from_secs(30);
        for _ in 0..2 {
            let at = pace.soon(now);
            assert_eq!(at - now, SETTLED);
            now = at + look / 5;
            pace.looked(at, now);
        }
    }

    #[test]
    fn every_candidate_is_told_with_the_listen_port() {
        let host = Host::with_addresses(&["192.0.2.7/24", "2001:db8::7/64"]);
        let told = endpoints(&[], &host, 51820);
        assert_eq!(told, [endpoint("192.0.2.7:51820"), endpoint("[2001:db8::7]:51820")]);
        assert_eq!(endpoints(&[], &host, 0), [], "the port isn't known yet");
    }

    #[test]
    fn a_declared_endpoint_replaces_every_guess() {
        let declared = [endpoint("203.0.113.1:1")];
        let host = Host::with_addresses(&["192.0.2.7/24"]);
        assert_eq!(endpoints(&declared, &host, 51820), declared);
    }

    #[test]
    fn an_entry_has_room_for_them_and_for_what_the_control_plane_sees() {
        let nets: Vec<String> = (1..20).map(|n| format!("192.0.2.{n}/24")).collect();
        let nets: Vec<&str> = nets.iter().map(String::as_str).collect();
        let told = endpoints(&[], &Host::with_addresses(&nets), 51820);
        assert_eq!(told.len(), entry::MAX_ENDPOINTS - 1);
    }
}
