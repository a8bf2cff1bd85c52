//! Waiting between attempts: exponential with full jitter, so that ten thousand agents that lost
//! the same replica don't return in step.

use std::time::Duration;

/// A growing wait. [`Backoff::next`] gives a random one between nothing and the present ceiling,
/// then doubles the ceiling up to the cap.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// A back-off whose first ceiling is `base` and whose last is `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, ceiling: base }
    }

    /// How long to wait before the next attempt.
    #[expect(clippy::should_implement_trait, reason = "it never ends: an Option would mislead")]
    pub fn next(&mut self) -> Duration {
        let ceiling = self.ceiling.min(self.cap);
        self.ceiling = ceiling.saturating_mul(2);
        ceiling.mul_f64(rand::random::<f64>())
    }

    /// Begins again at `base`: the last attempt worked.
    pub const fn reset(&mut self) {
        self.ceiling = self.base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// The largest of many draws of the `n`th wait.
    fn largest(n: usize) -> Duration {
        let draw = |_| {
            let mut backoff = Backoff::new(ms(100), ms(1000));
            (0..n).map(|_| backoff.next()).last().unwrap()
        };
        (0..400).map(draw).max().unwrap()
    }

    #[test]
    fn grows_to_the_cap_and_spreads_over_the_whole_range() {
        for (n, ceiling) in [(1, 100), (2, 200), (4, 800), (5, 1000), (40, 1000)] {
            let seen = largest(n);
            assert!(seen <= ms(ceiling) && seen > ms(ceiling * 9 / 10), "{n}: {seen:?}");
        }
    }

    #[test]
    fn begins_again_after_a_reset() {
        let mut backoff = Backoff::new(ms(1), ms(1000));
        for _ in 0..20 {
            backoff.next();
        }
        backoff.reset();
        assert!(backoff.next() <= ms(1));
    }
}
