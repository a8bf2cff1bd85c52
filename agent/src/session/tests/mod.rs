//! The whole agent against a scripted control plane over real TLS, with a device in memory: send,
//! expect, cut the link, expect the resume.

mod away;
mod bench;
mod ends;
mod keys;
mod moves;
mod secrets;
mod trouble;

use std::time::Duration;

use wattle_model::{Digest, Revision};
use wattle_proto::sync::{Config, DataPlane, Prefix, sync_request::Message as Said};

use self::bench::{Bench, EPOCH};
use crate::scripted::{digest_of, has, key, node, peer, peer_at};

#[tokio::test]
async fn a_new_agent_gets_a_full_set_and_then_what_changes() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.replica.stream().await;
    assert_eq!(has(&stream.hello), (None, Revision::ZERO, Digest::EMPTY));

    stream.welcome(EPOCH, true).await;
    stream.frame(vec![peer(1)], &[]).await;
    stream.commit(5, true, (vec![peer(2)], &[]), &[peer(1), peer(2)]).await;
    let ack = stream.ack().await;
    assert_eq!(ack.revision, 5);
    assert_eq!(ack.digest, digest_of(&[peer(1), peer(2)]).to_bytes().as_slice());
    assert_eq!(bench.peers(), [key(1), key(2)]);

    stream.commit(7, false, (vec![peer(3)], &[node(1)]), &[peer(2), peer(3)]).await;
    let ack = stream.ack_where(7, |_| true).await;
    assert_eq!(ack.digest, digest_of(&[peer(2), peer(3)]).to_bytes().as_slice());
    assert_eq!(bench.peers(), [key(2), key(3)]);
    stream.ack_where(7, |ack| ack.verified_revision == 7).await;
    agent.stop().await;
}

/// Its own entry is held and digested like any other, and is no peer.
#[tokio::test]
async fn an_agent_is_not_its_own_peer() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.replica.stream().await;
    stream.welcome(EPOCH, true).await;
    let own = peer(0xaa);
    stream.commit(5, true, (vec![own.clone(), peer(1)], &[]), &[own.clone(), peer(1)]).await;
    let ack = stream.ack().await;
    assert_eq!(ack.digest, digest_of(&[own, peer(1)]).to_bytes().as_slice());
    assert_eq!(bench.peers(), [key(1)]);
    agent.stop().await;
}

#[tokio::test]
async fn a_batch_cut_in_the_middle_leaves_no_trace() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1, 2]).await;
    stream.frame(vec![peer(3)], &[node(1)]).await;
    stream.heartbeat(5, &[peer(1), peer(2)]).await;
    stream.ack_where(5, |_| true).await;
    drop(stream);

    let mut stream = bench.replica.stream().await;
    let expected = (Some(EPOCH), Revision(5), digest_of(&[peer(1), peer(2)]));
    assert_eq!(has(&stream.hello), expected);
    assert_eq!(bench.peers(), [key(1), key(2)]);
    stream.welcome(EPOCH, false).await;
    stream.commit(6, false, (vec![peer(4)], &[]), &[peer(1), peer(2), peer(4)]).await;
    stream.ack_where(6, |_| true).await;
    assert_eq!(bench.peers(), [key(1), key(2), key(4)]);
    assert_eq!(agent.status().await.session.resyncs, 0);
    agent.stop().await;
}

/// The walk meets a node again when it changed behind the walk: the later word counts.
#[tokio::test]
async fn the_last_frame_of_a_batch_has_the_last_word() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.replica.stream().await;
    stream.welcome(EPOCH, true).await;
    stream.frame(vec![peer(1), peer(2)], &[]).await;
    stream.frame(vec![], &[node(1)]).await;
    stream.frame(vec![], &[node(3)]).await;
    stream.commit(5, true, (vec![peer(3)], &[]), &[peer(2), peer(3)]).await;
    stream.ack().await;
    assert_eq!(bench.peers(), [key(2), key(3)]);
    assert_eq!(agent.status().await.session.resyncs, 0);
    agent.stop().await;
}

