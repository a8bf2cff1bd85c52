//! A process with a part of the fleet: it reads orders from its standard input, carries them out
//! one after the other, and answers on its standard output. One thread, because the control plane
//! needs the other processors.

mod agent;
mod enrol;
mod log;
mod roster;
mod socket;
mod state;
mod stream;
mod wire;
mod world;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Stdout, stdin, stdout},
    sync::mpsc,
    time::sleep,
};
use wattle_runtime::backoff::Backoff;

use self::{
    agent::Agent,
    enrol::{Asked, Door, Keys},
    world::World,
};
pub(crate) use self::{
    socket::{Target, Tls, connect},
    world::now,
};
use crate::{
    order::{Answer, Enrol, Order, Who},
    raw,
};

/// Serves the coordinator until it closes the pipe.
pub(crate) async fn run() -> Result<()> {
    let mut lines = BufReader::new(stdin()).lines();
    let mut worker = Worker { world: Arc::default(), raw: raw::Readers::default(), out: stdout() };
    while let Some(line) = lines.next_line().await? {
        let order: Order = serde_json::from_str(&line).context("an order")?;
        let answer = match worker.obey(order).await {
            Ok(answer) => answer,
            Err(error) => Answer::Failed(format!("{error:#}")),
        };
        worker.say(&answer).await?;
    }
    Ok(())
}

struct Worker {
    world: Arc<World>,
    raw: raw::Readers,
    out: Stdout,
}

impl Worker {
    async fn say(&mut self, answer: &Answer) -> Result<()> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        self.out.write_all(&line).await?;
        Ok(self.out.flush().await?)
    }

    async fn obey(&mut self, order: Order) -> Result<Answer> {
        let world = &self.world;
        match order {
            Order::Enrol(enrol) => return self.enrol(enrol).await,
            Order::Connect { who, forget, frozen } => {
                world.chosen(who).iter().for_each(|agent| agent.connect(world, forget, frozen));
            }
            Order::Disconnect { who } => {
                for agent in world.chosen(who) {
                    agent.disconnect().await;
                }
            }
            Order::Freeze { who } => self.freeze(who, true),
            Order::Thaw { who } => self.freeze(who, false),
            Order::Report { agent, endpoint } => {
                let found = world.agents.lock().iter().find(|a| a.number == agent).cloned();
                found.context("no such agent")?.move_to(endpoint);
                return Ok(Answer::At(now()));
            }
            Order::Await { who, revision, millis } => {
                let limit = Duration::from_millis(millis);
                return Ok(Answer::Awaited(world.wait(who, revision, limit).await));
            }
            Order::Record { on } => world.log.lock().record(on),
            Order::Changes { changes, upto } => world.log.lock().committed(&changes, upto),
            Order::Latencies => return Ok(Answer::Latencies(world.log.lock().take())),
            Order::Gaps => return Ok(Answer::Latencies(world.take_gaps())),
            Order::Census => return Ok(Answer::Census(Box::new(world.census()))),
            Order::Raw { address, roots, count } => self.raw.open(&address, &roots, count).await?,
            Order::RawWritten { number, at } => {
                return Ok(Answer::Latencies(self.raw.latencies(number, at).await?));
            }
            Order::Write { .. } => anyhow::bail!("only the raw server writes"),
        }
        Ok(Answer::Done)
    }

    fn freeze(&self, who: Who, frozen: bool) {
        self.world.chosen(who).iter().for_each(|agent| agent.freeze(frozen));
    }

    async fn enrol(&mut self, order: Enrol) -> Result<Answer> {
        let mut doors = Vec::new();
        for token in &order.tokens {
            doors.push(Door::new(token).await?);
        }
        let (doors, agents) = (Arc::new(doors), Arc::new(parking_lot::Mutex::new(order.agents)));
        let (done, mut enrolled) = mpsc::channel(order.at_once);
        for _ in 0..order.at_once {
            let (doors, agents) = (doors.clone(), agents.clone());
            let (world, done, connect) = (self.world.clone(), done.clone(), order.connect);
            tokio::spawn(async move {
                loop {
                    let Some((number, token)) = agents.lock().pop() else { return };
                    let made = enrol_one(&doors[token], number, token, &world, connect).await;
                    if done.send(made).await.is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let mut waiting = 0;
        while let Some(made) = enrolled.recv().await {
            made?;
            waiting += 1;
            if waiting == 50 {
                self.say(&Answer::Progress(std::mem::take(&mut waiting))).await?;
            }
        }
        let at = now();
        self.say(&Answer::Progress(waiting)).await?;
        Ok(Answer::At(at))
    }
}

async fn enrol_one(
    door: &Door,
    number: usize,
    group: usize,
    world: &Arc<World>,
    connect: bool,
) -> Result<()> {
    let keys = Keys::generate();
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    let targets = loop {
        match enrol::enrol(door, &keys, number, world).await? {
            Asked::Enrolled(targets) => break targets,
            Asked::ComeAgain(why) => {
                world.counts.lost(why);
                sleep(backoff.next()).await;
            }
        }
    };
    let agent = Agent::new(number, group, targets);
    world.agents.lock().push(agent.clone());
    if connect {
        agent.connect(world, false, false);
    }
    Ok(())
}
