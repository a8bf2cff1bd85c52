//! Many at once: grouped enrolments never use a token too often and never give anything twice.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::{task::JoinHandle, time::sleep};
use tonic::Code;
use wattle_controlplane::{
    nodes::{Enrolled, Enrolment, Nodes, Refused},
    store::{StoreError, keys},
};
use wattle_model::{Fingerprint, PublicKey};
use wattle_proto::{enroll::EnrollRequest, store as record};
use wattle_runtime::shutdown::Shutdown;

use crate::{
    Machine, Token, World,
    door::{Door, Way},
};

const CALLERS: usize = 64;

fn wish(token: &Token) -> Enrolment {
    Enrolment {
        token: token.id,
        secret: token.secret.clone(),
        fingerprint: Fingerprint::new(rand::random()),
        public_key: PublicKey::new(rand::random()).unwrap(),
        name: None,
        endpoints: Vec::new(),
        observed: None,
        root: Fingerprint::new([9; 32]),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_callers_and_twenty_uses() {
    let world = World::start().await;
    let token = world.token(|token| token.max_uses = 20).await;
    let channel = world.stranger().await;
    let call = || {
        let mut client =
            wattle_proto::enroll::enrollment_service_client::EnrollmentServiceClient::new(
                channel.clone(),
            );
        let request = Machine::new().request(&token);
        async move { client.enroll(request).await }
    };
    let answers = join_all((0..CALLERS).map(|_| call())).await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), world.uses(&token).await), (20, 20));
    for status in refused.into_iter().filter_map(Result::err) {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    }
    let configs: Vec<_> =
        made.into_iter().map(|answer| answer.unwrap().into_inner().config.unwrap()).collect();
    let ipv4: BTreeSet<_> = configs.iter().map(|config| &config.ipv4).collect();
    let ipv6: BTreeSet<_> = configs.iter().map(|config| &config.ipv6).collect();
    let names: BTreeSet<_> = configs.iter().map(|config| &config.node_name).collect();
    assert_eq!((ipv4.len(), ipv6.len(), names.len()), (20, 20, 20));
    world.stop().await;
}

