//! A gRPC response body fed by an async loop, one message at a time.
//!
//! The loop runs only while the HTTP/2 stream asks for more, so a message is produced when the
//! agent can take it and never before: there is nothing to queue. Messages are shared bytes.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use parking_lot::Mutex;
use tokio::time::{Duration, Instant};
use tonic::Status;

/// Where one message passes from the loop to the body.
#[derive(Default)]
pub(super) struct Gate(Mutex<Passing>);

#[derive(Default)]
struct Passing {
    message: Option<Bytes>,
    /// When the last message was handed to HTTP/2, until that asks for the next one.
    handed_over: Option<Instant>,
}

impl Gate {
    /// How long HTTP/2 hasn't been able to pass on what it was given.
    pub(super) fn stalled(&self) -> Option<Duration> {
        self.0.lock().handed_over.map(|since| since.elapsed())
    }

    fn ask(&self) {
        self.0.lock().handed_over = None;
    }

    fn take(&self) -> Option<Bytes> {
        let message = self.0.lock().message.take()?;
        self.hand_over();
        Some(message)
    }

    /// HTTP/2 has a message to pass on.
    pub(super) fn hand_over(&self) {
        self.0.lock().handed_over = Some(Instant::now());
    }
}

/// The loop's end of the gate.
pub(super) struct Outlet(Arc<Gate>);

impl Outlet {
    /// Where its messages pass.
    pub(super) fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.0)
    }

    /// Sends a message with its gRPC prefix. Returns once HTTP/2 asks for more, so that whatever
    /// the loop does next is done for an agent that has room. Await it alone: nothing wakes it but
    /// the body being polled.
    pub(super) async fn send(&self, message: Bytes) {
        self.0.0.lock().message = Some(message);
        std::future::poll_fn(|_| match self.0.0.lock().message {
            Some(_) => Poll::Pending,
            None => Poll::Ready(()),
        })
        .await;
    }
}

/// The body: polls the loop, passes its messages on, and ends with its status as trailers.
pub(super) struct LoopBody<F> {
    gate: Arc<Gate>,
    running: Option<Pin<Box<F>>>,
}

impl<F: Future<Output = Status>> LoopBody<F> {
    /// A body that runs the loop which `start` makes.
    pub(super) fn new(gate: Arc<Gate>, start: impl FnOnce(Outlet) -> F) -> Self {
        let outlet = Outlet(Arc::clone(&gate));
        Self { gate, running: Some(Box::pin(start(outlet))) }
    }
}

impl<F: Future<Output = Status>> Body for LoopBody<F> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.gate.ask();
        let Some(running) = self.running.as_mut() else { return Poll::Ready(None) };
        let ended = running.as_mut().poll(cx);
        if let Some(message) = self.gate.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        match ended {
            Poll::Pending => Poll::Pending,
            Poll::Ready(status) => {
                self.running = None;
                Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.running.is_none()
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Only a message that isn't a header value can fail, and tonic percent-encodes it.
    if status.add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", http::HeaderValue::from(status.code() as i32));
    }
    trailers
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn body(
        gate: &Arc<Gate>,
        produced: Arc<Mutex<u32>>,
    ) -> LoopBody<impl Future<Output = Status> + use<>> {
        LoopBody::new(Arc::clone(gate), |outlet| async move {
            for n in 0..3_u8 {
                *produced.lock() += 1;
                outlet.send(Bytes::copy_from_slice(&[n])).await;
            }
            Status::unavailable("over")
        })
    }

    #[tokio::test]
    async fn messages_are_produced_on_demand_and_end_with_trailers() {
        let (gate, produced) = (Arc::new(Gate::default()), Arc::new(Mutex::new(0)));
        let mut body = body(&gate, Arc::clone(&produced));
        for n in 0..3_u8 {
            assert_eq!(*produced.lock(), u32::from(n), "nothing is made before it is asked for");
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), [n].as_slice());
        }
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "14");
        assert!(body.is_end_stream() && body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_nobody_polls_counts_as_stalled() {
        let gate = Arc::new(Gate::default());
        let mut body = body(&gate, Arc::default());
        assert_eq!(gate.stalled(), None);
        body.frame().await.unwrap().unwrap();
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(gate.stalled(), Some(Duration::from_secs(61)));
        body.frame().await.unwrap().unwrap();
        assert_eq!(gate.stalled(), Some(Duration::ZERO));
    }
}
