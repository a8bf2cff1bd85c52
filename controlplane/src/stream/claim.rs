//! A hold on a node's identity, and which of several is the newest: streams of one node may be open
//! on several replicas, because one of them hasn't noticed yet that its own is dead.

use std::time::Duration;

use tokio::time::Instant;
use wattle_model::InstanceId;

/// One replica's hold on one node's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// A stream is open.
    pub online: bool,
    /// The agent's.
    pub instance: InstanceId,
    /// Which of the instance's streams it is; 0 where it doesn't count them.
    pub stream: u64,
    /// When the stream began or, where none is open, ended. From another replica it comes as an age,
    /// and is late by the time that the message took.
    pub at: Instant,
}

/// Times of two replicas that are this close may be the other way round.
const BLUR: Duration = Duration::from_secs(1);

impl Claim {
    /// Whether this one holds the identity rather than `other`. An open stream before none; of one
    /// instance the later stream by its own count; of two the later one, and where nobody can tell
    /// which that is, all replicas take the same one.
    pub fn beats(&self, other: &Self) -> bool {
        if self.online != other.online {
            return self.online;
        }
        let counted = self.stream != 0 && other.stream != 0;
        if self.instance == other.instance && counted && self.stream != other.stream {
            return self.stream > other.stream;
        }
        let apart = self.at.max(other.at) - self.at.min(other.at);
        if self.instance != other.instance && apart < BLUR {
            return self.instance > other.instance;
        }
        self.at > other.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(online: bool, instance: u8, stream: u64, second: u64) -> Claim {
        let base = Instant::now();
        // Far enough apart for the moment between two calls not to matter.
        let at = base + Duration::from_secs(1000 * second);
        Claim { online, instance: InstanceId::new([instance; 16]), stream, at }
    }

    #[test]
    fn the_newest_stream_holds_the_identity() {
        for (newer, older) in [
            (claim(true, 1, 0, 0), claim(false, 1, 0, 9)),
            (claim(true, 1, 1, 0), claim(false, 2, 5, 9)),
            (claim(true, 1, 3, 0), claim(true, 1, 2, 9)),
            (claim(false, 1, 3, 0), claim(false, 1, 2, 9)),
            (claim(true, 1, 0, 9), claim(true, 1, 2, 0)),
            (claim(true, 2, 1, 9), claim(true, 1, 7, 0)),
        ] {
            assert!(newer.beats(&older) && !older.beats(&newer), "{newer:?} {older:?}");
        }
        let one = claim(true, 1, 1, 1);
        assert!(!one.beats(&one));
        // Each replica sees the other's a little late.
        let (a, b) = (claim(true, 1, 1, 1), claim(true, 2, 1, 1));
        let late = |claim: Claim| Claim { at: claim.at + Duration::from_millis(300), ..claim };
        assert!(late(b).beats(&a) && !late(a).beats(&b));
    }
}
