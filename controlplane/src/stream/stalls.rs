//! Streams that can't be written to. Such a stream isn't polled, so it can't end itself, and its
//! node may have opened others since: all open streams are looked at here, whoever they serve.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::body::Gate;
use crate::listener::Cut;

/// All open streams of a replica. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub(super) struct Stalls(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    next: u64,
    streams: HashMap<u64, (Arc<Gate>, Cut)>,
}

impl Stalls {
    /// Looks at a stream for as long as the guard is held.
    pub(super) fn watch(&self, gate: Arc<Gate>, connection: Cut) -> Watched {
        let mut open = self.0.lock();
        let number = open.next;
        open.next += 1;
        open.streams.insert(number, (gate, connection));
        Watched { stalls: self.clone(), number }
    }

    /// Cuts the connections of streams that haven't taken what they were given for so long. Says
    /// how many streams it found.
    pub(super) fn cut(&self, patience: Duration) -> usize {
        let open = self.0.lock();
        let stalled = open
            .streams
            .values()
            .filter(|(gate, _)| gate.stalled().is_some_and(|stalled| stalled >= patience));
        // A connection that is cut already takes a moment to be gone.
        stalled.filter(|(_, connection)| connection.cut()).count()
    }
}

/// A stream that is looked at.
pub(super) struct Watched {
    stalls: Stalls,
    number: u64,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stalls.0.lock().streams.remove(&self.number);
    }
}
