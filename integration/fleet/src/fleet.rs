//! The coordinator's side of the worker processes: spawned from this same binary, told what to do
//! over pipes, gone when this is.

use std::process::Stdio;

use anyhow::{Context as _, Result, anyhow, bail};
use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{
    order::{Answer, Awaited, Buckets, Census, Order},
    pages,
    server::Usage,
};

/// A process that obeys.
#[derive(Debug)]
pub(crate) struct Process {
    // Killed when dropped.
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Runs this binary's hidden subcommand `role`.
    pub(crate) fn spawn(role: &str) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .envs(pages::large())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting a {role} process"))?;
        let orders = child.stdin.take().context("it has an input")?;
        let answers = BufReader::new(child.stdout.take().context("it has an output")?).lines();
        Ok(Self { child, orders, answers })
    }

    /// Gives an order and waits for the answer.
    pub(crate) async fn ask(&mut self, order: &Order) -> Result<Answer> {
        self.ask_with(order, &|_| {}).await
    }

    async fn ask_with(&mut self, order: &Order, progress: &dyn Fn(usize)) -> Result<Answer> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.orders.write_all(&line).await.context("a process of the fleet has ended")?;
        loop {
            match self.answer().await? {
                Answer::Progress(more) => progress(more),
                Answer::Failed(why) => bail!(why),
                answer => return Ok(answer),
            }
        }
    }

    /// What it says next.
    pub(crate) async fn answer(&mut self) -> Result<Answer> {
        let line = self.answers.next_line().await?;
        let line = line.context("a process of the fleet has ended: see above")?;
        serde_json::from_str(&line).with_context(|| format!("it said {line}"))
    }
}

/// The processes that the agents are in: agent `n` is in process `n` modulo their number.
#[derive(Debug)]
pub(crate) struct Fleet {
    workers: Vec<Process>,
}

impl Fleet {
    /// Starts so many processes.
    pub(crate) fn start(workers: usize) -> Result<Self> {
        let workers = (0..workers).map(|_| Process::spawn("worker")).collect::<Result<_>>()?;
        Ok(Self { workers })
    }

    /// How many there are.
    pub(crate) const fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Processor time that they have used so far.
    pub(crate) fn cpu_micros(&self) -> Result<u64> {
        let used = |worker: &Process| {
            let id = worker.child.id().context("a process of the fleet has ended")?;
            Ok(Usage::of(id)?.cpu_micros)
        };
        self.workers.iter().map(used).sum()
    }

    /// Gives each process an order; the answers in their order.
    pub(crate) async fn each(
        &mut self,
        orders: impl Iterator<Item = Order>,
        progress: &dyn Fn(usize),
    ) -> Result<Vec<Answer>> {
        let asked = self
            .workers
            .iter_mut()
            .zip(orders)
            .map(|(worker, order)| async move { worker.ask_with(&order, progress).await });
        // Polled together, on this one task.
        let mut asked: Vec<_> = asked.map(Box::pin).collect();
        let mut answers: Vec<Option<Answer>> = asked.iter().map(|_| None).collect();
        std::future::poll_fn(|cx| {
            let mut pending = false;
            for (asked, answer) in asked.iter_mut().zip(&mut answers) {
                if answer.is_some() {
                    continue;
                }
                match asked.as_mut().poll(cx) {
                    std::task::Poll::Ready(Ok(said)) => *answer = Some(said),
                    std::task::Poll::Ready(Err(error)) => {
                        return std::task::Poll::Ready(Err(error));
                    }
                    std::task::Poll::Pending => pending = true,
                }
            }
            if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(Ok(())) }
        })
        .await?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// Gives all processes the same order.
    pub(crate) async fn all(&mut self, order: &Order) -> Result<Vec<Answer>> {
        let orders = std::iter::repeat_n(order.clone(), self.workers.len());
        self.each(orders, &|_| {}).await
    }

    /// Has agent `number` report another endpoint; when it was told.
    pub(crate) async fn report(
        &mut self,
        agent: usize,
        endpoint: std::net::SocketAddr,
    ) -> Result<u64> {
        let worker = agent % self.workers.len();
        match self.workers[worker].ask(&Order::Report { agent, endpoint }).await? {
            Answer::At(at) => Ok(at),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until agents hold a revision; how that ended, over all processes.
    pub(crate) async fn wait(&mut self, order: &Order) -> Result<Awaited> {
        let mut all = Awaited::default();
        for answer in self.all(order).await? {
            let Answer::Awaited(one) = answer else { return Err(unexpected(&answer)) };
            all.done += one.done;
            all.of += one.of;
            all.last_at = all.last_at.max(one.last_at);
        }
        Ok(all)
    }

    /// Latencies since they were last asked for.
    pub(crate) async fn latencies(&mut self) -> Result<Histogram<u64>> {
        let mut all = histogram();
        for answer in self.all(&Order::Latencies).await? {
            let Answer::Latencies(buckets) = answer else { return Err(unexpected(&answer)) };
            add(&mut all, &buckets);
        }
        Ok(all)
    }

    /// How long agents were without a stream, since that was last asked for.
    pub(crate) async fn gaps(&mut self) -> Result<Histogram<u64>> {
        let mut all = histogram();
        for answer in self.all(&Order::Gaps).await? {
            let Answer::Latencies(buckets) = answer else { return Err(unexpected(&answer)) };
            add(&mut all, &buckets);
        }
        Ok(all)
    }

    /// How all agents are.
    pub(crate) async fn census(&mut self) -> Result<Census> {
        let mut all = Census::default();
        for answer in self.all(&Order::Census).await? {
            let Answer::Census(one) = answer else { return Err(unexpected(&answer)) };
            all.merge(*one);
        }
        Ok(all)
    }
}

/// An answer to another order.
pub(crate) fn unexpected(answer: &Answer) -> anyhow::Error {
    anyhow!("a process of the fleet answered {answer:?}")
}

/// Microseconds, up to ten minutes.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(600_000_000, 3).expect("the bounds are sound")
}

/// Adds what a process said.
pub(crate) fn add(all: &mut Histogram<u64>, buckets: &Buckets) {
    for (value, count) in buckets {
        all.saturating_record_n(*value, *count);
    }
}

impl Census {
    fn merge(&mut self, one: Self) {
        self.online += one.online;
        self.bytes += one.bytes;
        self.mismatches += one.mismatches;
        self.full_sets += one.full_sets;
        self.resumed += one.resumed;
        self.commits += one.commits;
        self.entries += one.entries;
        self.acks += one.acks;
        for (why, count) in one.lost {
            *self.lost.entry(why).or_default() += count;
        }
        for held in one.states {
            let same = |known: &&mut crate::order::Held| {
                (known.group, &known.digest, known.entries)
                    == (held.group, &held.digest, held.entries)
            };
            match self.states.iter_mut().find(same) {
                Some(known) => known.agents += held.agents,
                None => self.states.push(held),
            }
        }
    }
}
