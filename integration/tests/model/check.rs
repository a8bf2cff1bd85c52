//! Once quiet: every agent at head, every device what the store says, every promise kept, and
//! nothing healed that shouldn't have been broken.

use std::{rc::Rc, time::Duration};

use serde_json::Value;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};
use wattle_model::NodeId;
use wattle_plan::Op;
use wattle_proto::admin::GetStatusRequest;

use crate::{PATIENCE, host::Host, truth::Truth, world::World};

/// Why an agent may be sent everything it may see. All other reasons mean that something was lost.
const FULL_SETS: [&str; 2] = ["first", "below-horizon"];

/// Waits until it is quiet, and compares. Says what is wrong.
pub(crate) async fn quiet(world: &World) -> Result<(), String> {
    let truth = settled(world).await?;
    let hosts = world.hosts.borrow().clone();
    for host in &hosts {
        let mut host = host.lock().await;
        device(&mut host, &truth).map_err(|wrong| format!("host {}: {wrong}", host.number))?;
    }
    promises(world, &truth)?;
    full_sets(world).await
}

/// Invariant 1, as the agents see it: all are at the store's head with its digest.
async fn settled(world: &World) -> Result<Truth, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let store = world.control_plane.lock().await.store().expect("it was started");
        let truth = Truth::read(&*store).await;
        let mut wrong = Vec::new();
        let hosts: Vec<Rc<Mutex<Host>>> = world.hosts.borrow().clone();
        for host in hosts {
            let mut host = host.lock().await;
            if let Err(why) = at_head(&mut host, &truth).await {
                wrong.push(format!("host {} isn't settled: {why}", host.number));
            }
        }
        let head = store.head().await.unwrap();
        drop(store);
        if wrong.is_empty() && head == truth.head {
            return Ok(truth);
        }
        if Instant::now() > deadline {
            wrong.push(format!("head {head:?}"));
            return Err(wrong.join("\n"));
        }
        sleep(Duration::from_millis(30)).await;
    }
}

async fn at_head(host: &mut Host, truth: &Truth) -> Result<(), String> {
    if host.is_away() {
        return Ok(());
    }
    if let Some(Err(error)) = host.take_end().await {
        return Err(format!("its agent failed: {error:#}"));
    }
    let node = host.node.expect("it has joined");
    let ended = host.exit.is_some();
    match (truth.labels(node).is_some(), ended) {
        (false, true) => Ok(()),
        // It was away for so long that nobody remembers it: it keeps what it has.
        (false, false) if !truth.keys.values().any(|known| *known == node) => Ok(()),
        (false, false) => Err("its node is deleted, and it isn't told".into()),
        (true, true) => Err(format!("its node lives, and it ended: {:?}", host.exit)),
        (true, false) => {
            let status = host.status().await.ok_or("it doesn't answer")?;
            says_so(&status, node, truth).ok_or_else(|| status.to_string())
        }
    }
}

fn says_so(status: &Value, node: NodeId, truth: &Truth) -> Option<()> {
    let set = &status["set"];
    let right = status["session"]["state"] == "connected"
        && set["revision"] == truth.head.0
        && set["verified_revision"] == truth.head.0
        && set["digest"] == truth.digest(node).to_string();
    // A digest that differed was healed by a full set, and hides what was lost.
    (right && status["session"]["resyncs"] == 0).then_some(())
}

/// What the device has, and what it was given since the last time it was quiet.
fn device(host: &mut Host, truth: &Truth) -> Result<(), String> {
    if host.is_away() {
        return Ok(());
    }
    let node = host.node.expect("it has joined");
    for op in host.device.take_log() {
        let Op::SetPeer(set) = &op else { continue };
        let peer = truth.keys.get(&set.key).copied();
        let forgotten = truth.horizon > host.quiet_at;
        if !forgotten && !peer.is_some_and(|peer| truth.may_have_seen(node, peer, host.quiet_at)) {
            return Err(format!("it was given a peer that it never was to see: {op:?}"));
        }
    }
    host.quiet_at = truth.head;
    let device = host.device.observed();
    if truth.labels(node).is_none() {
        if host.exit.is_none() {
            return Ok(());
        }
        let gone = host.device.is_removed() && device.peers.is_empty();
        return if gone { Ok(()) } else { Err(format!("deleted, its device stays: {device:?}")) };
    }
    let expected = truth.peers(node);
    let has = device.peers.iter().map(|(key, peer)| (*key, peer.allowed_ips.clone())).collect();
    if expected != has || !device.up || device.addresses.is_empty() {
        return Err(format!("expected the peers {expected:#?}\nfound {device:#?}"));
    }
    Ok(())
}

/// Invariant 4: what was accepted holds.
fn promises(world: &World, truth: &Truth) -> Result<(), String> {
    let promises = world.promises.borrow();
    let lives = |node: &NodeId| truth.labels(*node).is_some();
    if let Some(node) = promises.live.iter().find(|node| !lives(node)) {
        return Err(format!("node {node} joined and nobody deleted it, and it is gone"));
    }
    if let Some(node) = promises.deleted.iter().find(|node| lives(node)) {
        return Err(format!("node {node} was deleted, and it lives"));
    }
    if let Some(key) = truth.lost() {
        return Err(format!("{key} is held by a node that is gone"));
    }
    for (node, (_, role)) in &promises.roles {
        let labels = truth.labels(*node);
        if labels.is_some_and(|labels| labels.get("role") != role.as_deref()) {
            return Err(format!("node {node} was labelled {role:?}, and is {labels:?}"));
        }
    }
    for (name, (_, sides)) in &promises.policies {
        let is = truth.policy(name).map(|is| (is.from.to_string(), is.to.to_string()));
        let promised = sides.as_ref().map(|(a, b)| (format!("role={a}"), format!("role={b}")));
        if is != promised {
            return Err(format!("policy {name} was made {promised:?}, and is {is:?}"));
        }
    }
    Ok(())
}

async fn full_sets(world: &World) -> Result<(), String> {
    let admin = world.control_plane.lock().await.admin().await;
    let mut admin = admin.ok_or("the control plane isn't there")?;
    let status =
        admin.get_status(GetStatusRequest {}).await.map_err(|status| status.to_string())?;
    let sent = status.into_inner().full_sets;
    match sent.iter().find(|(why, count)| **count > 0 && !FULL_SETS.contains(&why.as_str())) {
        Some((why, count)) => Err(format!("{count} full sets for the reason {why}")),
        None => Ok(()),
    }
}
