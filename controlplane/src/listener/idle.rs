//! Strangers who do nothing: a connection without a certificate ends once no call has been on it
//! for a while. A call that goes on, such as a health watch, keeps it.

use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::{sync::watch, time::timeout};
use tonic::body::Body;

/// How many calls are on a connection.
#[derive(Default)]
pub(super) struct Calls(watch::Sender<usize>);

/// One of them; over when it drops.
pub(super) struct Call(watch::Sender<usize>);

impl Calls {
    /// One more.
    pub(super) fn begin(&self) -> Call {
        self.0.send_modify(|calls| *calls += 1);
        Call(self.0.clone())
    }

    /// Waits until none has been there for `limit`.
    pub(super) async fn idle(&self, limit: Duration) {
        let mut calls = self.0.subscribe();
        loop {
            // It can't fail: a sender is here.
            let _ = calls.wait_for(|calls| *calls == 0).await;
            if timeout(limit, calls.changed()).await.is_err() {
                return;
            }
        }
    }
}

impl Call {
    /// The call lasts until its answer has been sent or given up.
    pub(super) fn until_answered(self, answer: http::Response<Body>) -> http::Response<Body> {
        answer.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _lasts = &self;
                frame
            }))
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.send_modify(|calls| *calls -= 1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_the_end_of_the_last_call() {
        let (calls, begin) = (Calls::default(), Instant::now());
        let long = calls.begin();
        let others = async {
            for _ in 0..5 {
                tokio::time::sleep(LIMIT / 2).await;
                drop(calls.begin());
            }
            tokio::time::sleep(LIMIT / 2).await;
            drop(long);
        };
        tokio::join!(calls.idle(LIMIT), others);
        assert_eq!(begin.elapsed().as_secs(), (3 * LIMIT + LIMIT).as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_dropped_ends_its_call() {
        let calls = Calls::default();
        let body = Body::new(http_body_util::Full::from("an answer"));
        let answer = calls.begin().until_answered(http::Response::new(body));
        assert_eq!(*calls.0.borrow(), 1);
        drop(answer);
        assert_eq!(*calls.0.borrow(), 0);
    }
}
