//! One direction of a connection.

use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    select,
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    Counts, HELD,
    fault::{Fault, Orders, Towards},
};

/// A throttled connection is written to so many times a second.
const STEPS: u32 = 20;

pub(crate) struct Pump {
    towards: Towards,
    client: IpAddr,
    orders: watch::Receiver<Orders>,
    counts: Arc<Counts>,
    /// What was read, and when it may be written.
    held: VecDeque<(Instant, Bytes)>,
    size: usize,
    /// A throttled one's next write.
    not_before: Instant,
    /// Since this was ordered: bytes that have been carried.
    fault: Fault,
    since: u64,
    /// The one who speaks has ended in order.
    ended: bool,
}

impl Pump {
    pub(crate) fn new(
        towards: Towards,
        client: IpAddr,
        orders: watch::Receiver<Orders>,
        counts: &Arc<Counts>,
    ) -> Self {
        let fault = orders.borrow().of(client);
        Self {
            towards,
            client,
            orders,
            counts: counts.clone(),
            held: VecDeque::new(),
            size: 0,
            not_before: Instant::now(),
            fault,
            since: 0,
            ended: false,
        }
    }

    /// Carries until the one who speaks has ended (false), or everything is to be swallowed (true).
    pub(crate) async fn run(
        &mut self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
    ) -> io::Result<bool> {
        let mut buffer = vec![0; 16 << 10];
        loop {
            self.note_orders();
            match self.fault {
                Fault::Swallow => return Ok(true),
                Fault::HalfClose(towards) if towards == self.towards => {
                    to.shutdown().await?;
                    return self.after_half_close(from).await;
                }
                _ if self.ended && self.held.is_empty() => {
                    to.shutdown().await?;
                    return Ok(false);
                }
                _ => {}
            }
            let moving = !self.fault.stands_still();
            let reading = moving && !self.ended && self.size < HELD;
            let writing = moving && !self.held.is_empty();
            let (due, limit) = (self.due(), self.limit());
            select! {
                changed = self.orders.changed() => {
                    changed.map_err(|_| io::ErrorKind::ConnectionAborted)?;
                }
                read = from.read(&mut buffer), if reading => {
                    let read = read?;
                    self.ended = read == 0;
                    self.hold(&buffer[..read]);
                }
                written = write(&mut to, self.held.front().map(|held| &held.1), due, limit),
                    if writing => self.written(written?)?,
            }
        }
    }

    fn note_orders(&mut self) {
        let fault = self.orders.borrow_and_update().of(self.client);
        if fault != self.fault {
            (self.fault, self.since, self.not_before) = (fault, 0, Instant::now());
        }
    }

    /// One who speaks to a closed half isn't told.
    async fn after_half_close(&mut self, mut from: ReadHalf<'_>) -> io::Result<bool> {
        let mut buffer = vec![0; 4 << 10];
        loop {
            self.note_orders();
            if self.fault == Fault::Swallow {
                return Ok(true);
            }
            select! {
                changed = self.orders.changed() => {
                    changed.map_err(|_| io::ErrorKind::ConnectionAborted)?;
                }
                read = from.read(&mut buffer) => if read? == 0 { return Ok(false) },
            }
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.size += bytes.len();
            let due = Instant::now() + self.fault.delay();
            self.held.push_back((due, Bytes::copy_from_slice(bytes)));
        }
    }

    fn due(&self) -> Instant {
        let due = self.held.front().map(|held| held.0);
        // What was to come later comes at once when the delay is over.
        let due = due.filter(|_| matches!(self.fault, Fault::Delay(_)));
        due.map_or(self.not_before, |due| due.max(self.not_before))
    }

    /// How much may be written at once.
    fn limit(&self) -> usize {
        match self.fault {
            Fault::Throttle(rate) => (rate / STEPS).max(1) as usize,
            Fault::CutAfter(bytes) if self.towards == Towards::Client => {
                usize::try_from(bytes - self.since.min(bytes)).unwrap_or(usize::MAX)
            }
            _ => usize::MAX,
        }
    }

    fn written(&mut self, count: usize) -> io::Result<()> {
        self.counts.of(self.towards).fetch_add(count as u64, Ordering::Relaxed);
        self.since += count as u64;
        self.size -= count;
        if let Some((_, bytes)) = self.held.front_mut() {
            bytes.advance(count);
            if bytes.is_empty() {
                self.held.pop_front();
            }
        }
        match self.fault {
            Fault::Throttle(rate) => {
                let took = count as f64 / f64::from(rate.max(1));
                self.not_before = Instant::now() + Duration::from_secs_f64(took);
                Ok(())
            }
            Fault::CutAfter(_) if self.limit() == 0 => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => Ok(()),
        }
    }
}

/// Writes some of `bytes` when their time has come. Safe to drop and call again.
async fn write(
    to: &mut WriteHalf<'_>,
    bytes: Option<&Bytes>,
    due: Instant,
    limit: usize,
) -> io::Result<usize> {
    let Some(bytes) = bytes else { return std::future::pending().await };
    sleep_until(due).await;
    to.write(&bytes[..bytes.len().min(limit)]).await
}

/// Reads until the end, for nothing.
pub(crate) async fn swallow(from: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(1..) = from.read(&mut buffer).await {}
}