#[tokio::test]
async fn an_idle_agent_moves_on_with_heartbeats_and_stays_there() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1]).await;
    stream.heartbeat(40, &[peer(1)]).await;
    stream.ack_where(40, |ack| ack.verified_revision == 40).await;
    agent.stop().await;
    drop(stream);

    let agent = bench.start().await;
    let stream = bench.replica.stream().await;
    assert_eq!(has(&stream.hello), (Some(EPOCH), Revision(40), digest_of(&[peer(1)])));
    agent.stop().await;
}

#[tokio::test]
async fn an_operator_hears_of_a_tunnel() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1]).await;
    bench.device.tamper(|observed| {
        let peer = observed.peers.get_mut(&key(1)).unwrap();
        peer.endpoint = Some(([192, 0, 2, 1], 51820).into());
        peer.last_handshake = Some(Duration::from_millis(1500));
    });
    let told = stream.inspect(7, node(1)).await;
    assert_eq!((told.query, told.handshake_millis_ago), (7, Some(1500)));
    assert_eq!(told.endpoint.as_ref(), [192, 0, 2, 1, 0xca, 0x6c]);
    let nobody = stream.inspect(8, node(9)).await;
    assert_eq!(nobody, wattle_proto::sync::Inspected { query: 8, ..Default::default() });
    agent.stop().await;
}

/// It is said once on each stream, and not of whom the control plane sees there itself.
#[tokio::test]
async fn peers_behind_nat_are_told_from_where_they_speak() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.replica.stream().await;
    stream.welcome(EPOCH, true).await;
    let all = [1, 2].map(|n| peer_at(n, &["10.0.0.5:51820", "198.51.100.1:51820"]));
    stream.commit(5, true, (all.to_vec(), &[]), &all).await;
    stream.ack_where(5, |_| true).await;
    bench.device.tamper(|observed| {
        for (n, port) in [(1, 51820), (2, 4000)] {
            let peer = observed.peers.get_mut(&key(n)).unwrap();
            peer.endpoint = Some(([198, 51, 100, 1], port).into());
            (peer.last_handshake, peer.rx_bytes) = (Some(Duration::from_millis(1500)), 148);
        }
    });
    let told = stream.observations().await;
    let [seen] = &told.observations[..] else { panic!("{told:?}") };
    assert_eq!(seen.node_id, node(2).as_bytes().as_slice());
    assert_eq!(seen.endpoint.as_ref(), [198, 51, 100, 1, 0x0f, 0xa0]);
    assert!((1500..180_000).contains(&seen.handshake_millis_ago), "{seen:?}");
    stream.heartbeat(6, &all).await;
    let said = stream.until_ack(6).await;
    assert!(!said.iter().any(|said| matches!(said, Said::Observations(_))), "{said:?}");
    drop(stream);

    let mut stream = bench.replica.stream().await;
    stream.welcome(EPOCH, false).await;
    assert_eq!(stream.observations().await.observations.len(), 1, "who doesn't know it yet");
    agent.stop().await;
}

/// Nobody waits for them: they are acked together, and none is forgotten.
#[tokio::test]
async fn changes_that_nobody_waits_for_are_acked_together() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1]).await;
    stream.ack_where(5, |ack| ack.verified_revision == 5).await;
    let mut all = vec![peer(1)];
    for n in 2..=41 {
        all.push(peer(n));
        stream.unasked(u64::from(n) + 5, peer(n), &all).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let acks = stream.until_ack(46).await.len();
    assert!(acks <= 3, "{acks} acks of 40 changes in a second");
    agent.stop().await;
}

#[tokio::test]
async fn a_restart_without_a_control_plane_brings_the_mesh_back() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let stream = bench.filled(&[1, 2]).await;
    agent.stop().await;
    drop(stream);
    bench.device.tamper(|observed| {
        observed.peers.clear();
        observed.up = false;
    });

    let agent = bench.start().await;
    assert_eq!(bench.peers(), [key(1), key(2)], "before anybody was asked");
    assert!(bench.device.observed().up);
    agent.stop().await;
}

/// A device that is right already isn't touched by a restart.
#[tokio::test]
async fn a_restart_adopts_what_is_there() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let stream = bench.filled(&[1, 2]).await;
    agent.stop().await;
    drop(stream);
    bench.device.take_log();
    let agent = bench.start().await;
    assert_eq!(bench.device.take_log(), []);
    agent.stop().await;
}

