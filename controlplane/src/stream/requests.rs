//! What an agent says, message by message. Looked for only where something has come: the way to it
//! leads through HTTP/2 and several layers, and the loop that asks wakes for other reasons mostly.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::{Stream as _, task::AtomicWaker};
use tonic::{Status, Streaming, body::Body, codec::BufferSettings};
use tonic_prost::ProstDecoder;
use wattle_proto::sync::SyncRequest;

/// The most that an agent may say at once.
const MAX_REQUEST: usize = 64 << 10;
/// An idle agent's buffer; it grows for a large request.
const BUFFER: usize = 128;

/// One stream's requests.
pub(super) struct Requests {
    messages: Streaming<SyncRequest>,
    news: Arc<News>,
    waker: Waker,
}

/// Whether something may have come since it was last looked for, and who wants to know.
struct News {
    come: AtomicBool,
    task: AtomicWaker,
}

impl Requests {
    pub(super) fn new(body: Body) -> Self {
        let decoder = ProstDecoder::<SyncRequest>::new(BufferSettings::new(BUFFER, MAX_REQUEST));
        let news = Arc::new(News { come: AtomicBool::new(true), task: AtomicWaker::new() });
        Self {
            messages: Streaming::new_request(decoder, body, None, Some(MAX_REQUEST)),
            waker: Waker::from(Arc::clone(&news)),
            news,
        }
    }

    /// The next message; `None` at the end. Safe to drop and call again.
    pub(super) async fn message(&mut self) -> Result<Option<SyncRequest>, Status> {
        poll_fn(|cx| self.poll(cx)).await.transpose()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<SyncRequest, Status>>> {
        self.news.task.register(cx.waker());
        if !self.news.come.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let messages = Pin::new(&mut self.messages);
        let next = messages.poll_next(&mut Context::from_waker(&self.waker));
        if next.is_ready() {
            // There may be more, of which nobody is told again.
            self.news.come.store(true, Ordering::Release);
        }
        next
    }
}

impl Wake for News {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.come.store(true, Ordering::Release);
        self.task.wake();
    }
}
