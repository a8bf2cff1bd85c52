//! The network's secrets: held before it is said, gone by at the commit at which peers hear that they
//! are held, and there after a restart.

use bytes::Bytes;
use wattle_model::{NetworkSecret, PresharedKey};
use wattle_proto::sync::{self, Config, Prefix};

use super::bench::{Bench, EPOCH};
use crate::scripted::{NODE, Stream, key, node, peer_holding};

fn config(bench: &Bench, generations: &[u8]) -> Config {
    let secret = |generation: &u8| sync::NetworkSecret {
        generation: (*generation).into(),
        secret: vec![*generation; 32].into(),
    };
    let range = Prefix { address: Bytes::from_static(&[10, 90, 0, 0]), length: 16 };
    Config {
        network: "default".into(),
        node_name: "tested".into(),
        ipv4: Bytes::from_static(&[10, 90, 0, 250]),
        ipv4_range: Some(range),
        control_planes: vec![bench.replica.address.clone()],
        secrets: generations.iter().map(secret).collect(),
        ..Default::default()
    }
}

/// What both ends come to.
fn derived(generation: u8, peer: u8) -> PresharedKey {
    NetworkSecret::new([generation; 32]).preshared_key(node(peer), NODE)
}

fn has(bench: &Bench, peer: u8) -> PresharedKey {
    bench.device.observed().peers[&key(peer)].preshared.clone()
}

async fn reported(stream: &mut Stream, generation: u64) {
    while stream.report().await.secret_generation != generation {}
}

/// A machine that goes by the first secret with peer 1, and by none with peer 2.
async fn first(bench: &mut Bench) -> Stream {
    let mut stream = bench.replica.stream().await;
    assert_eq!(stream.hello.secret_generation, 0);
    stream.welcome(EPOCH, true).await;
    stream.config(config(bench, &[1])).await;
    let all = [peer_holding(1, 1), peer_holding(2, 0)];
    stream.commit(5, true, (all.to_vec(), &[]), &all).await;
    reported(&mut stream, 1).await;
    assert!(has(bench, 1).is_none(), "peers don't know yet that it holds it");
    stream.own_generation(1).await;
    stream.commit(6, false, (vec![], &[]), &all).await;
    stream.ack_where(6, |ack| ack.verified_revision == 6).await;
    assert_eq!((has(bench, 1), has(bench, 2)), (derived(1, 1), PresharedKey::NONE));
    stream
}

#[tokio::test]
async fn a_secret_is_used_once_both_ends_are_known_to_hold_it() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = first(&mut bench).await;
    let all = [peer_holding(1, 1), peer_holding(2, 1)];
    stream.commit(7, false, (vec![all[1].clone()], &[]), &all).await;
    stream.ack_where(7, |ack| ack.verified_revision == 7).await;
    assert_eq!(has(&bench, 2), derived(1, 2));
    let status = agent.status().await.preshared_keys;
    assert_eq!((status.on, status.announced, status.peers), (true, 1, 2));
    agent.stop().await;
}

#[tokio::test]
async fn another_secret_takes_over_pair_by_pair_and_the_first_is_forgotten() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = first(&mut bench).await;
    let before = [peer_holding(1, 1), peer_holding(2, 0)];
    stream.config(config(&bench, &[1, 2])).await;
    stream.commit(7, false, (vec![], &[]), &before).await;
    reported(&mut stream, 2).await;
    stream.own_generation(2).await;
    stream.commit(8, false, (vec![], &[]), &before).await;
    stream.ack_where(8, |_| true).await;
    assert_eq!(has(&bench, 1), derived(1, 1), "the peer has the first one alone");
    // The control plane forgets the first before the peer's entry has come.
    stream.config(config(&bench, &[2])).await;
    stream.commit(9, false, (vec![], &[]), &before).await;
    stream.ack_where(9, |_| true).await;
    assert_eq!(has(&bench, 1), derived(1, 1));
    let after = [peer_holding(1, 2), peer_holding(2, 2)];
    stream.commit(10, false, (after.to_vec(), &[]), &after).await;
    stream.ack_where(10, |ack| ack.verified_revision == 10).await;
    assert_eq!((has(&bench, 1), has(&bench, 2)), (derived(2, 1), derived(2, 2)));
    agent.stop().await;
    let kept = bench.identity().unwrap().secrets.in_use();
    assert_eq!(kept.known.into_keys().map(|kept| kept.0).collect::<Vec<_>>(), [2]);
}

/// Turned off, pair by pair: with a peer that hasn't heard of it, all is as it was.
#[tokio::test]
async fn preshared_keys_go_with_each_peer_that_gives_them_up_too() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = first(&mut bench).await;
    let before = [peer_holding(1, 1), peer_holding(2, 0)];
    let mut off = config(&bench, &[1]);
    off.secrets.push(sync::NetworkSecret { generation: 2, secret: Bytes::new() });
    stream.config(off.clone()).await;
    stream.commit(7, false, (vec![], &[]), &before).await;
    reported(&mut stream, 2).await;
    stream.own_generation(2).await;
    stream.commit(8, false, (vec![], &[]), &before).await;
    stream.ack_where(8, |_| true).await;
    assert_eq!(has(&bench, 1), derived(1, 1), "it may not know yet");
    off.secrets.remove(0);
    stream.config(off).await;
    let after = [peer_holding(1, 2), peer_holding(2, 0)];
    stream.commit(9, false, (vec![after[0].clone()], &[]), &after).await;
    stream.ack_where(9, |ack| ack.verified_revision == 9).await;
    assert!(has(&bench, 1).is_none());
    let status = agent.status().await.preshared_keys;
    assert_eq!((status.on, status.announced, status.peers), (false, 2, 0));
    agent.stop().await;
    assert_eq!(bench.identity().unwrap().secrets.in_use().known.len(), 0);
}

/// Nothing is changed on a device that is right, with no control plane in sight.
#[tokio::test]
async fn a_restart_finds_every_preshared_key_as_it_should_be() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let stream = first(&mut bench).await;
    agent.stop().await;
    drop(stream);
    bench.device.take_log();
    let agent = bench.start().await;
    assert_eq!(bench.device.take_log(), []);
    assert_eq!(bench.replica.stream().await.hello.secret_generation, 1);
    // Nor is it lost with the device.
    agent.stop().await;
    bench.device.tamper(|observed| observed.peers.clear());
    let agent = bench.start().await;
    assert_eq!(has(&bench, 1), derived(1, 1));
    agent.stop().await;
}