#[tokio::test]
async fn settings_are_applied_with_the_commit_and_outlive_a_restart() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1]).await;
    let config = Config {
        network: "default".into(),
        node_name: "renamed".into(),
        ipv4: vec![10, 91, 0, 9].into(),
        ipv4_range: Some(Prefix { address: vec![10, 91, 0, 0].into(), length: 16 }),
        control_planes: vec![bench.replica.address.clone()],
        ..Default::default()
    };
    stream.config(config.clone()).await;
    stream.commit(6, false, (vec![], &[]), &[peer(1)]).await;
    stream.ack_where(6, |_| true).await;
    let address = "10.91.0.9/16".parse().unwrap();
    assert_eq!(bench.device.observed().addresses, [address].into());
    agent.stop().await;
    drop(stream);

    let agent = bench.start().await;
    let stream = bench.replica.stream().await;
    let hash = crate::state::held::ConfigHash::of(&prost::Message::encode_to_vec(&config));
    assert_eq!(stream.hello.config_hash, hash.0.as_slice());
    assert_eq!(agent.status().await.node.name, "renamed");
    agent.stop().await;
}

/// It is told, kept for the next start, and taken back.
#[tokio::test]
async fn the_network_s_mtu_is_the_link_s() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1]).await;
    let config = |mtu| Config {
        network: "default".into(),
        node_name: "tested".into(),
        ipv4: vec![10, 90, 0, 250].into(),
        ipv4_range: Some(Prefix { address: vec![10, 90, 0, 0].into(), length: 16 }),
        control_planes: vec![bench.replica.address.clone()],
        mtu,
        ..Default::default()
    };
    let (wished, none) = (config(1380), config(0));
    assert_eq!(bench.device.observed().mtu, 1440);
    stream.config(wished).await;
    stream.commit(6, false, (vec![], &[]), &[peer(1)]).await;
    stream.ack_where(6, |_| true).await;
    assert_eq!(bench.device.observed().mtu, 1380);
    agent.stop().await;
    drop(stream);

    bench.device.tamper(|observed| observed.mtu = 1500);
    let agent = bench.start().await;
    assert_eq!(bench.device.observed().mtu, 1380, "before anybody was asked");
    let mut stream = bench.replica.stream().await;
    stream.welcome(EPOCH, false).await;
    stream.config(none).await;
    stream.commit(7, false, (vec![], &[]), &[peer(1)]).await;
    stream.ack_where(7, |ack| ack.verified_revision == 7).await;
    let plane = agent.status().await.data_plane;
    assert_eq!((plane.mtu, plane.mtu_from.as_str()), (1440, "path"));
    agent.stop().await;
}

#[tokio::test]
async fn it_reports_where_it_may_be_reached() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.replica.stream().await;
    stream.welcome(EPOCH, true).await;
    let report = stream.report().await;
    assert_eq!(report.endpoints, [vec![192, 0, 2, 7, 0xca, 0x6c]]);
    assert_eq!((report.listen_port, report.data_plane()), (51820, DataPlane::Kernel));

    // What hasn't changed isn't said again.
    stream.commit(5, true, (vec![], &[]), &[]).await;
    let said = stream.until_ack(5).await;
    assert!(!said.iter().any(|said| matches!(said, Said::Report(_))), "{said:?}");
    agent.stop().await;
}

#[tokio::test]
async fn status_says_how_it_stands() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1]).await;
    stream.ack_where(5, |ack| ack.verified_revision == 5).await;
    let status = agent.status().await;
    assert_eq!((status.set.revision, status.set.verified_revision), (5, 5));
    assert_eq!(status.set.epoch, Some(EPOCH.to_string()));
    assert_eq!(status.session.state, "connected");
    assert_eq!(status.session.control_plane.as_ref(), Some(&bench.replica.address));
    assert_eq!((status.session.full_sets, status.session.resyncs), (1, 0));
    assert_eq!((status.peers.len(), status.peers[0].name.as_str()), (1, "peer-1"));
    let secret = agent.secrets();
    let text = serde_json::to_string(&status).unwrap();
    assert!(secret.iter().all(|secret| !text.contains(secret)), "a key is in it");
    tokio::time::sleep(Duration::from_millis(10)).await;
    agent.stop().await;
}
