//! What can be wrong with what the control plane says.

use bytes::Bytes;
use prost::Message as _;
use wattle_model::{Epoch, Revision};
use wattle_proto::sync;

use super::bench::{Bench, EPOCH};
use crate::scripted::{digest_of, has, key, node, peer};

/// An entry of a node that can be told, and nothing else of it can be used.
fn bad(n: u8) -> Bytes {
    let mut message = sync::Peer::decode(peer(n)).unwrap();
    message.public_key = Bytes::from_static(&[1; 31]);
    message.encode_to_vec().into()
}

#[tokio::test]
async fn a_bad_entry_rejects_itself_and_nothing_else() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1, 2]).await;
    stream.commit(6, false, (vec![bad(2), peer(3)], &[]), &[peer(1), bad(2), peer(3)]).await;
    let ack = stream.ack_where(6, |_| true).await;
    assert_eq!(ack.rejected.len(), 1);
    assert_eq!(ack.rejected[0].node_id, node(2).as_bytes().as_slice());
    assert!(ack.rejected[0].reason.contains("public_key"), "{:?}", ack.rejected);
    assert_eq!(ack.digest, digest_of(&[peer(1), bad(2), peer(3)]).to_bytes().as_slice());
    assert_eq!(bench.peers(), [key(1), key(3)]);
    stream.ack_where(6, |ack| ack.verified_revision == 6).await;
    drop(stream);

    let stream = bench.replica.stream().await;
    let held = digest_of(&[peer(1), bad(2), peer(3)]);
    assert_eq!(has(&stream.hello), (Some(EPOCH), Revision(6), held), "it is still held");
    assert_eq!(agent.status().await.session.resyncs, 0);
    agent.stop().await;
}

#[tokio::test]
async fn a_good_entry_replaces_a_bad_one() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1]).await;
    stream.commit(6, false, (vec![bad(2)], &[]), &[peer(1), bad(2)]).await;
    stream.ack_where(6, |_| true).await;
    stream.commit(7, false, (vec![peer(2)], &[]), &[peer(1), peer(2)]).await;
    assert_eq!(stream.ack_where(7, |_| true).await.rejected, []);
    assert_eq!(bench.peers(), [key(1), key(2)]);
    agent.stop().await;
}

#[tokio::test]
async fn a_digest_that_differs_is_asked_about_once() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1]).await;
    // The control plane thinks that the agent sees 9 too.
    stream.commit(6, false, (vec![peer(2)], &[]), &[peer(1), peer(2), peer(9)]).await;
    assert_eq!(stream.resync().await.revision, 6);
    assert_eq!(bench.peers(), [key(1), key(2)], "the data plane stays");
    stream.heartbeat(6, &[peer(1), peer(2), peer(9)]).await;
    let said = stream.until_ack(6).await;
    assert!(
        !said.iter().any(|said| matches!(said, sync::sync_request::Message::Resync(_))),
        "asked twice: {said:?}"
    );

    let all = [peer(1), peer(2), peer(9)];
    stream.commit(6, true, (all.to_vec(), &[]), &all).await;
    stream.ack_where(6, |ack| ack.digest == digest_of(&all).to_bytes().as_slice()).await;
    assert_eq!(bench.peers(), [key(1), key(2), key(9)]);
    let session = agent.status().await.session;
    assert_eq!((session.resyncs, session.full_sets), (1, 2));
    agent.stop().await;
}

#[tokio::test]
async fn another_epoch_is_a_full_set_and_still_only_a_difference() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let stream = bench.filled(&[1, 2]).await;
    drop(stream);
    bench.device.take_log();

    let restored = Epoch::new([2; 16]);
    let mut stream = bench.replica.stream().await;
    stream.welcome(restored, true).await;
    stream.commit(3, true, (vec![peer(2), peer(3)], &[]), &[peer(2), peer(3)]).await;
    let ack = stream.ack().await;
    assert_eq!((ack.revision, ack.verified_revision), (3, 0), "verified in another epoch");
    let touched = format!("{:?}", bench.device.take_log());
    assert!(!touched.contains(&key(2).to_string()), "peer 2 was right already: {touched}");
    stream.ack_where(3, |ack| ack.verified_revision == 3).await;
    drop(stream);
    let stream = bench.replica.stream().await;
    let held = digest_of(&[peer(2), peer(3)]);
    assert_eq!(has(&stream.hello), (Some(restored), Revision(3), held));
    agent.stop().await;
}

#[tokio::test]
async fn another_epoch_without_a_full_set_is_refused() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    drop(bench.filled(&[1]).await);
    let stream = bench.replica.stream().await;
    stream.welcome(Epoch::new([2; 16]), false).await;
    stream.closed().await;
    assert_eq!(bench.peers(), [key(1)]);
    agent.stop().await;
}

#[tokio::test]
async fn no_batch_leads_back() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let stream = bench.filled(&[1]).await;
    stream.commit(4, false, (vec![], &[node(1)]), &[]).await;
    stream.closed().await;
    assert_eq!(bench.peers(), [key(1)]);
    let stream = bench.replica.stream().await;
    assert_eq!(has(&stream.hello).1, Revision(5));
    agent.stop().await;
}

/// What the device refuses is said, and tried again.
#[tokio::test]
async fn a_refused_operation_is_reported_and_repeated() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1]).await;
    stream.ack_where(5, |ack| ack.verified_revision == 5).await;
    bench.device.refuse([true]);
    stream.commit(6, false, (vec![peer(2)], &[]), &[peer(1), peer(2)]).await;
    let ack = stream.ack_where(6, |_| true).await;
    assert_eq!(ack.rejected[0].node_id, node(2).as_bytes().as_slice());
    stream.ack_where(6, |ack| ack.verified_revision == 6).await;
    assert_eq!(bench.peers(), [key(1), key(2)]);
    agent.stop().await;
}
