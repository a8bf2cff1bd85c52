//! A connection and its calls as one task. hyper would have each call in a task of its own, which
//! for a stream that says little is much of what it costs: a second wake-up, mostly on another
//! thread, for every change, and memory for as long as the stream lives.
//!
//! Each part is polled only where it was woken itself, so that one which waits costs the others
//! nothing. A call that panics ends alone.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered, task::AtomicWaker};
use parking_lot::Mutex;

/// How often the parts may wake each other before others on the thread have their turn.
const ROUNDS: usize = 8;

/// Parts, as bits of what is due.
const CONNECTION: u8 = 1;
const CALLS: u8 = 2;
const END: u8 = 4;
/// The task is being polled, and looks at what is due before it rests.
const AWAKE: u8 = 8;

/// A connection with its calls, and whatever else may end it.
pub(super) struct Together<C, E> {
    connection: Pin<Box<C>>,
    calls: Calls,
    end: Pin<Box<E>>,
    shared: Arc<Shared>,
    /// Of the connection, the calls, the end.
    wakers: [Waker; 3],
}

/// What came first.
pub(super) enum First<C, E> {
    /// The connection is over, and its calls with it.
    Over(C),
    /// Something else wants it to end.
    End(E),
}

impl<C: Future, E: Future> Together<C, E> {
    /// All parts are due. `begun` is where the connection leaves its calls.
    pub(super) fn new(connection: C, begun: Begun, end: E) -> Self {
        let Begun(shared) = begun;
        let of = |part| Waker::from(Arc::new(Part { part, shared: Arc::clone(&shared) }));
        // A change wakes the calls of thousands of connections: theirs is the shortest way.
        let wakers = [of(CONNECTION), Waker::from(Arc::clone(&shared)), of(END)];
        // On the heap: a task holds each large value as often as it is moved.
        let (connection, end) = (Box::pin(connection), Box::pin(end));
        Self { connection, calls: Calls::default(), end, shared, wakers }
    }

    /// Something is done to the connection, which is polled after that, and `end` takes the place
    /// of what may end it.
    pub(super) fn change<F: Future>(
        mut self,
        change: impl FnOnce(Pin<&mut C>),
        end: F,
    ) -> Together<C, F> {
        change(self.connection.as_mut());
        // What was due beside the end wasn't looked at.
        self.shared.due.fetch_or(CONNECTION | CALLS | END, Ordering::AcqRel);
        let Self { connection, calls, shared, wakers, .. } = self;
        Together { connection, calls, end: Box::pin(end), shared, wakers }
    }

    /// Waits for whatever ends it.
    pub(super) async fn first(&mut self) -> First<C::Output, E::Output> {
        std::future::poll_fn(|cx| self.poll_first(cx)).await
    }

    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<First<C::Output, E::Output>> {
        self.shared.task.register(cx.waker());
        for _ in 0..ROUNDS {
            let due = self.shared.due.swap(AWAKE, Ordering::AcqRel);
            let [connection, calls, end] = &self.wakers;
            if due & END != 0
                && let Poll::Ready(end) = self.end.poll_unpin(&mut Context::from_waker(end))
            {
                return Poll::Ready(First::End(end));
            }
            // Calls first: what they say, the connection sends in the same round.
            if due & CALLS != 0 {
                self.calls.poll(&self.shared, &mut Context::from_waker(calls));
            }
            if due & CONNECTION != 0
                && let Poll::Ready(over) =
                    self.connection.poll_unpin(&mut Context::from_waker(connection))
            {
                return Poll::Ready(First::Over(over));
            }
            // Where nothing is due, the next wake-up is the task's.
            let rest =
                self.shared.due.compare_exchange(AWAKE, 0, Ordering::AcqRel, Ordering::Acquire);
            if rest.is_ok() {
                return Poll::Pending;
            }
        }
        self.shared.due.fetch_and(!AWAKE, Ordering::AcqRel);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The calls of a connection. An agent's has one, its stream, which needs no more than a place.
#[derive(Default)]
struct Calls {
    one: Option<Call>,
    others: Option<FuturesUnordered<Call>>,
}

impl Calls {
    fn poll(&mut self, shared: &Shared, cx: &mut Context<'_>) {
        for call in std::mem::take(&mut *shared.begun.lock()) {
            match &self.one {
                None => self.one = Some(call),
                Some(_) => self.others.get_or_insert_default().push(call),
            }
        }
        if self.one.as_mut().is_some_and(|call| call.poll_unpin(cx).is_ready()) {
            self.one = None;
        }
        if let Some(others) = &mut self.others {
            while let Poll::Ready(Some(())) = others.poll_next_unpin(cx) {}
            if others.is_empty() {
                self.others = None;
            }
        }
    }
}

/// Where hyper leaves calls that have begun. Clones are one.
#[derive(Clone, Default)]
pub(super) struct Begun(Arc<Shared>);

impl<F> hyper::rt::Executor<F> for Begun
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        // A panic was reported by the hook; its call is reset, as if its task had ended.
        let call = AssertUnwindSafe(call).catch_unwind().map(drop);
        self.0.begun.lock().push(Box::pin(call));
        self.0.wake_part(CALLS);
    }
}

