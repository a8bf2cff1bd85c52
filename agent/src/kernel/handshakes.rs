//! When peers shook hands last, kept for a device that forgets it: gotatun knows it of the session
//! in use alone, and a session ends minutes after the last packet. The kernel remembers by itself.

use std::collections::BTreeMap;

use tokio::time::Instant;
use wattle_model::PublicKey;
use wattle_plan::ObservedPeer;

/// As many as the device has peers.
#[derive(Default)]
pub(super) struct Handshakes(BTreeMap<PublicKey, Instant>);

impl Handshakes {
    /// Says of each peer what the device has forgotten. Sessions outlive the pause between two looks
    /// at the device, so none is missed.
    pub(super) fn recall(&mut self, peers: &mut BTreeMap<PublicKey, ObservedPeer>, now: Instant) {
        self.0.retain(|key, _| peers.contains_key(key));
        for (key, peer) in peers {
            if let Some(at) = peer.last_handshake.and_then(|ago| now.checked_sub(ago)) {
                self.0.insert(*key, at);
            }
            peer.last_handshake = self.0.get(key).map(|at| now.saturating_duration_since(*at));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_handshake_that_the_device_forgot_goes_on_ageing() {
        let key = |byte| PublicKey::new([byte; 32]).unwrap();
        let peers = |last: &[(u8, Option<Duration>)]| -> BTreeMap<_, _> {
            let peer = |last_handshake| ObservedPeer { last_handshake, ..ObservedPeer::default() };
            last.iter().map(|(byte, last)| (key(*byte), peer(*last))).collect()
        };
        let (mut handshakes, begun) = (Handshakes::default(), Instant::now());
        let mut recalled = |after: Duration, last: &[_]| {
            let mut peers = peers(last);
            handshakes.recall(&mut peers, begun + 10 * MINUTE + after);
            peers.into_values().map(|peer| peer.last_handshake).collect::<Vec<_>>()
        };
        assert_eq!(recalled(Duration::ZERO, &[(2, Some(MINUTE)), (3, None)]), [Some(MINUTE), None]);
        assert_eq!(recalled(9 * MINUTE, &[(2, None), (3, None)]), [Some(10 * MINUTE), None]);
        assert_eq!(recalled(9 * MINUTE, &[(2, Some(Duration::ZERO))]), [Some(Duration::ZERO)]);
        // One that was removed and comes again is a new peer.
        assert_eq!(recalled(9 * MINUTE, &[]), []);
        assert_eq!(recalled(9 * MINUTE, &[(2, None)]), [None]);
    }
}