/// As two replicas on one store would: their groups conflict, and each knows nothing of what the
/// other takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_of_one_store_never_give_anything_twice() {
    let world = World::start().await;
    let token = world.token(|token| token.max_uses = 50).await;
    let shutdown = Shutdown::new();
    let writers = [(); 2].map(|()| Nodes::new(Arc::clone(&world.replica.store), &shutdown));
    let answers = join_all((0..CALLERS).map(|n| writers[n % 2].enroll(wish(&token)))).await;
    let (mut made, mut addresses) = (0, BTreeSet::new());
    for answer in answers {
        match answer {
            Ok(enrolled) => {
                made += 1;
                addresses.extend(enrolled.record.addresses());
            }
            Err(refused) => {
                assert!(matches!(refused, Refused::UsedUp | Refused::Contended), "{refused}")
            }
        }
    }
    assert_eq!((made, addresses.len()), (world.uses(&token).await, 2 * made as usize));
    assert!(made >= 40, "{made} of 50: contention must not starve");
    shutdown.drain(crate::PATIENCE).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_machine_that_asks_many_times_is_one_node() {
    let world = World::start().await;
    let (token, machine) = (world.token(|_| {}).await, Machine::new());
    let request = machine.request(&token);
    let answers = join_all((0..16).map(|_| world.enroll(request.clone()))).await;
    let ids: BTreeSet<_> = answers.into_iter().map(|answer| answer.unwrap().node_id).collect();
    assert_eq!((ids.len(), world.uses(&token).await), (1, 1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_wish_for_one_name_one_gets_it() {
    let world = World::start().await;
    let token = world.token(|token| token.max_uses = 0).await;
    let ask = || {
        let request = EnrollRequest { name: "only".into(), ..Machine::new().request(&token) };
        world.enroll(request)
    };
    let answers = join_all((0..12).map(|_| ask())).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for status in answers.into_iter().filter_map(Result::err) {
        assert_eq!(status.code(), Code::AlreadyExists, "{status}");
    }
    world.stop().await;
}

/// A dozen tokens of a dozen networks: the largest group there is fits one transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_widest_group_fits_a_transaction() {
    let world = World::start().await;
    let mut tokens = Vec::new();
    for n in 0..12_u8 {
        let body = wattle_proto::record::NetworkBody {
            created_at_millis: 1,
            ipv4_range: format!("10.{n}.0.0/24"),
            ipv6_range: format!("fd00:{n:x}::/64"),
            mode: wattle_model::Mode::Mesh,
            key_rotation_seconds: 0,
            mtu: None,
            preshared_keys: false,
        };
        let network = format!("n{n}");
        let key = keys::network(&network.parse().unwrap());
        let record = wattle_proto::record::encode_first(&body);
        world.put(wattle_controlplane::store::Transaction::default().put(key, record)).await;
        let adjust = |token: &mut record::JoinToken| {
            token.network = network;
            token.max_uses = 0;
        };
        tokens.push(world.token(adjust).await);
    }
    let shutdown = Shutdown::new();
    let nodes = Nodes::new(Arc::clone(&world.replica.store), &shutdown);
    // The first goes alone; while it is on its way the others gather, a dozen to a group.
    let all = tokens.iter().cycle().take(10 * tokens.len());
    let answers = join_all(all.map(|token| nodes.enroll(wish(token)))).await;
    let revisions: BTreeSet<_> =
        answers.into_iter().map(|answer| answer.unwrap().revision).collect();
    assert!(revisions.len() < 60, "{} groups for 120 machines", revisions.len());
    shutdown.drain(crate::PATIENCE).await;
    world.stop().await;
}

/// A commit that fails is told to all who wait, and not tried for each dozen of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_one_group_fails_all_who_wait() {
    let world = World::start().await;
    let token = world.token(|token| token.max_uses = 0).await;
    let (door, shutdown) = (Door::to(Arc::clone(&world.replica.store)), Shutdown::new());
    let nodes = Nodes::new(door.clone(), &shutdown);
    let waiting: Vec<_> = (0..120).map(|_| spawn_enrol(&nodes, &token)).collect();
    door.is_asked().await;
    sleep(GATHERED).await;
    door.set(Way::Broken);
    for answer in join_all(waiting).await {
        let refused = answer.unwrap().unwrap_err();
        assert!(matches!(refused, Refused::Store(StoreError::Unavailable(_))), "{refused}");
    }
    assert_eq!((door.commits(), world.uses(&token).await), (1, 0));
    door.set(Way::Open);
    nodes.enroll(wish(&token)).await.unwrap();
    shutdown.drain(crate::PATIENCE).await;
    world.stop().await;
}

/// Who has gone while others were made isn't made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_has_gone_is_not_made() {
    let world = World::start().await;
    let token = world.token(|token| token.max_uses = 0).await;
    let (door, shutdown) = (Door::to(Arc::clone(&world.replica.store)), Shutdown::new());
    let nodes = Nodes::new(door.clone(), &shutdown);
    let first = spawn_enrol(&nodes, &token);
    door.is_asked().await;
    let waiting: Vec<_> = (0..30).map(|_| spawn_enrol(&nodes, &token)).collect();
    sleep(GATHERED).await;
    for gone in waiting {
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
    }
    door.set(Way::Open);
    first.await.unwrap().unwrap();
    nodes.enroll(wish(&token)).await.unwrap();
    assert_eq!(world.uses(&token).await, 2);
    shutdown.drain(crate::PATIENCE).await;
    world.stop().await;
}

/// Within which all who ask at once wait for the task.
const GATHERED: Duration = Duration::from_millis(500);

fn spawn_enrol(nodes: &Nodes, token: &Token) -> JoinHandle<Result<Enrolled, Refused>> {
    let (nodes, wish) = (nodes.clone(), wish(token));
    tokio::spawn(async move { nodes.enroll(wish).await })
}