/// What the parts of one task share: calls that weren't polled yet, at most as many as a connection
/// may have, and which parts were woken since they were last polled.
struct Shared {
    begun: Mutex<Vec<Call>>,
    due: AtomicU8,
    task: AtomicWaker,
}

impl Default for Shared {
    fn default() -> Self {
        let due = AtomicU8::new(CONNECTION | END);
        Self { begun: Mutex::default(), due, task: AtomicWaker::new() }
    }
}

impl Shared {
    fn wake_part(&self, part: u8) {
        // Where anything was due before, the task knows already.
        if self.due.fetch_or(part, Ordering::AcqRel) == 0 {
            self.task.wake();
        }
    }
}

/// Wakes the calls.
impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_part(CALLS);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_part(CALLS);
    }
}

/// Wakes another part.
struct Part {
    part: u8,
    shared: Arc<Shared>,
}

impl Wake for Part {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.shared.wake_part(self.part);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        future::{pending, poll_fn},
        time::Duration,
    };

    use hyper::rt::Executor as _;
    use tokio::{sync::oneshot, task::yield_now, time::timeout};

    use super::*;

    #[tokio::test]
    async fn a_call_that_panics_ends_alone() {
        let (begun, (done, over)) = (Begun::default(), oneshot::channel());
        begun.execute(async { panic!("a call") });
        begun.execute(async move {
            yield_now().await;
            done.send(()).unwrap();
        });
        let mut together = Together::new(over, begun, pending::<()>());
        let first = timeout(Duration::from_secs(10), together.first()).await;
        assert!(matches!(first, Ok(First::Over(Ok(())))));
    }

    #[tokio::test]
    async fn a_call_that_wakes_leaves_the_connection_alone() {
        let (begun, (done, end)) = (Begun::default(), oneshot::channel());
        let polls = Cell::new(0);
        let connection = poll_fn(|_| {
            polls.set(polls.get() + 1);
            Poll::<()>::Pending
        });
        begun.execute(async move {
            for _ in 0..10 {
                yield_now().await;
            }
            done.send(()).unwrap();
        });
        let mut together = Together::new(connection, begun, end);
        let first = timeout(Duration::from_secs(10), together.first()).await;
        assert!(matches!(first, Ok(First::End(Ok(())))));
        assert_eq!(polls.get(), 1);
    }

    #[tokio::test]
    async fn what_was_changed_is_polled() {
        let leaving = Cell::new(false);
        let connection = poll_fn(|_| match leaving.get() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        let mut together = Together::new(connection, Begun::default(), async {});
        assert!(matches!(together.first().await, First::End(())));
        let mut together = together.change(|_| leaving.set(true), pending::<()>());
        let first = timeout(Duration::from_secs(10), together.first()).await;
        assert!(matches!(first, Ok(First::Over(()))));
    }

    #[tokio::test]
    async fn a_call_that_was_woken_with_the_end_goes_on() {
        let (begun, (done, over)) = (Begun::default(), oneshot::channel());
        let (go, told) = oneshot::channel::<()>();
        let (leave, end) = oneshot::channel::<()>();
        begun.execute(async move {
            told.await.unwrap();
            done.send(()).unwrap();
        });
        let mut together = Together::new(over, begun, end);
        assert!(timeout(Duration::from_millis(1), together.first()).await.is_err());
        go.send(()).unwrap();
        leave.send(()).unwrap();
        assert!(matches!(together.first().await, First::End(Ok(()))));
        let mut together = together.change(|_| {}, pending::<()>());
        let first = timeout(Duration::from_secs(10), together.first()).await;
        assert!(matches!(first, Ok(First::Over(Ok(())))));
    }

    #[tokio::test]
    async fn parts_that_keep_each_other_awake_leave_others_their_turn() {
        let restless = poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        let mut together = Together::new(restless, Begun::default(), pending::<()>());
        assert!(timeout(Duration::from_millis(20), together.first()).await.is_err());
    }
}
