//! How often Recover is answered. It is open to anyone, so all calls together are limited before
//! any work, and a node's own key works only so often.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use lru::LruCache;
use parking_lot::Mutex;
use tonic::Status;
use wattle_model::Fingerprint;

/// Calls of everybody together in a second, and at once after a quiet time.
const PER_SECOND: f64 = 200.0;
const BURST: f64 = 1000.0;
/// Between two certificates for one key.
const PER_KEY: Duration = Duration::from_secs(10);
/// Keys remembered. Only live nodes' keys get here; the longest unused is forgotten.
const KEYS: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// The limits.
pub(super) struct RecoverLimit {
    all: Mutex<Bucket>,
    keys: Mutex<LruCache<Fingerprint, Instant>>,
}

struct Bucket {
    left: f64,
    filled: Instant,
}

impl RecoverLimit {
    pub(super) fn new(now: Instant) -> Self {
        let all = Mutex::new(Bucket { left: BURST, filled: now });
        Self { all, keys: Mutex::new(LruCache::new(KEYS)) }
    }

    /// One more call.
    pub(super) fn admit(&self, now: Instant) -> Result<(), Status> {
        let mut bucket = self.all.lock();
        let since = now.saturating_duration_since(bucket.filled);
        bucket.left = since.as_secs_f64().mul_add(PER_SECOND, bucket.left).min(BURST);
        bucket.filled = now;
        if bucket.left < 1.0 {
            return Err(Status::resource_exhausted("too many machines recover: try again"));
        }
        bucket.left -= 1.0;
        Ok(())
    }

    /// One more certificate for the key of a live node.
    pub(super) fn admit_key(&self, key: Fingerprint, now: Instant) -> Result<(), Status> {
        let mut keys = self.keys.lock();
        if keys.get(&key).is_some_and(|last| now.saturating_duration_since(*last) < PER_KEY) {
            let seconds = PER_KEY.as_secs();
            let text = format!("this node has just recovered: try again in {seconds} seconds");
            return Err(Status::resource_exhausted(text));
        }
        keys.put(key, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_rate() {
        let start = Instant::now();
        let limit = RecoverLimit::new(start);
        let admitted = |at| (0..2000).filter(|_| limit.admit(at).is_ok()).count();
        assert_eq!(admitted(start), 1000);
        assert_eq!(admitted(start + Duration::from_millis(500)), 100);
        assert_eq!(admitted(start + Duration::from_secs(60)), 1000);
    }

    #[test]
    fn a_key_now_and_then_and_memory_bounded() {
        let start = Instant::now();
        let limit = RecoverLimit::new(start);
        let key = |n: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            Fingerprint::new(bytes)
        };
        assert!(limit.admit_key(key(0), start).is_ok());
        assert!(limit.admit_key(key(0), start + PER_KEY / 2).is_err());
        assert!(limit.admit_key(key(1), start + PER_KEY / 2).is_ok());
        assert!(limit.admit_key(key(0), start + PER_KEY).is_ok());
        for n in 0..20_000 {
            let _ = limit.admit_key(key(n), start);
        }
        assert_eq!(limit.keys.lock().len(), KEYS.get());
    }
}
